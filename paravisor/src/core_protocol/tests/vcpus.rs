// SPDX-License-Identifier: MIT OR Apache-2.0
//! CREATE_VCPU and DELETE_VCPU.

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::svsm::{CallRegisters, ResultCode, core_protocol as call};
use snp::vmsa::{EFER_SVME, Vmsa};
use svsm_swiotlb::page_state::PageState;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{
    ADDRESS, LARGE, LIST, PAGE, PARAMETER, PROCESSORS, SUCCESS, Step, TestMachine, World, small,
    with_processors, world,
};
use crate::apic_ids::ProcessorId;
use crate::core_protocol::HOST_REFUSED;
use crate::layout::BOOT_CALLING_AREA;
use crate::termination::Reason;
use crate::test_machine::Page;
use crate::vcpu_control::StartError;
use crate::vcpu_table::{Seat, VcpuIndex};

/// APIC identifiers of the processors.
const FIRST: u64 = PROCESSORS[0] as u64;
const SECOND: u64 = PROCESSORS[1] as u64;
/// The start of the second one.
const START: Step = Step::Start(ProcessorId {
    number: 1,
    apic_id: PROCESSORS[1],
});

/// Writes an acceptable VMSA into PAGE.
fn put_vmsa(world: &World<'_>, change: impl FnOnce(&mut Vmsa)) {
    put_vmsa_at(world, PAGE, change);
}

fn put_vmsa_at(world: &World<'_>, page: u64, change: impl FnOnce(&mut Vmsa)) {
    let mut vmsa = Vmsa::new_zeroed();
    (vmsa.vmpl, vmsa.efer, vmsa.sev_features) = (2, EFER_SVME, 1);
    change(&mut vmsa);
    world.put(page, vmsa.as_bytes());
}

#[test]
fn a_vcpu_is_created_and_deleted() {
    world(|world| {
        put_vmsa(world, |_| ());
        let area = PAGE + 0x1000;
        assert_eq!(world.call(call::CREATE_VCPU, PAGE, area, SECOND), SUCCESS);
        let want = [
            Step::Rmpadjust(PAGE, PageSize::Size4K, 1),
            Step::Rmpadjust(PAGE, PageSize::Size4K, 2),
            Step::Rmpadjust(PAGE, PageSize::Size4K, 3),
            Step::Flush,
            START,
            Step::Rmpadjust(PAGE, PageSize::Size4K, 0x1_0102),
        ];
        assert_eq!(world.machine.steps(), want);
        assert_eq!(world.state(PAGE), Some(PageState::Vmsa));
        assert_eq!(world.state(area), Some(PageState::CallingArea));
        assert_eq!(world.pvalidate(0, &[small(PAGE, false)]), (ADDRESS, 0));
        assert_eq!(world.call(call::REMAP_CA, PAGE, 0, 0), ADDRESS);

        assert_eq!(world.call(call::DELETE_VCPU, PAGE, 0, 0), SUCCESS);
        assert_eq!(world.state(PAGE), Some(PageState::Valid));
        assert_eq!(world.state(area), Some(PageState::Valid));
        world.machine.page(PAGE, |page| {
            assert_eq!((page.vmsa, page.permissions[2]), (false, 0xf));
        });
        assert_eq!(world.call(call::DELETE_VCPU, PAGE, 0, 0), ADDRESS);
    });
}

#[test]
fn a_processor_never_has_two_vcpus() {
    world(|world| {
        put_vmsa(world, |_| ());
        let area = PAGE + 0x1000;
        let create = |vmsa, area, apic_id| world.call(call::CREATE_VCPU, vmsa, area, apic_id);
        assert_eq!(
            create(PAGE, area, FIRST),
            ResultCode::INVALID_REQUEST,
            "boot"
        );
        assert_eq!(world.machine.steps(), [], "nothing was touched");
        assert_eq!(world.state(PAGE), Some(PageState::Valid));
        assert_eq!(world.state(area), Some(PageState::Valid));
        assert_eq!(
            create(PAGE, super::PARAVISOR, FIRST),
            ADDRESS,
            "first of all"
        );
        assert_eq!(create(PAGE, BOOT_CALLING_AREA, FIRST), ADDRESS, "likewise");
        // An attempt that fails leaves the identifier free, a vCPU takes it until it is deleted.
        world.machine.faulting_write.set(Some(area));
        assert_eq!(create(PAGE, area, SECOND), ADDRESS);
        assert_eq!(world.state(PAGE), Some(PageState::Valid));
        assert_eq!(world.state(area), Some(PageState::Quarantined));
        world.machine.faulting_write.set(None);
        assert_eq!(create(PAGE, LIST, SECOND), SUCCESS);
        let place = world.core.vcpus.place(1).unwrap();
        assert_eq!(world.core.vcpus.calling_area(place), Some(gpa(LIST)));
        assert!(world.core.vcpus.reserve(1).is_none());
        assert_eq!(world.call(call::DELETE_VCPU, PAGE, 0, 0), SUCCESS);
        put_vmsa(world, |_| ());
        // While another processor makes it one.
        let made = world.core.vcpus.reserve(1).unwrap();
        assert_eq!(create(PAGE, LIST, SECOND), ResultCode::BUSY);
        assert_eq!(world.state(PAGE), Some(PageState::Valid));
        assert_eq!(world.state(LIST), Some(PageState::Valid));
        drop(made);
        assert_eq!(create(PAGE, LIST, SECOND), SUCCESS);
    });
}

