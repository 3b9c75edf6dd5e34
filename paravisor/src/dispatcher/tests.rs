// SPDX-License-Identifier: MIT OR Apache-2.0
//! The protocols on the test machine.

mod later_kernel;

use core::sync::atomic::AtomicU64;

use protocol::Request;
use protocol::convert::ConvertEntry;
use protocol::memory_form::{CallBlock, Unanswered, decode_answer, outer_call};
use snp::address::{GuestPhysicalAddress, PageSize};
use snp::svsm::{CallId, CallRegisters, ResultCode, core_protocol};
use svsm_swiotlb::page_state::PageState;
use svsm_swiotlb::platform::Fault;
use svsm_swiotlb::pool::{ChunkRecords, Pool, Window};
use svsm_swiotlb::{Configuration, Service};
use zerocopy::IntoBytes;

use super::Dispatcher;
use crate::apic_ids::tests::apic_ids;
use crate::core_protocol::CoreProtocol;
use crate::launch_area::LaunchArea;
use crate::layout::BOOT_CALLING_AREA;
use crate::page_account::tests::recorded;
use crate::page_owner::PageOwner;
use crate::termination::Reason;
use crate::test_machine::{Page, Step, TestMachine};
use crate::vcpu_table::{VcpuIndex, VcpuSlot, VcpuTable};

/// Pages of the guest: one with a list, and one that is not validated.
const LIST: u64 = 0x200_0000;
const PAGE: u64 = 0x210_1000;

struct World<'a> {
    machine: &'a TestMachine,
    dispatcher: Dispatcher<'a, TestMachine>,
    vcpu: VcpuIndex,
}

fn world(test: impl FnOnce(&World<'_>)) {
    let machine = TestMachine::default();
    let gpa = GuestPhysicalAddress::new;
    recorded(|plan, states| {
        states
            .set_at_boot(gpa(PAGE), 0x1000, PageState::Invalid)
            .unwrap();
        machine.launch(LIST);

        let placed = plan.placement.window();
        let window = Window::new(gpa(placed.start), placed.bytes()).unwrap();
        let records: Vec<AtomicU64> = (0..window.chunks()).map(|_| AtomicU64::new(0)).collect();
        let pool = Pool::new(window, ChunkRecords::new(&records), window.bytes()).unwrap();
        let configuration = Configuration {
            flush_reaches_all: true,
            ..Configuration::with_encryption_bit(51)
        };
        let service = Service::new(&machine, configuration, pool, states).unwrap();

        let slots: [VcpuSlot; 4] = Default::default();
        let vcpus = VcpuTable::new(&slots);
        let seat = vcpus.reserve(0).unwrap();
        let vcpu = seat.fill(gpa(0x43_0000), gpa(BOOT_CALLING_AREA));
        test(&World {
            machine: &machine,
            dispatcher: Dispatcher {
                core: CoreProtocol {
                    owner: PageOwner::new(plan, &machine),
                    states: service.page_states(),
                    vcpus,
                    guest_features: 1,
                    processors: apic_ids(&[4, 6]),
                    launch_area: LaunchArea(gpa(BOOT_CALLING_AREA)),
                    protocols: &[],
                },
                service: &service,
            },
            vcpu,
        });
    });
}

impl World<'_> {
    fn call(&self, call: &CallRegisters) -> Result<ResultCode, Reason> {
        let answer = self.dispatcher.call(self.vcpu, call)?;
        Ok(ResultCode::from_rax(answer.rax))
    }

    fn pool(&self, request: Request) -> Result<ResultCode, Reason> {
        let number = self.dispatcher.service.protocol_number();
        self.call(&request.encode(number))
    }

    /// CONVERT of the page to private.
    fn convert(&self) -> Result<ResultCode, Reason> {
        let entry = ConvertEntry::request(GuestPhysicalAddress::new(PAGE), PageSize::Size4K, false);
        self.machine.page(LIST, |page| {
            page.bytes[..8].copy_from_slice(&1_u64.to_le_bytes());
            page.bytes[8..16].copy_from_slice(entry.as_bytes());
        });
        let list = GuestPhysicalAddress::new(LIST);
        self.pool(Request::Convert { list, epoch: 1 })
    }
}

fn first_call_of(protocol: u32) -> CallRegisters {
    CallRegisters {
        r9: 10,
        ..CallRegisters::new(CallId { protocol, call: 0 }.to_rax(), [7, 8, 9])
    }
}

