// SPDX-License-Identifier: MIT OR Apache-2.0
//! PVALIDATE: order of the instructions, codes of wrong lists, sizes, and work that goes on at the cursor.

use snp::address::PageSize;
use snp::svsm::{ResultCode, core_protocol as call};
use svsm_swiotlb::page_state::PageState;
use zerocopy::IntoBytes;

use super::{
    ADDRESS, LARGE, LIST, NO_CHANGE, PAGE, PARAMETER, SUCCESS, entry, small, with_machine, world,
};
use crate::core_protocol::WORK_UNITS;
use crate::termination::Reason;
use crate::test_machine::{Step, TestMachine};

#[test]
fn p2_rescind_revokes_first_and_flushes_once_per_list() {
    world(|world| {
        let list = [small(PAGE, false), small(PAGE + 0x1000, false)];
        assert_eq!(world.pvalidate(0, &list), (SUCCESS, 2));
        let mut want = Vec::new();
        for gpa in [PAGE, PAGE + 0x1000] {
            for vmpl in 1..=3 {
                want.push(Step::Rmpadjust(gpa, PageSize::Size4K, vmpl));
            }
            want.push(Step::Pvalidate(gpa, PageSize::Size4K, false));
        }
        want.push(Step::Flush);
        assert_eq!(world.machine.steps(), want);
        assert_eq!(world.state(PAGE), Some(PageState::Invalid));
    });
}

#[test]
fn p2_validate_zeroes_before_it_grants() {
    world(|world| {
        assert_eq!(world.pvalidate(0, &[small(PAGE, false)]), (SUCCESS, 1));
        world.machine.page(PAGE, |page| page.bytes.fill(0x55));
        assert_eq!(world.pvalidate(0, &[small(PAGE, true)]), (SUCCESS, 1));
        let size = PageSize::Size4K;
        let want = [
            Step::Pvalidate(PAGE, size, true),
            Step::Zero(PAGE, size),
            Step::Rmpadjust(PAGE, size, 0xf02),
        ];
        assert_eq!(world.machine.steps(), want);
        assert_eq!(world.state(PAGE), Some(PageState::Valid));
    });
}

#[test]
fn p1_a_valid_page_is_answered_from_the_map() {
    world(|world| {
        assert_eq!(world.pvalidate(0, &[small(PAGE, true)]), (NO_CHANGE, 0));
        let ignoring = small(PAGE, true).with_ignore_no_change(true);
        assert_eq!(world.pvalidate(0, &[ignoring]), (SUCCESS, 1));
        assert_eq!(world.machine.steps(), []);
    });
}

#[test]
fn p1_carry_on_validate_ends_the_vm() {
    world(|world| {
        assert_eq!(world.pvalidate(0, &[small(PAGE, false)]).0, SUCCESS);
        world.machine.launch(PAGE); // behind our back
        world.put(LIST, &[1, 0, 0, 0]);
        world.put(LIST + 8, small(PAGE, true).as_bytes());
        let result = world.registers(call::PVALIDATE, LIST, 0, 0);
        assert_eq!(result.unwrap_err(), Reason::ValidateTwice);
    });
}

#[test]
fn p3_a_page_that_vanished_is_quarantined() {
    world(|world| {
        // The host took the page: RMPADJUST faults.
        world.machine.page(PAGE, |page| page.valid = false);
        assert_eq!(world.pvalidate(0, &[small(PAGE, false)]), (ADDRESS, 0));
        assert_eq!(world.state(PAGE), Some(PageState::Quarantined));
        assert_eq!(world.pvalidate(0, &[small(PAGE, true)]), (ADDRESS, 0));
        // Zeroing faults.
        let other = PAGE + 0x1000;
        assert_eq!(world.pvalidate(0, &[small(other, false)]).0, SUCCESS);
        world.machine.faulting_write.set(Some(other));
        assert_eq!(world.pvalidate(0, &[small(other, true)]), (ADDRESS, 0));
        assert_eq!(world.state(other), Some(PageState::Quarantined));
    });
}