const fn gpa(bits: u64) -> GuestPhysicalAddress {
    GuestPhysicalAddress::new(bits)
}

/// Another page that may be a VMSA, and two calling areas.
const OTHER: u64 = LARGE + 0x1000;
const AREAS: [u64; 2] = [PAGE + 0x1000, LARGE + 0x2000];

/// RMPADJUST that makes a page a VMSA, and one that gives it back.
const fn made(page: u64) -> Step {
    Step::Rmpadjust(page, PageSize::Size4K, 0x1_0102)
}

const fn given(page: u64) -> Step {
    Step::Rmpadjust(page, PageSize::Size4K, 0xf02)
}

/// A world whose second processor has a vCPU on PAGE, with the first area; a VMSA that may be one is in OTHER.
fn replaceable(test: impl FnOnce(&World<'_>, &dyn Fn(u64) -> ResultCode)) {
    world(|world| {
        put_vmsa_at(world, PAGE, |_| ());
        put_vmsa_at(world, OTHER, |_| ());
        let create = |vmsa, area| world.call(call::CREATE_VCPU, vmsa, area, SECOND);
        assert_eq!(create(PAGE, AREAS[0]), SUCCESS);
        world.machine.steps();
        test(world, &|area| create(OTHER, area));
    });
}

/// Nothing of the vCPU on PAGE, nor of what was to replace it, has changed.
fn unreplaced(world: &World<'_>) {
    assert_eq!(world.state(PAGE), Some(PageState::Vmsa));
    assert_eq!(world.state(AREAS[0]), Some(PageState::CallingArea));
    assert_eq!(world.state(OTHER), Some(PageState::Valid));
    assert_eq!(world.state(AREAS[1]), Some(PageState::Valid));
    let vmsa = |page| world.machine.page(page, |page| page.vmsa);
    assert_eq!([PAGE, OTHER].map(vmsa), [true, false]);
    world.machine.page(OTHER, |page| {
        assert!(matches!(page.permissions[2], 0 | 0xf));
        assert_eq!(page.bytes[0xd1] & 0x10, 0x10, "SVME: it may be tried again");
    });
    assert_eq!(world.core.vcpus.find(gpa(PAGE)).map(|_| ()), Some(()));
}

#[test]
fn a_vcpu_that_does_not_run_is_replaced() {
    for area in AREAS {
        replaceable(|world, create| {
            world.put(AREAS[0], &[1]);
            assert_eq!(create(area), SUCCESS);
            let steps = world.machine.steps();
            let at = |step| steps.iter().position(|one| *one == step);
            assert!(at(given(PAGE)).unwrap() < at(made(OTHER)).unwrap());
            assert!(!started(world));
            assert_eq!(world.state(PAGE), Some(PageState::Valid));
            assert_eq!(world.state(OTHER), Some(PageState::Vmsa));
            let left = AREAS.into_iter().find(|one| *one != area).unwrap();
            assert_eq!(world.state(area), Some(PageState::CallingArea));
            assert_eq!(world.state(left), Some(PageState::Valid));
            world
                .machine
                .page(area, |page| assert_eq!(page.bytes[0], 0));
            world.machine.page(PAGE, |page| {
                assert_eq!((page.vmsa, page.permissions[2]), (false, 0xf));
            });
            // The guest deletes what it replaced behind that, once; then it is a page like others.
            let delete = |page| world.call(call::DELETE_VCPU, page, 0, 0);
            assert_eq!(delete(PAGE), SUCCESS);
            assert_eq!(world.machine.steps(), []);
            assert_eq!(delete(PAGE), ADDRESS);
            assert_eq!(delete(OTHER), SUCCESS);
            assert_eq!(world.state(area), Some(PageState::Valid));
        });
    }
}

#[test]
fn a_page_that_was_replaced_may_be_a_vmsa_again() {
    replaceable(|world, create| {
        assert_eq!(create(AREAS[0]), SUCCESS);
        // It was not deleted; what is deleted now is the new vCPU on it.
        put_vmsa_at(world, PAGE, |_| ());
        let again = world.call(call::CREATE_VCPU, PAGE, AREAS[0], SECOND);
        assert_eq!(again, SUCCESS);
        assert_eq!(world.call(call::DELETE_VCPU, OTHER, 0, 0), SUCCESS);
        assert_eq!(world.state(PAGE), Some(PageState::Vmsa));
        assert_eq!(world.call(call::DELETE_VCPU, PAGE, 0, 0), SUCCESS);
        assert_eq!(world.state(PAGE), Some(PageState::Valid));
    });
}

#[test]
fn a_vcpu_that_runs_is_not_replaced() {
    for area in AREAS {
        replaceable(|world, create| {
            world.machine.vmsa_in_use.set(true);
            world.put(AREAS[0], &[1]);
            assert_eq!(create(area), ResultCode::protocol_error(3));
            unreplaced(world);
            world.machine.page(AREAS[0], |page| {
                assert_eq!(page.bytes[0], 1, "its call is still pending");
            });
            world.machine.vmsa_in_use.set(false);
            assert_eq!(create(area), SUCCESS);
        });
    }
}

#[test]
fn p5_a_vcpu_whose_call_is_served_is_not_replaced() {
    replaceable(|world, create| {
        let (vcpu, Seat::Taken(_, word)) = seat(world) else {
            panic!("it has a vCPU");
        };
        assert_eq!(create(AREAS[0]), ResultCode::BUSY);
        // Nor by itself.
        let mut own = CallRegisters {
            rax: u64::from(call::CREATE_VCPU),
            rcx: OTHER,
            rdx: AREAS[1],
            r8: SECOND,
            ..CallRegisters::default()
        };
        world.core.call(vcpu, &mut own).unwrap();
        assert_eq!(own.rax, ResultCode::INVALID_REQUEST.to_rax());
        word.keep();
        let area = world.states.hold(gpa(AREAS[0]), &[PageState::CallingArea]);
        assert_eq!(create(AREAS[0]), ResultCode::BUSY);
        assert_eq!(create(AREAS[1]), ResultCode::BUSY);
        area.unwrap().keep();
        unreplaced(world);
        assert_eq!(world.machine.steps(), []);
    });
}

#[test]
fn what_is_refused_replaces_nothing() {
    replaceable(|world, create| {
        assert_eq!(create(BOOT_CALLING_AREA), ADDRESS);
        unreplaced(world);
        put_vmsa_at(world, OTHER, |vmsa| vmsa.sev_features = 9);
        assert_eq!(create(AREAS[0]), PARAMETER);
        unreplaced(world);
        assert!(!world.machine.steps().contains(&given(PAGE)));
        // The old page is lost: it may be a VMSA still, so nothing takes its place.
        put_vmsa_at(world, OTHER, |_| ());
        world.machine.page(PAGE, |page| page.valid = false);
        assert_eq!(create(AREAS[0]), ADDRESS);
        assert_eq!(world.state(PAGE), Some(PageState::Quarantined));
        assert_eq!(world.state(OTHER), Some(PageState::Valid));
        assert_eq!(create(AREAS[1]), ResultCode::INVALID_REQUEST);
    });
}

#[test]
fn what_the_guest_chose_is_sealed_before_its_page_is_a_vmsa() {
    let chosen = |vmsa: &mut Vmsa| {
        (vmsa.pcpu_id, vmsa.tlb_id) = (7, 8);
        (vmsa.event_injection, vmsa.virtual_interrupt_control) = (0x8000_0b0e, 0x100);
        (vmsa.rip, vmsa.efer) = (0x1234, EFER_SVME | 0xd00);
    };
    let found = |world: &World<'_>| {
        let read = |page: &mut Page| Vmsa::read_from_bytes(&page.bytes).unwrap();
        let vmsa = world.machine.page(PAGE, read);
        let zeroed = [
            vmsa.pcpu_id,
            vmsa.tlb_id,
            vmsa.event_injection,
            vmsa.virtual_interrupt_control,
        ];
        (zeroed, vmsa.rip, vmsa.efer)
    };
    world(|world| {
        put_vmsa(world, chosen);
        world.machine.start_error.set(Some(StartError::Refused));
        let create = || world.call(call::CREATE_VCPU, PAGE, PAGE + 0x1000, SECOND);
        assert_eq!(create(), HOST_REFUSED);
        let as_it_was = ([7, 8, 0x8000_0b0e, 0x100], 0x1234, EFER_SVME | 0xd00);
        assert_eq!(found(world), as_it_was);
        world.machine.start_error.set(None);
        assert_eq!(create(), SUCCESS);
        assert_eq!(found(world), ([0; 4], 0x1234, 0xd00));
    });
}

