// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel that another one has started calls through the launch calling area, from any vCPU.

use super::*;

/// Where the first kernel has its calling areas: of the boot vCPU, and of another one.
const MOVED: u64 = 0x211_0000;
const ANOTHERS: u64 = 0x212_0000;
const LAUNCH: u64 = BOOT_CALLING_AREA;

fn gpa(address: u64) -> GuestPhysicalAddress {
    GuestPhysicalAddress::new(address)
}

/// QUERY_PROTOCOL of a protocol that nobody knows.
fn core_call() -> CallRegisters {
    let call = CallId {
        protocol: core_protocol::NUMBER,
        call: core_protocol::QUERY_PROTOCOL,
    };
    CallRegisters::new(call.to_rax(), [7 << 32 | 1, 0, 0])
}

fn set_pending(world: &World<'_>, area: u64, value: u8) {
    world.machine.page(area, |page| page.bytes[0] = value);
}

fn pending(world: &World<'_>, area: u64) -> u8 {
    world.machine.page(area, |page| page.bytes[0])
}

fn state(world: &World<'_>, page: u64) -> Option<PageState> {
    world.dispatcher.core.states.state(gpa(page))
}

fn area_of(world: &World<'_>, vcpu: VcpuIndex) -> Option<GuestPhysicalAddress> {
    world.dispatcher.core.vcpus.calling_area(vcpu)
}

/// Whether a call was served of a vCPU that stopped with these registers.
fn stopped(world: &World<'_>, vcpu: VcpuIndex, registers: &CallRegisters) -> bool {
    let take = |area: GuestPhysicalAddress| {
        let exchange = |page: &mut Page| core::mem::take(&mut page.bytes[0]) != 0;
        Ok(world.machine.page(area.bits(), exchange))
    };
    let served = world.dispatcher.serve(vcpu, registers, take).unwrap();
    served.is_some()
}

