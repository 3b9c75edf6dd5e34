// SPDX-License-Identifier: MIT OR Apache-2.0
//! After any failure every page is converted, unchanged, or in the state that its entry reports.

use std::vec::Vec;

use protocol::Request;
use protocol::convert::{ConvertEntry, Outcome};
use protocol::result::{HOST_MISBEHAVED, HOST_REFUSED, PAGE_LOST};
use snp::address::PageSize;
use snp::operands::InstructionCode;
use snp::svsm::ResultCode;

use super::machine::{Failure, RAM};
use super::world::{LIST, World, broken, large, larges, small, smalls};
use crate::page_state::PageState;
use crate::test_platform::Manner;

const SUCCESS: ResultCode = ResultCode::SUCCESS;
const PAGE: u64 = RAM + 0x20_0000;
const REFUSED: u64 = 1 << 40;

/// What the machine, the word and the report say of an entry has to agree, whatever happened.
fn check(world: &World, number: u64, entry: ConvertEntry, context: &str) {
    let outcome = world.machine.outcome(LIST, number);
    let done = number < u64::from(world.machine.header(LIST).next);
    let size = entry.size().unwrap();
    for step in 0..size.pages() {
        let page = entry.page().bits() + step * 4096;
        let state = world.state(page);
        let (before, after) = match entry.to_shared() {
            true => (PageState::Valid, PageState::Shared),
            false => (PageState::Shared, PageState::Valid),
        };
        let wanted = match outcome {
            Outcome::Converted if done => after,
            Outcome::Converted | Outcome::Unchanged => before,
            Outcome::Zeroed => PageState::Valid,
            Outcome::Unvalidated => PageState::Invalid,
            Outcome::Quarantined => PageState::Quarantined,
        };
        assert_eq!(state, wanted, "{context}: {page:#x} {outcome:?}");
        let found = world.machine.page(page);
        match state {
            PageState::Valid => {
                assert!(found.validated && found.permissions[2] == 0xF, "{context}");
                let changed = outcome == Outcome::Zeroed || !entry.to_shared();
                assert!(found.zero || !changed, "{context}: {page:#x} not zeroed");
            }
            PageState::Shared => assert!(!found.validated && !found.assigned, "{context}"),
            PageState::Invalid => {
                assert!(
                    !found.validated && found.permissions[1..] == [0; 3],
                    "{context}"
                );
            }
            PageState::Quarantined => {}
            other => panic!("{context}: {page:#x} is {other:?}"),
        }
    }
}

fn mixed(to_shared: bool) -> Vec<ConvertEntry> {
    let mut list = smalls(PAGE, 2, to_shared);
    list.push(large(PAGE + 0x20_0000, to_shared));
    list.extend(smalls(PAGE + 0x10_000, 2, to_shared));
    list
}

/// Fails each platform call in turn, every `stride`th that is; the first number that no call has.
fn enumerate(to_shared: bool, failure: Failure, small_rmp: bool, stride: usize) -> usize {
    for nth in (1..).step_by(stride) {
        let world = World::new();
        if small_rmp {
            world.machine.small_rmp();
        }
        let list = mixed(to_shared);
        if !to_shared {
            world.convert(&mixed(true));
            if small_rmp {
                world.machine.small_rmp();
            }
        }
        world.put(&list);
        world.machine.fail_call(nth, failure);
        let code = world.call();
        let context = std::format!("call {nth}, {failure:?}, {code}");
        if world.machine.failure_left() {
            assert_eq!(code, SUCCESS);
            return nth;
        }
        if world.state(LIST) == PageState::Quarantined {
            assert_eq!(code, ResultCode::INVALID_ADDRESS, "{context}");
            for entry in &list {
                assert_ne!(
                    world.state(entry.page().bits()),
                    PageState::Busy,
                    "{context}"
                );
            }
            continue;
        }
        assert_eq!(world.state(LIST), PageState::Valid, "{context}");
        if world.service.has_stopped() {
            assert_eq!(code, HOST_MISBEHAVED, "{context}");
        }
        for (number, entry) in list.iter().enumerate() {
            check(&world, number as u64, *entry, &context);
        }
    }
    unreachable!()
}

#[test]
#[cfg_attr(miri, ignore = "more worlds than Miri gets through")]
fn p3_every_platform_call_may_fault() {
    // Header, entries, cursor; to shared 3 revokes and a rescind of each entry, back 4 steps.
    assert_eq!(enumerate(true, Failure::Fault, false, 1), 3 + 5 * 4 + 1);
    assert_eq!(enumerate(false, Failure::Fault, false, 1), 3 + 5 * 4 + 1);
    // The same with a large page in 512 parts.
    assert!(enumerate(true, Failure::Fault, true, 43) > 512 * 4);
    assert!(enumerate(false, Failure::Fault, true, 43) > 512 * 4);
}