#[test]
fn a_vcpu_that_cannot_be_deleted_stays_what_it_is() {
    world(|world| {
        put_vmsa(world, |_| ());
        let area = PAGE + 0x1000;
        assert_eq!(world.call(call::CREATE_VCPU, PAGE, area, SECOND), SUCCESS);
        let delete = |code| {
            assert_eq!(world.call(call::DELETE_VCPU, PAGE, 0, 0), code);
            assert_eq!(world.state(PAGE), Some(PageState::Vmsa));
            world.machine.page(PAGE, |page| assert!(page.vmsa));
        };
        world.machine.vmsa_in_use.set(true);
        delete(ResultCode::protocol_error(3));
        world.machine.vmsa_in_use.set(false);
        let gpa = GuestPhysicalAddress::new(area);
        let held = world.states.hold(gpa, &[PageState::CallingArea]).unwrap();
        delete(ResultCode::BUSY);
        held.keep();
        let caller = world.core.vcpus.find(GuestPhysicalAddress::new(PAGE));
        let rax = u64::from(call::DELETE_VCPU);
        let mut registers = CallRegisters::new(rax, [PAGE, 0, 0]);
        world.core.call(caller.unwrap(), &mut registers).unwrap();
        let refused = ResultCode::INVALID_REQUEST.to_rax();
        assert_eq!(registers.rax, refused, "a vCPU deletes itself");
        assert_eq!(world.call(call::PVALIDATE, area, 0, 0), ADDRESS, "a list");
        assert_eq!(world.state(area), Some(PageState::CallingArea));
    });
}

