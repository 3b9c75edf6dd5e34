// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replies to page-state changes and to the MSR protocol.

use paravisor::acceptance::Acceptance;
use paravisor::range_list::PhysRange;
use paravisor::termination::Reason;
use protocol::result;
use reference_model::{Event, guest};
use snp::address::{PageSize, Vmpl};
use snp::ghcb_msr::{
    MsrProtocolError, parse_cpuid, parse_page_state_change, parse_register_ghcb, parse_run_vmpl,
    parse_sev_info,
};
use snp::psc::PscOperation;
use snp_model::access::AccessOutcome;
use snp_model::machine::AccessFault;
use snp_model::psc::HostManner;

use crate::core_world::{LARGE, MIB, SUCCESS, World, world};
use crate::platform::gpa;

/// A window that is the guest's as far as the host is concerned, so that a lie matters.
pub fn assign_window(world: &World<'_>) -> u64 {
    let window = world.plan.placement.window();
    for chunk in (window.start..window.end).step_by(2 << 20) {
        let machine = world.platform.machine();
        machine.host_changes(gpa(chunk), PageSize::Size2M, PscOperation::Private);
    }
    window.start
}

pub fn lie_about_sharing(world: &World<'_>) {
    let window = assign_window(world);
    let machine = world.platform.machine();
    assert_eq!(world.pool(&guest::attach()).0, SUCCESS);
    machine.set_manner(HostManner::Lie);
    assert_eq!(world.pool(&guest::grow(1, 1, 1, false)).0, SUCCESS);
    assert!(machine.entry(gpa(window)).unwrap().assigned, "the lie");
    let write = machine.guest_write(Vmpl::Vmpl2, false, gpa(window), b"payload");
    assert!(write.is_err(), "the guest's I/O fails");
    assert_eq!(world.pool(&guest::release(window, 1, 1, 1)).0, SUCCESS);
    machine.set_manner(HostManner::Honest);
    let (code, answer) = world.pool(&guest::grow(1, 1, 4, false));
    assert_eq!((code, answer.rcx), (SUCCESS, window));
    assert!(!machine.entry(gpa(window)).unwrap().assigned, "asked again");
}

pub fn opposite(world: &World<'_>) {
    let machine = world.platform.machine();
    assert_eq!(world.pool(&guest::attach()).0, SUCCESS);
    let (code, granted) = world.pool(&guest::grow(1, 1, 1, false));
    assert_eq!(code, SUCCESS);
    machine.host_changes(gpa(granted.rcx), PageSize::Size2M, PscOperation::Private);
    let private = machine.guest_read(Vmpl::Vmpl2, true, gpa(granted.rcx), &mut [0; 8]);
    assert_eq!(
        private,
        Err(AccessFault::Refused(AccessOutcome::NotValidated))
    );
    assert_eq!(world.pool(&guest::release(granted.rcx, 1, 1, 1)).0, SUCCESS);
}

pub fn boot_replies(_: &World<'_>) {
    for (manner, reason) in [
        (HostManner::Refuse, Reason::PscRefused),
        (HostManner::FailAfter(1), Reason::PscRefused),
        (HostManner::NoProgress, Reason::PscRefused),
        (HostManner::Lie, Reason::ValidateFailed),
        (HostManner::CursorBackwards, Reason::PscMisbehaved),
        (HostManner::CursorBeyondEnd, Reason::PscMisbehaved),
        (HostManner::EnlargeEnd, Reason::PscMisbehaved),
        (HostManner::ReservedBits, Reason::PscMisbehaved),
    ] {
        world(|world| {
            world.platform.machine().set_manner(manner);
            let acceptance = Acceptance {
                owner: &world.core.owner,
                memory_is_shared: true,
            };
            let range = PhysRange::new(LARGE, 4 * MIB).unwrap();
            assert_eq!(
                acceptance.give([range].into_iter()),
                Err(reason),
                "{manner:?}"
            );
        });
    }
}