#[test]
fn the_number_of_the_protocol_decides_who_answers() {
    world(|world| {
        // Attestation and vTPM, and one that the SVSM specification does not know.
        for protocol in [1, 2, 7] {
            let refused = first_call_of(protocol);
            let answer = world.dispatcher.call(world.vcpu, &refused);
            let rax = ResultCode::UNSUPPORTED_PROTOCOL.to_rax();
            assert_eq!(answer, Ok(CallRegisters { rax, ..refused }));
        }
        // REMAP_CA of an address that is no page's; IDENTIFY with arguments; both by their own rules.
        let parameter = Ok(ResultCode::INVALID_PARAMETER);
        assert_eq!(world.call(&first_call_of(core_protocol::NUMBER)), parameter);
        let number = world.dispatcher.service.protocol_number();
        assert_eq!(world.call(&first_call_of(number)), parameter);
        assert_eq!(world.pool(Request::Identify), Ok(ResultCode::SUCCESS));
    });
}

/// What a vCPU goes on with that stopped with these registers; CALL_PENDING is a byte of the test machine.
fn stop(world: &World<'_>, registers: &CallRegisters) -> Option<CallRegisters> {
    let take = |area: GuestPhysicalAddress| {
        let exchange = |page: &mut Page| core::mem::take(&mut page.bytes[0]) != 0;
        Ok(world.machine.page(area.bits(), exchange))
    };
    let served = world.dispatcher.serve(world.vcpu, registers, take);
    served.unwrap()
}

#[test]
fn registers_of_a_guest_that_made_no_call_are_left_alone() {
    world(|world| {
        let pending = |set: u8| {
            let area = |page: &mut Page| core::mem::replace(&mut page.bytes[0], set);
            world.machine.page(BOOT_CALLING_AREA, area)
        };
        let call = first_call_of(world.dispatcher.service.protocol_number());
        pending(0);
        assert_eq!(stop(world, &call), None);
        // Another call has the calling area, so nobody can tell.
        let area = GuestPhysicalAddress::new(BOOT_CALLING_AREA);
        let states = world.dispatcher.core.states;
        let held = states.hold(area, &[PageState::CallingArea]).unwrap();
        for set in [0, 1] {
            pending(set);
            assert_eq!(stop(world, &call), None);
        }
        held.keep();
        assert_eq!(pending(1), 1, "it was not taken");
        let answer = stop(world, &call).unwrap();
        assert_eq!(answer.rax, ResultCode::INVALID_PARAMETER.to_rax());
        assert_eq!(pending(1), 0);
        // The host has taken it away: no call of this vCPU is served any more.
        let gone = world.dispatcher.serve(world.vcpu, &call, |_| Err(Fault));
        assert_eq!(gone, Ok(None));
        assert_eq!(states.state(area), Some(PageState::Quarantined));
        assert_eq!(stop(world, &call), None);
    });
}

#[test]
fn a_page_that_convert_makes_private_is_validated_and_the_vm_goes_on() {
    world(|world| {
        let attached = world.pool(Request::Attach { version: 1 });
        assert_eq!(attached, Ok(ResultCode::SUCCESS));
        assert_eq!(world.convert(), Ok(ResultCode::SUCCESS));
        let validated = Step::Pvalidate(PAGE, PageSize::Size4K, true);
        assert!(world.machine.steps().contains(&validated));
    });
}

#[test]
fn p1_p_5_9_11_a_page_that_convert_finds_valid_ends_the_vm() {
    world(|world| {
        let attached = world.pool(Request::Attach { version: 1 });
        assert_eq!(attached, Ok(ResultCode::SUCCESS));
        // The host has mapped the page behind another one that is validated.
        world.machine.launch(PAGE);
        assert_eq!(world.convert(), Err(Reason::ValidateTwice));
        // On whichever processor a call is served meanwhile.
        let identify = world.pool(Request::Identify);
        assert_eq!(identify, Err(Reason::ValidateTwice));
    });
}

#[test]
fn p_5_16_2_p_5_16_3_the_block_is_read_in_the_calling_area_of_the_vcpu() {
    let moved = LIST;
    let block_in = |world: &World<'_>, area: u64| {
        let number = world.dispatcher.service.protocol_number();
        let attach = Request::Attach { version: 1 }.encode(number);
        world.machine.page(area, |page| {
            page.bytes[8..40].copy_from_slice(CallBlock::of(&attach).as_bytes());
        });
        let block = GuestPhysicalAddress::new(area + 8);
        let answer = world
            .dispatcher
            .call(world.vcpu, &outer_call(number, block));
        decode_answer(&answer.unwrap()).map(|answer| (answer.rax, answer.rcx))
    };
    let elsewhere = Err(Unanswered::Refused(ResultCode::INVALID_ADDRESS));
    world(|world| {
        world.machine.launch(BOOT_CALLING_AREA);
        assert_eq!(block_in(world, BOOT_CALLING_AREA), Ok((0, 1)));
        assert_eq!(block_in(world, moved), elsewhere);
        let remap = CallRegisters::new(u64::from(core_protocol::REMAP_CA), [moved, 0, 0]);
        assert_eq!(world.call(&remap), Ok(ResultCode::SUCCESS));
        assert_eq!(block_in(world, BOOT_CALLING_AREA), elsewhere);
        assert_eq!(block_in(world, moved), Ok((0, 2)));
    });
}