#[test]
fn p3_a_vcpu_whose_vmsa_is_gone_keeps_its_processor() {
    world(|world| {
        put_vmsa(world, |_| ());
        let area = PAGE + 0x1000;
        assert_eq!(world.call(call::CREATE_VCPU, PAGE, area, SECOND), SUCCESS);
        world.machine.page(PAGE, |page| page.valid = false);
        assert_eq!(world.call(call::DELETE_VCPU, PAGE, 0, 0), ADDRESS);
        assert_eq!(world.state(PAGE), Some(PageState::Quarantined));
        // The fault may have been forged: the host perhaps runs it still.
        assert_eq!(world.state(area), Some(PageState::CallingArea));
        assert!(world.core.vcpus.reserve(1).is_none());
    });
}

#[test]
fn an_unacceptable_vmsa_stays_the_guests() {
    world(|world| {
        let create = |vmsa, area, apic_id| world.call(call::CREATE_VCPU, vmsa, area, apic_id);
        for change in [
            (|vmsa: &mut Vmsa| vmsa.vmpl = 0) as fn(&mut Vmsa),
            |vmsa| vmsa.efer = 0,
            |vmsa| vmsa.sev_features = 9,
        ] {
            put_vmsa(world, change);
            assert_eq!(create(PAGE, PAGE + 0x1000, SECOND), PARAMETER);
            assert_eq!(world.state(PAGE), Some(PageState::Valid));
            assert_eq!(world.state(PAGE + 0x1000), Some(PageState::Valid));
            world
                .machine
                .page(PAGE, |page| assert_eq!(page.permissions[2], 0xf));
        }
        put_vmsa(world, |_| ());
        assert_eq!(create(PAGE, PAGE, SECOND), PARAMETER, "both in one page");
        for number in 0..4 {
            assert_eq!(
                create(PAGE, PAGE + 0x1000, number),
                PARAMETER,
                "no such vCPU"
            );
        }
        assert_eq!(create(PAGE, PAGE + 0x1000, SECOND | 1 << 32), PARAMETER);
        assert_eq!(create(PAGE + 8, PAGE + 0x1000, SECOND), PARAMETER);
        assert_eq!(create(LARGE, PAGE, SECOND), PARAMETER, "2 MiB aligned");
    });
}