#[test]
#[cfg_attr(miri, ignore = "more worlds than Miri gets through")]
fn p3_every_instruction_may_refuse_or_find_nothing_to_change() {
    for failure in [
        Failure::Unchanged,
        Failure::Code(InstructionCode::FAIL_INPUT),
        Failure::Code(InstructionCode::FAIL_SIZEMISMATCH),
        Failure::Code(InstructionCode(0xFFFF_FFFF)),
    ] {
        enumerate(true, failure, false, 1);
        enumerate(false, failure, false, 1);
    }
}

#[test]
fn p1_p_5_9_10_a_page_that_was_taken_away_is_quarantined_and_the_others_are_converted() {
    for failure in [Failure::Unchanged, Failure::Fault] {
        let world = World::new();
        let list = smalls(PAGE, 4, true);
        world.machine.fail_pvalidate(PAGE + 0x1000, false, failure);
        world.machine.fail_rmpadjust(PAGE + 0x2000, Failure::Fault);
        assert_eq!(world.convert(&list), (PAGE_LOST, 4));
        let (converted, lost) = (Outcome::Converted, Outcome::Quarantined);
        assert_eq!(world.outcomes(4), [converted, lost, lost, converted]);
        for (number, entry) in list.iter().enumerate() {
            check(&world, number as u64, *entry, "taken away");
        }
        assert_eq!(world.service.statistics().guest_page_faults, 2);
        // Quarantined for ever.
        for to_shared in [true, false] {
            let again = world.convert(&[small(PAGE + 0x1000, to_shared)]);
            assert_eq!(again, (ResultCode::INVALID_ADDRESS, 0));
        }
    }
}

#[test]
fn p3_p_5_9_10_a_code_that_should_not_be_there_quarantines_the_entry() {
    // The map calls the page valid or shared and the instruction says something else: one of them is wrong.
    let world = World::new();
    let code = Failure::Code(InstructionCode::FAIL_INUSE);
    world.machine.fail_rmpadjust(PAGE, code);
    assert_eq!(world.convert(&smalls(PAGE, 2, true)), (PAGE_LOST, 2));
    let (converted, lost) = (Outcome::Converted, Outcome::Quarantined);
    assert_eq!(world.outcomes(2), [lost, converted]);

    let world = World::new();
    world.convert(&smalls(PAGE, 2, true));
    world.machine.fail_pvalidate(PAGE, true, code);
    assert_eq!(world.convert(&smalls(PAGE, 2, false)), (PAGE_LOST, 2));
    assert_eq!(world.outcomes(2), [lost, converted]);
    assert_eq!(world.state(PAGE), PageState::Quarantined);
}

#[test]
fn p1_p_5_9_11_a_list_that_faults_does_not_hide_that_the_service_stopped() {
    let world = World::new();
    world.convert(&[small(PAGE, true)]);
    world.put(&[small(PAGE, false)]);
    world.machine.fail_pvalidate(PAGE, true, Failure::Unchanged);
    // Header, entries, and then the report.
    world.machine.fail_call(3, Failure::Fault);
    assert_eq!(world.call(), HOST_MISBEHAVED);
    assert!(world.service.has_stopped());
    assert_eq!(world.state(LIST), PageState::Quarantined);
}

#[test]
fn p1_p_5_9_11_a_page_that_is_valid_already_stops_the_service() {
    let world = World::new();
    world.convert(&smalls(PAGE, 3, true));
    world
        .machine
        .fail_pvalidate(PAGE + 0x1000, true, Failure::Unchanged);
    assert_eq!(world.convert(&smalls(PAGE, 3, false)), (HOST_MISBEHAVED, 3));
    assert!(world.service.has_stopped());
    let (converted, lost) = (Outcome::Converted, Outcome::Quarantined);
    assert_eq!(world.outcomes(3), [converted, lost, lost]);
    assert_eq!(world.state(PAGE + 0x2000), PageState::Quarantined);
    let answer = world.answer(Request::Identify);
    assert_eq!(
        answer.unwrap_err().code,
        HOST_MISBEHAVED,
        "no call is served"
    );
}

#[test]
fn p_5_9_9_what_the_host_declines_to_share_comes_back_zeroed() {
    let world = World::new();
    let list = smalls(PAGE, 4, true);
    world.machine.script(&[Manner::Refuse(2, REFUSED)]);
    assert_eq!(world.convert(&list), (HOST_REFUSED, 4));
    let (converted, zeroed) = (Outcome::Converted, Outcome::Zeroed);
    assert_eq!(world.outcomes(4), [converted, converted, zeroed, zeroed]);
    for (number, entry) in list.iter().enumerate() {
        check(&world, number as u64, *entry, "declined");
    }
    assert_eq!(world.machine.exits(), 2);
    // It is the guest's like before.
    assert_eq!(world.convert(&[small(PAGE + 0x3000, true)]), (SUCCESS, 1));
}

