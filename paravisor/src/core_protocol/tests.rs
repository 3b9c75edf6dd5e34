// SPDX-License-Identifier: MIT OR Apache-2.0
//! The core protocol on the test machine, call by call.

mod conversions;
mod lists;
mod races;
mod vcpus;

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::svsm::{CallId, CallRegisters, PvalidateListEntry, ResultCode, core_protocol as call};
use svsm_swiotlb::page_state::{PageState, PageStates};
use svsm_swiotlb::platform::PageInstructions;
use zerocopy::IntoBytes;

use super::{CoreProtocol, VersionRange};
use crate::apic_ids::tests::apic_ids;
use crate::launch_area::LaunchArea;
use crate::layout::{BOOT_CALLING_AREA, LAUNCH_VMSA};
use crate::page_account::tests::recorded;
use crate::page_owner::PageOwner;
use crate::range_list::PhysRange;
use crate::termination::Reason;
use crate::test_machine::{Step, TestMachine};
use crate::vcpu_table::{VcpuIndex, VcpuSlot, VcpuTable};

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
    with_processors(machine, &PROCESSORS, test);
}

/// The same with these APIC identifiers.
fn with_processors(machine: &TestMachine, processors: &[u32], test: impl FnOnce(&World<'_>)) {
    recorded(|plan, states| {
        for gpa in [LIST, PAGE, PAGE + 0x1000, BOOT_CALLING_AREA] {
            machine.launch(gpa);
        }
        for page in 0..512 {
            machine.launch(LARGE + page * 4096);
        }
        let slots: Vec<_> = processors.iter().map(|_| VcpuSlot::default()).collect();
        let vcpus = VcpuTable::new(&slots);
        let gpa = GuestPhysicalAddress::new;
        let vcpu = vcpus
            .reserve(0)
            .unwrap()
            .fill(gpa(0x43_0000), gpa(BOOT_CALLING_AREA));
        let core = CoreProtocol {
            owner: PageOwner::new(plan, machine),
            states: &states,
            vcpus,
            guest_features: 1,
            processors: apic_ids(processors),
            launch_area: LaunchArea(gpa(BOOT_CALLING_AREA)),
            protocols: &[VersionRange {
                protocol: 0x4000_0001,
                min: 1,
                max: 2,
            }],
        };
        test(&World {
            machine,
            window: plan.placement.window(),
            states: &states,
            core,
            vcpu,
        });
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
        let mut registers = CallRegisters::new(rax, [rcx, rdx, r8]);
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
