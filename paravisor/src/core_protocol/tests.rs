// SPDX-License-Identifier: MIT OR Apache-2.0
//! The core protocol on the test machine, call by call.

mod conversions;
mod races;
mod vcpus;

use core::sync::atomic::AtomicU8;

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::svsm::{CallId, CallRegisters, PvalidateListEntry, ResultCode, core_protocol as call};
use svsm_swiotlb::page_state::{PageState, PageStates, RamRanges};
use svsm_swiotlb::platform::PageInstructions;
use zerocopy::IntoBytes;

use super::{CoreProtocol, VersionRange, WORK_UNITS};
use crate::apic_ids::tests::apic_ids;
use crate::boot_plan::{
    BootPlan,
    tests::{boot_block, map},
};
use crate::layout::{BOOT_CALLING_AREA, LAUNCH_VMSA};
use crate::page_account::{TrackedRam, record};
use crate::page_owner::PageOwner;
use crate::range_list::PhysRange;
use crate::termination::Reason;
use crate::test_machine::{Step, TestMachine};
use crate::vcpu_table::{VcpuIndex, VcpuTable};

/// Page of the guest with its lists, and other pages of it.
const LIST: u64 = 0x200_0000;
const PAGE: u64 = 0x210_1000;
const LARGE: u64 = 0x240_0000;
const PARAVISOR: u64 = 0x41_0000;
const DEVICE: u64 = 0xfec0_0000;

const SUCCESS: ResultCode = ResultCode::SUCCESS;
const ADDRESS: ResultCode = ResultCode::INVALID_ADDRESS;
const PARAMETER: ResultCode = ResultCode::INVALID_PARAMETER;
const NO_CHANGE: ResultCode = ResultCode(call::ERROR_NO_CHANGE);

/// APIC identifiers: with gaps, which numbers do not have.
const PROCESSORS: [u32; 2] = [4, 6];

struct World<'a> {
    machine: &'a TestMachine,
    window: PhysRange,
    states: &'a PageStates<'a>,
    core: CoreProtocol<'a, TestMachine>,
    vcpu: VcpuIndex,
}