/// Whether the steps since the last look include a start of processor 1.
fn started(world: &World<'_>) -> bool {
    world.machine.steps().contains(&START)
}

#[test]
fn a_processor_is_started_once_and_serves_later_vcpus() {
    world(|world| {
        let create = || {
            put_vmsa(world, |_| ());
            world.call(call::CREATE_VCPU, PAGE, PAGE + 0x1000, SECOND)
        };
        assert_eq!(create(), SUCCESS);
        assert!(started(world));
        assert_eq!(world.call(call::DELETE_VCPU, PAGE, 0, 0), SUCCESS);
        assert_eq!(create(), SUCCESS);
        assert!(!started(world));
    });
}

#[test]
fn a_refused_vcpu_starts_no_processor() {
    world(|world| {
        put_vmsa(world, |vmsa| vmsa.efer = 0);
        let create = |area| world.call(call::CREATE_VCPU, PAGE, area, SECOND);
        assert_eq!(create(PAGE + 0x1000), PARAMETER);
        put_vmsa(world, |_| ());
        world.machine.faulting_write.set(Some(PAGE + 0x1000));
        assert_eq!(create(PAGE + 0x1000), ADDRESS);
        assert!(!started(world));
    });
}

#[test]
fn a_host_that_starts_no_processor_costs_the_guest_nothing_else() {
    world(|world| {
        put_vmsa(world, |_| ());
        let area = PAGE + 0x1000;
        let create = || world.call(call::CREATE_VCPU, PAGE, area, SECOND);
        world.machine.start_error.set(Some(StartError::Refused));
        assert_eq!(create(), HOST_REFUSED);
        assert!(started(world));
        assert_eq!(world.state(PAGE), Some(PageState::Valid));
        assert_eq!(world.state(area), Some(PageState::Valid));
        world.machine.page(PAGE, |page| {
            assert_eq!((page.vmsa, page.permissions[2]), (false, 0xf));
        });
        world.machine.start_error.set(None);
        assert_eq!(create(), SUCCESS, "the identifier is free");
        assert!(started(world), "it is asked again");
    });
    world(|world| {
        put_vmsa(world, |_| ());
        let fatal = StartError::Fatal(Reason::GrantFailed);
        world.machine.start_error.set(Some(fatal));
        let result = world.registers(call::CREATE_VCPU, PAGE, PAGE + 0x1000, SECOND);
        assert_eq!(result.unwrap_err(), Reason::GrantFailed);
    });
}

/// The seat of the vCPU with APIC identifier 1.
fn seat<'s>(world: &World<'s>) -> (VcpuIndex, Seat<'s>) {
    let vcpu = world.core.vcpus.place(1).unwrap();
    (vcpu, world.core.vcpus.seat(vcpu, world.states))
}

#[test]
fn p5_a_vcpu_whose_call_is_served_is_not_deleted() {
    world(|world| {
        assert!(matches!(seat(world).1, Seat::Vacant));
        put_vmsa(world, |_| ());
        let create = |area| world.call(call::CREATE_VCPU, PAGE, area, SECOND);
        assert_eq!(create(PAGE + 0x1000), SUCCESS);
        let (vcpu, Seat::Taken(page, held)) = seat(world) else {
            panic!("it has a vCPU");
        };
        assert_eq!(page.bits(), PAGE);
        assert!(matches!(seat(world).1, Seat::Busy));
        let delete = || world.call(call::DELETE_VCPU, PAGE, 0, 0);
        assert_eq!(delete(), ResultCode::BUSY);
        let mut own = CallRegisters {
            rax: u64::from(call::DELETE_VCPU),
            rcx: PAGE,
            ..CallRegisters::default()
        };
        world.core.call(vcpu, &mut own).unwrap();
        assert_eq!(own.rax, ResultCode::INVALID_REQUEST.to_rax(), "itself");
        held.keep();
        assert_eq!(delete(), SUCCESS);
        assert!(matches!(seat(world).1, Seat::Vacant));
    });
}