#[test]
fn launched_pages_of_the_payload_are_ordinary_ram() {
    world(|world| {
        let payload = 0x100_0000;
        world.machine.launch(payload);
        // Valid from the launch on, so it is never validated a second time (P1).
        assert_eq!(world.pvalidate(0, &[small(payload, true)]), (NO_CHANGE, 0));
        assert_eq!(world.machine.steps(), []);
        assert_eq!(world.pvalidate(0, &[small(payload, false)]), (SUCCESS, 1));
        assert_eq!(world.state(payload), Some(PageState::Invalid));
        assert_eq!(world.pvalidate(0, &[small(payload, true)]), (SUCCESS, 1));
        assert_eq!(world.state(payload), Some(PageState::Valid));
        world.machine.page(payload, |page| {
            assert!(page.valid);
            assert_eq!(page.permissions[2], 0xf);
            assert!(page.bytes.iter().all(|byte| *byte == 0));
        });
    });
}

#[test]
fn malformed_lists_and_entries_have_their_codes() {
    world(|world| {
        assert_eq!(world.call(call::PVALIDATE, LIST + 4, 0, 0), PARAMETER);
        assert_eq!(world.pvalidate(0, &[]), (PARAMETER, 0));
        assert_eq!(world.pvalidate(1, &[small(PAGE, false)]), (PARAMETER, 1));
        world.put(LIST, &[0, 2, 0, 0]); // 512 entries: one page holds 511
        assert_eq!(world.call(call::PVALIDATE, LIST, 0, 0), PARAMETER);
        world.put(LIST + 4088, &[1, 0, 0, 0]);
        assert_eq!(world.call(call::PVALIDATE, LIST + 4088, 0, 0), PARAMETER);
        let bad_size = small(PAGE, false).with_size_code(2);
        assert_eq!(world.pvalidate(0, &[bad_size]), (PARAMETER, 0));
        let misaligned = entry(LARGE + 0x1000, PageSize::Size2M, false);
        assert_eq!(world.pvalidate(0, &[misaligned]), (PARAMETER, 0));
        let reserved = small(PAGE, false).with_reserved(1);
        assert_eq!(world.pvalidate(0, &[reserved]), (PARAMETER, 0));
        for names_itself in [small(LIST, false), entry(LIST, PageSize::Size2M, false)] {
            assert_eq!(world.pvalidate(0, &[names_itself]), (ADDRESS, 0));
        }
    });
}

#[test]
fn a_refused_list_is_not_written() {
    world(|world| {
        world.machine.faulting_write.set(Some(LIST));
        assert_eq!(world.pvalidate(1, &[small(PAGE, false)]), (PARAMETER, 1));
        assert_eq!(world.state(LIST), Some(PageState::Valid));
    });
}

#[test]
fn p2_a_page_is_free_only_after_the_flush() {
    world(|world| {
        let twice = [small(PAGE, false), small(PAGE, false)];
        assert_eq!(world.pvalidate(0, &twice), (ResultCode::BUSY, 1));
        assert_eq!(world.state(PAGE), Some(PageState::Invalid));
        world.machine.steps();
        let back = [small(PAGE + 0x1000, false), small(PAGE + 0x1000, true)];
        assert_eq!(world.pvalidate(0, &back), (SUCCESS, 2));
        let steps = world.machine.steps();
        let step = |wanted| steps.iter().position(|step| *step == wanted);
        let validated = Step::Pvalidate(PAGE + 0x1000, PageSize::Size4K, true);
        assert!(step(Step::Flush) < step(validated), "{steps:?}");
        assert!(step(validated).is_some());
    });
}

