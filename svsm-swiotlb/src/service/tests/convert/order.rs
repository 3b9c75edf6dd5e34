// SPDX-License-Identifier: MIT OR Apache-2.0
//! The order of the steps, and how lists are cut into batches. That order is right for each single page is watched by
//! the machine.

use protocol::Request;
use protocol::identity::Identity;
use snp::address::PageSize;
use snp::psc::PscOperation;
use snp::svsm::{CallRegisters, ResultCode};

use super::machine::{RAM, Step};
use super::world::{World, large, larges, small, smalls};
use crate::page_state::PageState;

const SUCCESS: ResultCode = ResultCode::SUCCESS;
const INCOMPLETE: ResultCode = ResultCode::INCOMPLETE;
const MIB: u64 = 1 << 20;

#[test]
fn p_5_9_5_without_the_flush_the_call_is_not_offered() {
    for offered in [true, false] {
        let world = World::with_flush(offered);
        let identity = Identity::decode(world.answer(Request::Identify).unwrap()).unwrap();
        assert_eq!(identity.features.convert(), offered);
        // Arguments that no call has.
        let rax = u64::from(world.service.protocol_number()) << 32 | 9;
        let registers = CallRegisters {
            rax,
            rcx: 1,
            rdx: u64::MAX,
            r8: 1,
            r9: 0,
        };
        let code = match offered {
            true => ResultCode::INVALID_PARAMETER,
            false => ResultCode::UNSUPPORTED_CALL,
        };
        let answer = world.service.dispatch(&registers, None);
        assert_eq!(ResultCode::from_rax(answer.rax), code);
    }
}

#[test]
fn p2_p_5_9_5_to_shared_revokes_all_flushes_once_rescinds_all_and_asks_once() {
    let world = World::new();
    let list = [small(RAM + 0x3000, true), large(RAM + 2 * MIB, true)];
    assert_eq!(world.convert(&list), (SUCCESS, 2));
    let (first, second) = (RAM + 0x3000, RAM + 2 * MIB);
    let steps = [
        Step::Revoke(first, PageSize::Size4K),
        Step::Revoke(second, PageSize::Size2M),
        Step::Flush,
        Step::Rescind(first, PageSize::Size4K),
        Step::Rescind(second, PageSize::Size2M),
        Step::Psc(PscOperation::Shared, 2),
    ];
    assert_eq!(world.machine.steps(), steps);
    for page in [first, second, second + 2 * MIB - 0x1000] {
        assert_eq!(world.state(page), PageState::Shared);
        let page = world.machine.page(page);
        assert!(!page.assigned && !page.validated && page.permissions == [0; 4]);
    }
    assert_eq!(world.state(first + 0x1000), PageState::Valid);
}

#[test]
fn p2_p_5_9_6_to_private_asks_validates_zeroes_and_grants() {
    let world = World::new();
    let there = [small(RAM + 0x3000, true), large(RAM + 2 * MIB, true)];
    let back = there.map(|entry| entry.with_to_shared(false));
    world.convert(&there);
    world.machine.steps();
    assert_eq!(world.convert(&back), (SUCCESS, 2));
    let mut steps = std::vec![Step::Psc(PscOperation::Private, 2)];
    for (page, size) in [
        (RAM + 0x3000, PageSize::Size4K),
        (RAM + 2 * MIB, PageSize::Size2M),
    ] {
        steps.push(Step::Validate(page, size));
        steps.push(Step::Zero(page, size));
        steps.push(Step::Grant(page, size));
    }
    assert_eq!(world.machine.steps(), steps);
    for page in [RAM + 0x3000, RAM + 2 * MIB, RAM + 4 * MIB - 0x1000] {
        assert_eq!(world.state(page), PageState::Valid);
        let page = world.machine.page(page);
        assert!(page.validated && page.zero && page.permissions[2] == 0xF);
        assert_eq!([page.permissions[1], page.permissions[3]], [0, 0]);
    }
}

#[test]
fn p_5_9_4_a_list_of_two_batches_is_incomplete_once() {
    let world = World::new();
    let list = smalls(RAM, 506, true);
    assert_eq!(world.convert(&list), (INCOMPLETE, 253));
    assert_eq!(world.state(RAM + 252 * 4096), PageState::Shared);
    assert_eq!(world.state(RAM + 253 * 4096), PageState::Valid);
    assert_eq!(
        (world.call(), world.machine.header(super::world::LIST).next),
        (SUCCESS, 506)
    );
    let flushes = |step: &Step| *step == Step::Flush;
    assert_eq!(world.machine.steps().into_iter().filter(flushes).count(), 2);
    assert_eq!(world.machine.exits(), 2);
    // A list that is done has no entry to begin with.
    assert_eq!(world.call(), ResultCode::INVALID_PARAMETER);
}

#[test]
#[cfg_attr(miri, ignore = "more pages than Miri gets through")]
fn sixty_four_mebibytes_in_small_pages_are_65_calls_each_way() {
    let world = World::new();
    for to_shared in [true, false] {
        let mut calls = 0;
        for list in smalls(RAM, 16384, to_shared).chunks(506) {
            calls += world.convert_all(list);
        }
        let flushes = |step: &Step| *step == Step::Flush;
        let flushes = world.machine.steps().into_iter().filter(flushes).count();
        let wanted = if to_shared { 65 } else { 0 };
        assert_eq!((calls, world.machine.exits(), flushes), (65, 65, wanted));
    }
}