/// The vCPU of the second processor, made of PAGE, is lost under its hands, behind what the host `does`.
fn lose(world: &World<'_>, does: impl FnOnce()) {
    put_vmsa(world, |_| ());
    let area = PAGE + 0x1000;
    assert_eq!(world.call(call::CREATE_VCPU, PAGE, area, SECOND), SUCCESS);
    let (vcpu, Seat::Taken(_, held)) = seat(world) else {
        panic!("it has a vCPU");
    };
    world.machine.steps();
    does();
    world.core.lose_vcpu(vcpu, held);
    assert_eq!(world.state(PAGE), Some(PageState::Quarantined));
    assert!(matches!(seat(world).1, Seat::Vacant));
    assert_eq!(world.call(call::DELETE_VCPU, PAGE, 0, 0), ADDRESS);
}

#[test]
fn p3_a_vcpu_that_is_lost_frees_its_processor_when_rmpadjust_confirms_it() {
    world(|world| {
        lose(world, || ());
        let revoke = Step::Rmpadjust(PAGE, PageSize::Size4K, 2);
        assert_eq!(world.machine.steps(), [revoke]);
        assert_eq!(world.state(PAGE + 0x1000), Some(PageState::Valid));
        world.machine.page(PAGE, |page| {
            assert_eq!((page.vmsa, page.permissions[2]), (false, 0));
        });
        assert!(world.core.vcpus.reserve(1).is_some(), "free again");
    });
}

/// A host that forges the fault while it runs the vCPU, or when RMPADJUST is at it, gets no second VMSA for the processor.
#[test]
fn p3_a_vcpu_that_may_still_run_keeps_its_processor() {
    for in_use in [true, false] {
        world(|world| {
            lose(world, || {
                world.machine.vmsa_in_use.set(in_use);
                world.machine.faulting_adjust.set(!in_use);
            });
            world.machine.page(PAGE, |page| assert!(page.vmsa));
            let area = PAGE + 0x1000;
            assert_eq!(world.state(area), Some(PageState::CallingArea));
            world.machine.vmsa_in_use.set(false);
            world.machine.faulting_adjust.set(false);
            let again = world.call(call::CREATE_VCPU, LARGE + 0x1000, LIST, SECOND);
            assert_eq!(again, ResultCode::INVALID_REQUEST);
        });
    }
}

#[test]
fn five_hundred_and_twelve_processors_have_a_vcpu_each_and_all_of_them_call() {
    // Every other identifier: half of them are longer than 8 bits.
    let processors: Vec<u32> = (0..512).map(|number| 2 * number).collect();
    // Odd pages, so that none is at a multiple of 2 MiB.
    let page = |number: u32, which: u64| 0x300_1000 + (4 * u64::from(number) + which) * 0x1000;
    with_processors(&TestMachine::default(), &processors, |world| {
        let others = 1..512_u32;
        for number in others.clone() {
            let (vmsa, area) = (page(number, 0), page(number, 1));
            world.machine.launch(vmsa);
            world.machine.launch(area);
            put_vmsa_at(world, vmsa, |_| ());
            let apic_id = u64::from(2 * number);
            let create = |apic_id| world.call(call::CREATE_VCPU, vmsa, area, apic_id);
            assert_eq!(create(apic_id + 1), PARAMETER, "no processor's identifier");
            assert_eq!(create(apic_id), SUCCESS);
            let id = ProcessorId {
                number,
                apic_id: 2 * number,
            };
            assert!(world.machine.steps().contains(&Step::Start(id)));
        }
        assert_eq!(
            world.call(call::CREATE_VCPU, PAGE, PAGE + 0x1000, 2 * 512),
            PARAMETER
        );
        for number in others.clone() {
            let vcpu = world.core.vcpus.place(number).unwrap();
            let area = GuestPhysicalAddress::new(page(number, 1));
            assert_eq!(world.core.vcpus.calling_area(vcpu), Some(area));
            let next = page(number, 2);
            world.machine.launch(next);
            let rax = u64::from(call::REMAP_CA);
            let mut registers = CallRegisters::new(rax, [next, 0, 0]);
            world.core.call(vcpu, &mut registers).unwrap();
            assert_eq!(ResultCode::from_rax(registers.rax), SUCCESS);
            assert_eq!(world.state(next), Some(PageState::CallingArea));
        }
        for number in others {
            let vmsa = page(number, 0);
            assert_eq!(world.call(call::DELETE_VCPU, vmsa, 0, 0), SUCCESS);
            assert_eq!(world.call(call::DELETE_VCPU, vmsa, 0, 0), ADDRESS);
            assert_eq!(world.state(page(number, 2)), Some(PageState::Valid));
        }
    });
}