/// Runs a test in a world whose guest RAM is accepted and whose launch pages are valid.
fn world(test: impl FnOnce(&World<'_>)) {
    with_machine(&TestMachine::default(), test);
}

fn with_machine(machine: &TestMachine, test: impl FnOnce(&World<'_>)) {
    let plan = BootPlan::new(&boot_block(), &map(), 1 << 20).unwrap();
    let tracked = TrackedRam::of(&plan).unwrap();
    let ranges = RamRanges::new(tracked.as_slice()).unwrap();
    let words: Vec<AtomicU8> = (0..ranges.pages()).map(|_| AtomicU8::new(0)).collect();
    let states = PageStates::new(ranges, &words).unwrap();
    record(&boot_block(), &plan, &states).unwrap();
    for gpa in [LIST, PAGE, PAGE + 0x1000, BOOT_CALLING_AREA] {
        machine.launch(gpa);
    }
    for page in 0..512 {
        machine.launch(LARGE + page * 4096);
    }
    let vcpus = VcpuTable::new();
    let gpa = GuestPhysicalAddress::new;
    let vcpu = vcpus
        .reserve(0)
        .unwrap()
        .fill(gpa(0x43_0000), gpa(BOOT_CALLING_AREA));
    let core = CoreProtocol {
        owner: PageOwner::new(&plan, machine),
        states: &states,
        vcpus: &vcpus,
        guest_features: 1,
        processors: apic_ids(&PROCESSORS),
        protocols: &[VersionRange {
            protocol: 0x4000_0001,
            min: 1,
            max: 2,
        }],
    };
    test(&World {
        machine,
        window: plan.placement.window,
        states: &states,
        core,
        vcpu,
    });
}

impl World<'_> {
    fn call(&self, number: u32, rcx: u64, rdx: u64, r8: u64) -> ResultCode {
        self.registers(number, rcx, rdx, r8).unwrap().0
    }

    fn registers(
        &self,
        number: u32,
        rcx: u64,
        rdx: u64,
        r8: u64,
    ) -> Result<(ResultCode, CallRegisters), Reason> {
        let rax = CallId {
            protocol: 0,
            call: number,
        }
        .to_rax();
        let mut registers = CallRegisters { rax, rcx, rdx, r8 };
        self.core.call(self.vcpu, &mut registers)?;
        Ok((ResultCode::from_rax(registers.rax), registers))
    }

    fn state(&self, gpa: u64) -> Option<PageState> {
        self.states.state(GuestPhysicalAddress::new(gpa))
    }

    fn put(&self, gpa: u64, bytes: &[u8]) {
        let offset = usize::try_from(gpa & 0xfff).unwrap();
        self.machine.page(gpa, |page| {
            page.bytes[offset..][..bytes.len()].copy_from_slice(bytes);
        });
    }

    /// Calls PVALIDATE with a list; the code and `next` afterwards.
    fn pvalidate(&self, next: u16, entries: &[PvalidateListEntry]) -> (ResultCode, u16) {
        self.put(
            LIST,
            [u16::try_from(entries.len()).unwrap(), next].as_bytes(),
        );
        self.put(LIST + 4, &[0xee; 4]); // whatever Linux left there
        self.put(LIST + 8, entries.as_bytes());
        self.machine.steps();
        let code = self.call(call::PVALIDATE, LIST, 0, 0);
        let next = self.machine.page(LIST, |page| {
            u16::from_le_bytes([page.bytes[2], page.bytes[3]])
        });
        (code, next)
    }
}

fn entry(gpa: u64, size: PageSize, validate: bool) -> PvalidateListEntry {
    PvalidateListEntry::request(GuestPhysicalAddress::new(gpa), size, validate)
}

fn small(gpa: u64, validate: bool) -> PvalidateListEntry {
    entry(gpa, PageSize::Size4K, validate)
}

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
fn w1_p_3_4_window_paravisor_and_other_addresses_are_refused() {
    world(|world| {
        for gpa in [
            world.window.start,
            world.window.end - 0x1000,
            PARAVISOR,
            DEVICE,
            LAUNCH_VMSA,
            BOOT_CALLING_AREA,
        ] {
            for validate in [true, false] {
                let entry = small(gpa & !0xfff, validate);
                if gpa == BOOT_CALLING_AREA && validate {
                    continue; // valid, so there is nothing to change
                }
                assert_eq!(
                    world.pvalidate(0, &[entry]),
                    (ADDRESS, 0),
                    "{gpa:#x} {validate}"
                );
            }
            assert_eq!(
                world.call(call::REMAP_CA, gpa, 0, 0) == SUCCESS,
                gpa == BOOT_CALLING_AREA
            );
            assert_eq!(
                world.call(call::CREATE_VCPU, gpa, PAGE, PROCESSORS[1].into()),
                ADDRESS
            );
            assert_eq!(
                world.call(call::CREATE_VCPU, PAGE, gpa, PROCESSORS[1].into()),
                ADDRESS
            );
            assert_eq!(world.call(call::DELETE_VCPU, gpa, 0, 0), ADDRESS);
        }
        for list in [world.window.start, PARAVISOR, DEVICE] {
            assert_eq!(world.call(call::PVALIDATE, list, 0, 0), ADDRESS);
        }
        assert_eq!(world.machine.steps(), []);
        assert_eq!(world.state(PAGE), Some(PageState::Valid));
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

#[test]
fn remap_moves_the_calling_area_and_clears_its_header() {
    world(|world| {
        assert_eq!(world.call(call::REMAP_CA, PAGE + 8, 0, 0), PARAMETER);
        assert_eq!(world.call(call::REMAP_CA, PAGE, 0, 0), SUCCESS);
        assert_eq!(world.state(PAGE), Some(PageState::CallingArea));
        assert_eq!(world.state(BOOT_CALLING_AREA), Some(PageState::Valid));
        world.machine.page(PAGE, |page| {
            assert_eq!(page.bytes[..9], [0, 0, 0, 0, 0, 0, 0, 0, 0xaa]);
        });
        assert_eq!(world.call(call::REMAP_CA, PAGE, 0, 0), SUCCESS);
        assert_eq!(world.pvalidate(0, &[small(PAGE, false)]), (ADDRESS, 0));
    });
}

#[test]
fn p5_a_held_word_answers_busy() {
    world(|world| {
        let held = world
            .states
            .hold(GuestPhysicalAddress::new(PAGE), &[PageState::Valid])
            .unwrap();
        let busy = ResultCode::BUSY;
        assert_eq!(world.pvalidate(0, &[small(PAGE, false)]), (busy, 0));
        assert_eq!(world.call(call::REMAP_CA, PAGE, 0, 0), busy);
        assert_eq!(
            world.call(call::CREATE_VCPU, PAGE, PAGE + 0x1000, PROCESSORS[1].into()),
            busy
        );
        assert_eq!(
            world.call(call::CREATE_VCPU, PAGE + 0x1000, PAGE, PROCESSORS[1].into()),
            busy
        );
        assert_eq!(world.state(PAGE + 0x1000), Some(PageState::Valid));
        held.keep();
    });
}

#[test]
fn queries_and_unknown_calls() {
    world(|world| {
        let query = |protocol: u64, version: u64| {
            let rcx = protocol << 32 | version;
            let (code, registers) = world.registers(call::QUERY_PROTOCOL, rcx, 0, 0).unwrap();
            assert_eq!(code, SUCCESS);
            registers.rcx
        };
        assert_eq!(query(0, 1), 1 << 32 | 1);
        assert_eq!(query(0, 2), 0);
        assert_eq!(query(0x4000_0001, 2), 2 << 32 | 1);
        assert_eq!(query(0x4000_0001, 3), 0);
        assert_eq!(query(7, 1), 0);
        for number in [
            call::DEPOSIT_MEM,
            call::WITHDRAW_MEM,
            call::CONFIGURE_VTOM,
            99,
        ] {
            assert_eq!(world.call(number, LIST, 0, 0), ResultCode::UNSUPPORTED_CALL);
        }
        world.machine.flush();
        assert_eq!(
            world.machine.steps(),
            [Step::Flush],
            "no call touched the machine"
        );
    });
}