/// A first kernel that has moved its calling area, and has another vCPU.
fn first_kernel(test: impl FnOnce(&World<'_>, VcpuIndex)) {
    world(|world| {
        let core = &world.dispatcher.core;
        for page in [MOVED, ANOTHERS, LAUNCH] {
            world.machine.launch(page);
            set_pending(world, page, 0);
        }
        let remap = CallRegisters::new(u64::from(core_protocol::REMAP_CA), [MOVED, 0, 0]);
        assert_eq!(world.call(&remap), Ok(ResultCode::SUCCESS));
        let another = core.vcpus.reserve(1).unwrap();
        let another = another.fill(gpa(0x213_0000), gpa(ANOTHERS));
        let states = core.states;
        states
            .set_at_boot(gpa(ANOTHERS), 0x1000, PageState::CallingArea)
            .unwrap();
        test(world, another);
    });
}

#[test]
fn p_14_1_p_14_3_a_later_kernel_calls_from_any_vcpu_and_the_old_area_is_left_alone() {
    for from_another in [false, true] {
        first_kernel(|world, another| {
            let (caller, old) = match from_another {
                false => (world.vcpu, MOVED),
                true => (another, ANOTHERS),
            };
            // The new kernel has something of its own there.
            set_pending(world, old, 0xee);
            set_pending(world, LAUNCH, 1);
            assert!(stopped(world, caller, &core_call()));
            assert_eq!((pending(world, LAUNCH), pending(world, old)), (0, 0xee));
            assert_eq!(area_of(world, caller), Some(gpa(LAUNCH)));
            assert_eq!(state(world, LAUNCH), Some(PageState::CallingArea));
            assert_eq!(state(world, old), Some(PageState::Valid));
            // Any call from now on, and a move as the first kernel made one.
            set_pending(world, LAUNCH, 1);
            let identify = Request::Identify.encode(world.dispatcher.service.protocol_number());
            assert!(stopped(world, caller, &identify));
            let remap = CallRegisters::new(u64::from(core_protocol::REMAP_CA), [old, 0, 0]);
            set_pending(world, LAUNCH, 1);
            assert!(stopped(world, caller, &remap));
            assert_eq!(area_of(world, caller), Some(gpa(old)));
            assert_eq!(state(world, LAUNCH), Some(PageState::Valid));
            // And a third kernel.
            set_pending(world, LAUNCH, 1);
            assert!(stopped(world, caller, &core_call()));
        });
    }
}

#[test]
fn p_14_2_nobody_takes_a_call_of_the_vcpu_whose_calling_area_it_is() {
    first_kernel(|world, another| {
        set_pending(world, LAUNCH, 1);
        assert!(stopped(world, world.vcpu, &core_call()));
        // The boot vCPU is about to call; the host switches to VMPL0 on another vCPU.
        set_pending(world, LAUNCH, 1);
        assert!(!stopped(world, another, &core_call()));
        assert_eq!(pending(world, LAUNCH), 1);
        set_pending(world, ANOTHERS, 1);
        assert!(stopped(world, another, &core_call()));
        assert_eq!(pending(world, LAUNCH), 1, "its own is where it called");
        assert_eq!(area_of(world, another), Some(gpa(ANOTHERS)));
        assert!(stopped(world, world.vcpu, &core_call()));
    });
}

#[test]
fn p_14_2_registers_that_name_no_core_call_take_none() {
    first_kernel(|world, another| {
        let number = world.dispatcher.service.protocol_number();
        let ghcb = CallRegisters::new(0x7f8a_1000, [0xc001_0130, 0, 0]);
        let beyond = CallRegisters::new(7, [0; 3]);
        for registers in [Request::Identify.encode(number), ghcb, beyond] {
            set_pending(world, LAUNCH, 1);
            assert!(!stopped(world, another, &registers));
            assert_eq!(pending(world, LAUNCH), 1);
        }
        assert_eq!(area_of(world, another), Some(gpa(ANOTHERS)));
    });
}

#[test]
fn p5_p_14_2_a_launch_area_that_is_not_the_guests_is_not_touched() {
    let other = [
        PageState::Invalid,
        PageState::Shared,
        PageState::Vmsa,
        PageState::Quarantined,
    ];
    for found in other {
        first_kernel(|world, another| {
            let states = world.dispatcher.core.states;
            states.set_at_boot(gpa(LAUNCH), 0x1000, found).unwrap();
            for area in [LAUNCH, ANOTHERS] {
                set_pending(world, area, 1);
            }
            assert!(stopped(world, another, &core_call()), "by its own");
            assert_eq!(
                (pending(world, LAUNCH), state(world, LAUNCH)),
                (1, Some(found))
            );
        });
    }
    // Another call has it, for longer than anybody waits.
    first_kernel(|world, another| {
        let states = world.dispatcher.core.states;
        let held = states.hold(gpa(LAUNCH), &[PageState::Valid]).unwrap();
        set_pending(world, LAUNCH, 1);
        assert!(!stopped(world, another, &core_call()));
        held.keep();
        assert!(stopped(world, another, &core_call()), "it was not taken");
    });
}

#[test]
fn p3_a_launch_area_that_the_host_has_taken_is_quarantined_and_others_go_on() {
    first_kernel(|world, another| {
        let take = |area: GuestPhysicalAddress| match area == gpa(LAUNCH) {
            true => Err(Fault),
            false => Ok(true),
        };
        let served = world.dispatcher.serve(another, &core_call(), take).unwrap();
        assert!(served.is_some());
        assert_eq!(state(world, LAUNCH), Some(PageState::Quarantined));
        assert_eq!(area_of(world, another), Some(gpa(ANOTHERS)));
    });
}

#[test]
fn a_lost_area_is_left_behind() {
    first_kernel(|world, another| {
        let states = world.dispatcher.core.states;
        let quarantined = PageState::Quarantined;
        states
            .set_at_boot(gpa(ANOTHERS), 0x1000, quarantined)
            .unwrap();
        set_pending(world, LAUNCH, 1);
        assert!(stopped(world, another, &core_call()));
        assert_eq!(state(world, ANOTHERS), Some(quarantined));
        assert_eq!(area_of(world, another), Some(gpa(LAUNCH)));
    });
}