#[test]
#[cfg_attr(miri, ignore = "more pages than Miri gets through")]
fn p_5_9_7_p_6_4_large_pages_cost_what_is_touched() {
    for (small_rmp, there) in [(false, 1), (true, 4)] {
        let world = World::new();
        if small_rmp {
            world.machine.small_rmp();
        }
        assert_eq!(world.convert_all(&larges(RAM, 32, true)), there);
        assert_eq!(world.machine.exits(), there);
        let flushes = |step: &Step| *step == Step::Flush;
        assert_eq!(
            world.machine.steps().into_iter().filter(flushes).count(),
            there
        );
        // Zeroing touches every page, whatever the RMP holds.
        assert_eq!(world.convert_all(&larges(RAM, 32, false)), 4);
        assert_eq!(world.state(RAM + 64 * MIB - 4096), PageState::Valid);
        assert!(world.machine.page(RAM + 64 * MIB - 4096).zero);
    }
}

#[test]
#[cfg_attr(miri, ignore = "more pages than Miri gets through")]
fn p_6_4_a_large_page_that_does_not_fit_any_more_is_left_whole() {
    let world = World::new();
    world.machine.small_rmp();
    let mut list = larges(RAM, 7, true);
    list.extend(smalls(RAM + 20 * MIB, 2, true));
    list.extend(larges(RAM + 30 * MIB, 1, true));
    // 7 * 512 + 2 and another 512 are more than 4096.
    assert_eq!(world.convert(&list), (INCOMPLETE, 9));
    assert_eq!(world.state(RAM + 30 * MIB), PageState::Valid);
    assert_eq!(world.machine.page(RAM + 30 * MIB).permissions[2], 0xF);
    assert_eq!(world.call(), SUCCESS);
}

#[test]
fn p_5_9_3_p_5_9_4_a_batch_ends_where_the_direction_changes() {
    let world = World::new();
    world.convert(&smalls(RAM, 2, true));
    let list = [
        small(RAM, false),
        small(RAM + 0x5000, true),
        small(RAM + 0x6000, true),
        small(RAM + 0x1000, false),
    ];
    assert_eq!(world.convert(&list), (INCOMPLETE, 1));
    assert_eq!(world.call(), INCOMPLETE);
    assert_eq!(world.call(), SUCCESS);
    let states = [0, 1, 5, 6].map(|page| world.state(RAM + page * 0x1000));
    let (valid, shared) = (PageState::Valid, PageState::Shared);
    assert_eq!(states, [valid, valid, shared, shared]);
}

#[test]
#[cfg_attr(miri, ignore = "more pages than Miri gets through")]
fn p2_a_large_page_is_split_where_the_rmp_is_finer() {
    let world = World::new();
    world.machine.small_rmp();
    assert_eq!(world.convert(&[large(RAM, true)]), (SUCCESS, 1));
    let steps = world.machine.steps();
    let count = |wanted: &dyn Fn(&Step) -> bool| steps.iter().filter(|step| wanted(step)).count();
    assert_eq!(
        count(&|step| matches!(step, Step::Revoke(_, PageSize::Size4K))),
        512
    );
    assert_eq!(
        count(&|step| matches!(step, Step::Rescind(_, PageSize::Size4K))),
        512
    );
    assert_eq!(
        count(&|step| *step == Step::Psc(PscOperation::Shared, 1)),
        1
    );
    world.machine.small_rmp();
    assert_eq!(world.convert(&[large(RAM, false)]), (SUCCESS, 1));
    let grants = |step: &Step| matches!(step, Step::Grant(_, PageSize::Size4K));
    assert_eq!(
        world.machine.steps().into_iter().filter(grants).count(),
        512
    );
}

#[test]
#[cfg_attr(miri, ignore = "more pages than Miri gets through")]
fn p2_a_host_that_splits_between_revoke_and_rescind_costs_units_or_the_page() {
    let world = World::new();
    world.machine.smash_at_flush();
    assert_eq!(world.convert(&larges(RAM, 4, true)), (SUCCESS, 4));
    let world = World::new();
    world.machine.smash_at_flush();
    // 7 splits are what the units suffice for: the last two pages are given up rather than the bound.
    let lost = protocol::result::PAGE_LOST;
    assert_eq!(world.convert(&larges(RAM, 9, true)), (lost, 9));
    for number in 0..9 {
        let state = world.state(RAM + number * 2 * MIB);
        let wanted = match number {
            0..7 => PageState::Shared,
            _ => PageState::Quarantined,
        };
        assert_eq!(state, wanted, "{number}");
    }
}

#[test]
fn an_unvalidated_page_can_be_made_private() {
    let world = World::new();
    world.machine.script(&[
        crate::test_platform::Manner::Refuse(0, 1 << 40),
        crate::test_platform::Manner::Refuse(0, 1 << 40),
    ]);
    world.convert(&[small(RAM, true)]);
    assert_eq!(world.state(RAM), PageState::Invalid);
    assert_eq!(world.convert(&[small(RAM, false)]), (SUCCESS, 1));
    assert_eq!(world.state(RAM), PageState::Valid);
}