#[test]
fn a_long_list_of_rescinds_flushes_by_batches() {
    world(|world| {
        let pages = (0..200).map(|page| LARGE + page * 4096);
        let list: Vec<_> = pages.clone().map(|page| small(page, false)).collect();
        assert_eq!(world.pvalidate(0, &list), (SUCCESS, 200));
        let flushes = world.machine.steps().into_iter();
        assert_eq!(flushes.filter(|step| *step == Step::Flush).count(), 4);
        for page in pages {
            assert_eq!(world.state(page), Some(PageState::Invalid), "{page:#x}");
        }
    });
}

#[test]
fn a_list_stops_at_the_entry_that_fails() {
    world(|world| {
        let list = [
            small(PAGE, false),
            small(world.window.start, true),
            small(PAGE + 0x1000, false),
        ];
        assert_eq!(world.pvalidate(0, &list), (ADDRESS, 1));
        assert_eq!(world.state(PAGE), Some(PageState::Invalid));
        assert_eq!(world.state(PAGE + 0x1000), Some(PageState::Valid));
        assert_eq!(world.pvalidate(2, &list), (SUCCESS, 3));
    });
}

#[test]
fn large_entries_follow_the_size_of_the_rmp_and_the_states() {
    let machine = TestMachine::default();
    machine.small_rmp.set(true);
    with_machine(&machine, |world| {
        let mismatch = ResultCode::protocol_error(6);
        let large = entry(LARGE, PageSize::Size2M, false);
        assert_eq!(world.pvalidate(0, &[large]), (mismatch, 0));
        assert_eq!(
            world.state(LARGE),
            Some(PageState::Valid),
            "nothing changed"
        );
    });
    world(|world| {
        let large = |validate| entry(LARGE, PageSize::Size2M, validate);
        assert_eq!(
            world.pvalidate(0, &[small(LARGE + 0x3000, false)]).0,
            SUCCESS
        );
        let mismatch = ResultCode::protocol_error(6);
        assert_eq!(world.pvalidate(0, &[large(false)]), (mismatch, 0), "mixed");
        assert_eq!(
            world.pvalidate(0, &[small(LARGE + 0x3000, true)]).0,
            SUCCESS
        );
        assert_eq!(
            world.pvalidate(0, &[large(false), large(true)]),
            (SUCCESS, 2)
        );
    });
}

#[test]
fn a_large_page_is_given_though_the_host_splits_it_meanwhile() {
    world(|world| {
        let large = |validate| entry(LARGE, PageSize::Size2M, validate);
        assert_eq!(world.pvalidate(0, &[large(false)]).0, SUCCESS);
        world.machine.smash_on_zero.set(true);
        assert_eq!(world.pvalidate(0, &[large(true)]), (SUCCESS, 1));
        for page in [LARGE, LARGE + 511 * 4096] {
            assert_eq!(world.state(page), Some(PageState::Valid));
            world
                .machine
                .page(page, |page| assert_eq!(page.permissions[2], 0xf));
        }
    });
}

#[test]
fn work_is_bounded_and_goes_on_at_the_cursor() {
    world(|world| {
        let large = |number: u64| entry(LARGE + number * (2 << 20), PageSize::Size2M, false);
        let count = 2 * WORK_UNITS / 512 + 1;
        for number in 0..count * 512 {
            world.machine.launch(LARGE + number * 4096);
        }
        let rescind: Vec<_> = (0..count).map(large).collect();
        assert_eq!(
            world.pvalidate(0, &rescind),
            (SUCCESS, u16::try_from(count).unwrap())
        );
        let validate: Vec<_> = rescind
            .iter()
            .map(|entry| entry.with_validate(true))
            .collect();
        let incomplete = ResultCode::INCOMPLETE;
        assert_eq!(world.pvalidate(0, &validate), (incomplete, 8));
        assert_eq!(world.call(call::PVALIDATE, LIST, 0, 0), incomplete);
        assert_eq!(world.call(call::PVALIDATE, LIST, 0, 0), SUCCESS);
        assert_eq!(
            world.state(LARGE + (count - 1) * (2 << 20)),
            Some(PageState::Valid)
        );
    });
}
