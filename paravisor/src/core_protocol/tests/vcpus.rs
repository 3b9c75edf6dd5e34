// SPDX-License-Identifier: MIT OR Apache-2.0
//! CREATE_VCPU and DELETE_VCPU.

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::svsm::{CallRegisters, ResultCode, core_protocol as call};
use snp::vmsa::{EFER_SVME, Vmsa};
use svsm_swiotlb::page_state::PageState;
use zerocopy::{FromZeros, IntoBytes};

use super::{
    ADDRESS, LARGE, LIST, PAGE, PARAMETER, PROCESSORS, SUCCESS, Step, World, small, world,
};
use crate::apic_ids::ProcessorId;
use crate::core_protocol::HOST_REFUSED;
use crate::termination::Reason;
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
    let mut vmsa = Vmsa::new_zeroed();
    (vmsa.vmpl, vmsa.efer, vmsa.sev_features) = (2, EFER_SVME, 1);
    change(&mut vmsa);
    world.put(PAGE, vmsa.as_bytes());
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
fn a_processor_gets_no_second_vcpu() {
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
        // An attempt that fails leaves the identifier free, a vCPU takes it until it is deleted.
        world.machine.faulting_write.set(Some(area));
        assert_eq!(create(PAGE, area, SECOND), ADDRESS);
        assert_eq!(world.state(PAGE), Some(PageState::Valid));
        assert_eq!(world.state(area), Some(PageState::Quarantined));
        world.machine.faulting_write.set(None);
        assert_eq!(create(PAGE, LIST, SECOND), SUCCESS);
        assert_eq!(
            create(LARGE + 0x1000, LARGE, SECOND),
            ResultCode::INVALID_REQUEST
        );
        assert_eq!(world.call(call::DELETE_VCPU, PAGE, 0, 0), SUCCESS);
        put_vmsa(world, |_| ());
        assert_eq!(create(PAGE, LIST, SECOND), SUCCESS);
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