pub fn replies(_: &World<'_>) {
    let misbehaved = result::HOST_MISBEHAVED;
    for (manner, grown, quarantined) in [
        (HostManner::Refuse, result::HOST_REFUSED, 0),
        (HostManner::FailAfter(1), result::HOST_REFUSED, 0),
        (HostManner::NoProgress, result::HOST_REFUSED, 0),
        (HostManner::StopAfter(1), SUCCESS, 0),
        (HostManner::CursorBackwards, misbehaved, 2),
        (HostManner::CursorBeyondEnd, misbehaved, 2),
        (HostManner::EnlargeEnd, misbehaved, 2),
        (HostManner::ReservedBits, misbehaved, 2),
    ] {
        world(|world| {
            let machine = world.platform.machine();
            assert_eq!(world.pool(&guest::attach()).0, SUCCESS);
            let (code, held) = world.pool(&guest::grow(1, 2, 2, true));
            assert_eq!(code, SUCCESS);
            machine.set_manner(manner);
            let code = world.pool(&guest::grow(1, 2, 2, true)).0;
            assert_eq!(code, grown, "{manner:?}");
            let lost = |chunks: u64| chunks * 2 * MIB;
            let statistics = world.service.statistics();
            assert_eq!(
                statistics.quarantined_bytes,
                lost(quarantined),
                "{manner:?}"
            );
            let (code, released) = world.pool(&guest::release(held.rcx, 2, 1, 1));
            assert_eq!((code, released.rcx), (SUCCESS, lost(2)), "{manner:?}");
            let statistics = world.service.statistics();
            assert_eq!(
                statistics.quarantined_bytes,
                lost(2 * quarantined),
                "{manner:?}"
            );
            if quarantined > 0 {
                assert_eq!(released.rdx, 0, "nothing acknowledged");
                machine.set_manner(HostManner::Honest);
                let code = world.pool(&guest::grow(1, 1, 1, false)).0;
                assert_eq!(code, result::NO_CONTIGUOUS_RUN, "never granted again");
            }
            world.check();
        });
    }
}

pub fn edited_entries(world: &World<'_>) {
    assign_window(world);
    world
        .platform
        .machine()
        .set_manner(HostManner::StopInside(200));
    assert_eq!(world.pool(&guest::attach()).0, SUCCESS);
    world.platform.recorder.take();
    assert_eq!(world.pool(&guest::grow(1, 4, 4, true)).0, SUCCESS);
    let mut exits = 0;
    for event in world.platform.recorder.take() {
        let Event::Psc { entries, .. } = event else {
            continue;
        };
        exits += 1;
        let own = entries
            .iter()
            .all(|entry| entry.current_page() == 0 && entry.large());
        assert!(
            own && entries.len() == 4,
            "the host's progress came back: {entries:?}"
        );
    }
    assert!(exits > 4, "{exits}");
}

pub fn wrong_echoes(_: &World<'_>) {
    let ghcb = gpa(0x43_2000);
    assert_eq!(parse_register_ghcb(ghcb.bits() | 0x13, ghcb), Ok(()));
    for wrong in [
        ghcb.bits() | 0x12,
        (ghcb.bits() + 0x1000) | 0x13,
        !0xFFF | 0x13,
        0x13,
        0,
    ] {
        assert!(parse_register_ghcb(wrong, ghcb).is_err(), "{wrong:#x}");
    }
    assert_eq!(parse_cpuid(7 << 32 | 2 << 30 | 5, 2), Ok(7));
    let echo = parse_cpuid(7 << 32 | 1 << 30 | 5, 2);
    assert!(matches!(echo, Err(MsrProtocolError::WrongEcho(_))));
    for response in [0, 0x14, 1 << 32 | 0x15, 0x1015, u64::MAX] {
        assert!(parse_page_state_change(response).is_err(), "{response:#x}");
        assert!(parse_run_vmpl(response | 2).is_err(), "{response:#x}");
    }
    assert!(parse_sev_info(0x0002_0002_3300_0002).is_err());
}