#[test]
#[cfg_attr(miri, ignore = "more pages than Miri gets through")]
fn p_5_9_9_what_does_not_fit_the_work_of_a_call_stays_unvalidated() {
    let world = World::new();
    let list = larges(RAM, 16, true);
    world.machine.script(&[Manner::Refuse(0, REFUSED)]);
    assert_eq!(world.convert(&list), (HOST_REFUSED, 16));
    // 4096 - 16 units: 7 large pages of 512.
    let zeroed = world.outcomes(16).into_iter();
    assert_eq!(
        zeroed.filter(|outcome| *outcome == Outcome::Zeroed).count(),
        7
    );
    for (number, entry) in list.iter().enumerate() {
        check(&world, number as u64, *entry, "large");
    }
    assert_eq!(world.outcomes(16)[15], Outcome::Unvalidated);
    assert_eq!(
        world.convert(&larges(RAM + (14 << 20), 1, false)),
        (SUCCESS, 1)
    );
}

#[test]
fn p_5_9_9_a_host_that_declines_both_ways_leaves_unvalidated_pages() {
    let world = World::new();
    let list = smalls(PAGE, 3, true);
    world
        .machine
        .script(&[Manner::Refuse(0, REFUSED), Manner::Refuse(1, REFUSED)]);
    assert_eq!(world.convert(&list), (HOST_REFUSED, 3));
    let (zeroed, unvalidated) = (Outcome::Zeroed, Outcome::Unvalidated);
    assert_eq!(world.outcomes(3), [zeroed, unvalidated, unvalidated]);
    for (number, entry) in list.iter().enumerate() {
        check(&world, number as u64, *entry, "both ways");
    }
}

#[test]
fn p_5_9_9_what_the_host_declines_to_assign_is_unchanged() {
    let world = World::new();
    world.convert(&smalls(PAGE, 3, true));
    let list = smalls(PAGE, 3, false);
    world.machine.script(&[Manner::Refuse(1, REFUSED)]);
    assert_eq!(world.convert(&list), (HOST_REFUSED, 3));
    let (converted, unchanged) = (Outcome::Converted, Outcome::Unchanged);
    assert_eq!(world.outcomes(3), [converted, unchanged, unchanged]);
    for (number, entry) in list.iter().enumerate() {
        check(&world, number as u64, *entry, "not assigned");
    }
}

#[test]
fn p4_p_5_9_10_a_reply_that_breaks_the_rules_quarantines_the_batch() {
    let manners: [&[Manner]; 3] = [
        &[broken()],
        &[Manner::Early(1), broken()],
        &[Manner::Refuse(1, REFUSED), broken()],
    ];
    for (number, script) in manners.into_iter().enumerate() {
        let world = World::new();
        world.machine.script(script);
        assert_eq!(world.convert(&smalls(PAGE, 3, true)), (HOST_MISBEHAVED, 3));
        let kept = usize::from(number == 2);
        let states: Vec<_> = (0..3)
            .map(|page| world.state(PAGE + page * 0x1000))
            .collect();
        for (page, state) in states.into_iter().enumerate() {
            let wanted = match page < kept {
                true => PageState::Shared,
                false => PageState::Quarantined,
            };
            assert_eq!(state, wanted, "script {number}, page {page}");
        }
        assert!(!world.service.has_stopped());
    }
    let world = World::new();
    world.convert(&smalls(PAGE, 3, true));
    world.machine.script(&[broken()]);
    assert_eq!(world.convert(&smalls(PAGE, 3, false)), (HOST_MISBEHAVED, 3));
    assert_eq!(world.outcomes(3), [Outcome::Quarantined; 3]);
    assert_eq!(world.state(PAGE), PageState::Quarantined);
}

#[test]
fn p_9_2_a_host_that_returns_early_is_asked_again_and_one_that_stalls_is_not() {
    let world = World::new();
    world.machine.script(&[Manner::Early(1); 3]);
    assert_eq!(world.convert(&smalls(PAGE, 3, true)), (SUCCESS, 3));
    assert_eq!(world.machine.exits(), 3);
    world.machine.script(&[Manner::Early(0); 16]);
    let list = smalls(PAGE + 0x10_000, 2, true);
    assert_eq!(world.convert(&list), (HOST_REFUSED, 2));
    assert_eq!(world.outcomes(2), [Outcome::Zeroed; 2]);
}

#[test]
#[cfg_attr(miri, ignore = "more pages than Miri gets through")]
fn p_5_9_8_an_error_moves_the_cursor_past_its_batch_and_the_next_goes_on() {
    let world = World::new();
    let list = smalls(PAGE, 300, true);
    world
        .machine
        .fail_pvalidate(PAGE, false, Failure::Unchanged);
    assert_eq!(world.convert(&list), (PAGE_LOST, 253));
    assert_eq!(world.call(), SUCCESS);
    assert_eq!(world.machine.header(LIST).next, 300);
    assert_eq!(world.state(PAGE + 299 * 4096), PageState::Shared);
    assert_eq!(list[0].size(), Some(PageSize::Size4K));
}
