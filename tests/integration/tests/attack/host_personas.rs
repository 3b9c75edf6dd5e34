// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hostile-host catalogue, row by row, and the hooks of an emulated machine: who attacks, and what is answered.

use std::cell::Cell;

use paravisor::acceptance::Acceptance;
use paravisor::boot_plan::BootPlan;
use paravisor::core_protocol::HOST_REFUSED;
use paravisor::layout::{HANDOVER_END, IMAGE_BASE, LAUNCH_VMSA, PAYLOAD_BASE};
use paravisor::memory_map::MemoryMap;
use paravisor::range_list::PhysRange;
use paravisor::termination::Reason;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use protocol::result;
use reference_model::{Event, guest};
use snp::address::{PageSize, Vmpl};
use snp::ghcb_msr::{
    MsrProtocolError, parse_cpuid, parse_page_state_change, parse_register_ghcb, parse_run_vmpl,
    parse_sev_info,
};
use snp::psc::PscOperation;
use snp::svsm::{ResultCode, core_protocol as call};
use snp_model::access::AccessOutcome;
use snp_model::machine::AccessFault;
use snp_model::psc::HostManner;
use svsm_swiotlb::page_state::PageState;

use crate::core_world::{
    ADDRESS, FRESH, LARGE, MIB, OWN, SUCCESS, World, boot_block, large, memory_map, page, small,
    world,
};
use crate::platform::{Act, Surprise, gpa};

const NO_CHANGE: ResultCode = ResultCode(call::ERROR_NO_CHANGE);
const LIST: u64 = page(0);

/// How a row is covered.
enum Cover {
    /// By this, in process; the text says what is answered.
    Here(&'static str, fn(&World<'_>)),
    /// By this test of tests/qemu/main.rs.
    Qemu(&'static str),
    /// Not, and why.
    Not(&'static str),
}
use Cover::{Here, Not, Qemu};

/// Row of the catalogue or `hook`, persona, cover.
const TABLE: &[(&str, &str, Cover)] = &[
    (
        "A",
        "remaps a valid page and waits for a second validation",
        Here(
            "NO_CHANGE from the map; quarantine when the loss is noticed",
            remapped_valid_page,
        ),
    ),
    (
        "A",
        "maps one memory to two addresses and switches back",
        Here("zeros at the first, #VC at the second", double_mapping),
    ),
    (
        "A",
        "CF where the map expected a change",
        Here("the VM ends: ValidateTwice", carry),
    ),
    (
        "B",
        "takes a list's page away",
        Here("INVALID_ADDRESS, quarantine", rescinded_list),
    ),
    (
        "B",
        "takes a page away at any platform call",
        Here(
            "INVALID_ADDRESS or a stop; see the enumeration in faults.rs",
            rescinded_between,
        ),
    ),
    (
        "C",
        "lies about sharing",
        Here(
            "SUCCESS; no secret shows, and the next GROW asks again",
            lie_about_sharing,
        ),
    ),
    (
        "C",
        "does the opposite after success",
        Here("the guest's I/O fails, nothing else", opposite),
    ),
    (
        "C",
        "lies, fails or breaks the rules at boot",
        Here(
            "a stop with PscRefused, PscMisbehaved or ValidateFailed",
            boot_replies,
        ),
    ),
    (
        "C",
        "replies to GROW and RELEASE out of order",
        Here("HOST_REFUSED, or HOST_MISBEHAVED and quarantine", replies),
    ),
    (
        "D",
        "puts a secret page of the paravisor under a page to be validated",
        Here("zeroed before it is granted", moved_secret),
    ),
    (
        "E",
        "gives a page back whose permissions were left",
        Here(
            "revoked before the rescind, granted after zeroing",
            stale_permissions,
        ),
    ),
    (
        "F",
        "keeps old translations",
        Here(
            "one flush before a rescinded page is anybody's; see p2_f in guest_attacks.rs",
            flush_first,
        ),
    ),
    (
        "G",
        "edits the entries of a descriptor it has begun",
        Here("never read back", edited_entries),
    ),
    (
        "H",
        "answers the MSR protocol with a wrong code, echo or error",
        Here("an error for each", wrong_echoes),
    ),
    (
        "H",
        "swallows the switch to VMPL0: CALL_PENDING is left set",
        Qemu("one_that_swallows_a_call"),
    ),
    (
        "I",
        "none: a guest's race of CREATE_VCPU, REMAP_CA and PVALIDATE",
        Here("BUSY; see p5 in guest_attacks.rs", race),
    ),
    (
        "J",
        "none: a guest's addresses that are not its own",
        Here(
            "INVALID_ADDRESS without an access; see c2_j in guest_attacks.rs",
            deputy,
        ),
    ),
    (
        "K",
        "maps a page read-only in the nested tables",
        Not(
            "availability only: the model has no nested permissions, and the host may stop the VM anyhow",
        ),
    ),
    (
        "L",
        "looks for old private bytes in what is shared",
        Here("none: a window page never held any", residual),
    ),
    (
        "M",
        "watches ciphertext",
        Not("out of scope: pool pages are plain by design, and the model has no ciphertext"),
    ),
    (
        "N",
        "incoherent cache lines",
        Not("neither the model nor QEMU's TCG has caches"),
    ),
    (
        "hook",
        "psc-partial",
        Qemu("a_host_that_returns_early_from_every_request"),
    ),
    ("hook", "psc-refused", Qemu("one_that_refuses")),
    (
        "hook",
        "psc-lies",
        Qemu("one_that_claims_success_and_does_nothing"),
    ),
    (
        "hook",
        "psc-no-progress",
        Qemu("one_that_never_makes_progress"),
    ),
    (
        "hook",
        "psc-rules",
        Qemu("ones_whose_replies_break_the_rules"),
    ),
    ("hook", "drop-run-vmpl", Qemu("one_that_swallows_a_call")),
    (
        "hook",
        "spurious-return",
        Qemu("a_host_that_returns_without_having_run_the_guest"),
    ),
    (
        "hook",
        "vector-into-vmpl0",
        Qemu("a_host_that_rings_the_doorbell_between_check_and_entry"),
    ),
    (
        "hook",
        "implicit-conversion",
        Qemu("a_host_that_converts_on_a_touch"),
    ),
    (
        "hook",
        "remap-between-psc-and-pvalidate",
        Here("ValidateFailed or zeros", remap_before_validation),
    ),
    (
        "hook",
        "size-mismatch",
        Here(
            "the documented code, or 4 KiB steps; never a half",
            size_mismatch,
        ),
    ),
    (
        "hook",
        "cf-surprise",
        Here("the VM ends: ValidateTwice", carry),
    ),
    (
        "hook",
        "0x404-on-touch",
        Here("INVALID_ADDRESS, quarantine", rescinded_list),
    ),
    (
        "hook",
        "guest-mutates-list",
        Here("fetched once; see p_7_6 in guest_attacks.rs", race),
    ),
    (
        "hook",
        "refused-processor",
        Here(
            "HOST_REFUSED, and both pages are what they were",
            refused_processor,
        ),
    ),
    (
        "hook",
        "memory-map",
        Here("a stop with the reason of the rule", memory_maps),
    ),
];

#[test]
fn every_row_of_the_catalogue_and_every_hook() {
    let qemu = include_str!("../qemu/main.rs");
    for (row, persona, cover) in TABLE {
        match cover {
            Here(answer, attack) => {
                world(|world| {
                    attack(world);
                    world.check();
                });
                println!("{row:4} {persona}: {answer}");
            }
            Qemu(test) => {
                assert!(qemu.contains(&format!("fn {test}()")), "{test} is gone");
                println!("{row:4} {persona}: on QEMU, {test}");
            }
            Not(reason) => println!("{row:4} {persona}: not tested, {reason}"),
        }
    }
    for row in "ABCDEFGHIJKLMN".chars() {
        let covered = TABLE.iter().any(|(name, ..)| *name == row.to_string());
        assert!(covered, "row {row}");
    }
}

fn executed(world: &World<'_>) -> Vec<(&'static str, u64)> {
    let events = world.platform.recorder.take().into_iter();
    let instruction = |event| match event {
        Event::Instruction(name, page) => Some((name, page)),
        _ => None,
    };
    events.filter_map(instruction).collect()
}

/// What the guest reads at an address.
fn seen(world: &World<'_>, address: u64) -> Result<[u8; 16], AccessFault> {
    let mut bytes = [0; 16];
    let machine = world.platform.machine();
    machine.guest_read(Vmpl::Vmpl2, true, gpa(address), &mut bytes)?;
    Ok(bytes)
}

fn remapped_valid_page(world: &World<'_>) {
    world.touch(page(4));
    world.touch(page(12));
    world.platform.perform(Act::Remap(page(4), page(12)));
    assert_eq!(
        world.pvalidate(LIST, &[small(page(4), true)]),
        Ok(NO_CHANGE)
    );
    assert_eq!(executed(world), []);
    assert_eq!(world.pvalidate(LIST, &[small(page(4), false)]), Ok(ADDRESS));
    assert_eq!(world.state(page(4)), Some(PageState::Quarantined));
    assert_eq!(world.pvalidate(LIST, &[small(page(4), true)]), Ok(ADDRESS));
}

fn double_mapping(world: &World<'_>) {
    world.touch(page(12));
    assert_eq!(world.pvalidate(LIST, &[small(page(4), false)]), Ok(SUCCESS));
    world.platform.perform(Act::Remap(page(4), page(12)));
    assert_eq!(world.pvalidate(LIST, &[small(page(4), true)]), Ok(SUCCESS));
    assert_eq!(seen(world, page(4)), Ok([0; 16]));
    world.touch(page(4));
    world.platform.perform(Act::Remap(page(12), page(4)));
    let refused = AccessFault::Refused(AccessOutcome::NotValidated);
    assert_eq!(seen(world, page(12)), Err(refused));
}

fn carry(world: &World<'_>) {
    world.touch(page(4));
    assert_eq!(world.pvalidate(LIST, &[small(page(4), false)]), Ok(SUCCESS));
    world.platform.surprise(Surprise::ValidAlready);
    let ended = world.pvalidate(LIST, &[small(page(4), true)]);
    assert_eq!(ended, Err(Reason::ValidateTwice));
    assert_eq!(world.state(page(4)), Some(PageState::Quarantined));
}

fn rescinded_list(world: &World<'_>) {
    assert_eq!(world.pool(&guest::attach()).0, SUCCESS);
    for (number, call) in [
        (1, guest::list(1, page(1))),
        (2, guest::statistics(page(2), 8)),
    ] {
        world.touch(page(number));
        world.platform.perform(Act::Renew(page(number)));
        assert_eq!(world.pool(&call).0, ADDRESS);
        assert_eq!(world.state(page(number)), Some(PageState::Quarantined));
        assert_eq!(world.pool(&call).0, ADDRESS, "and for ever");
    }
    world.touch(page(3));
    world.platform.perform(Act::Rescind(page(3)));
    assert_eq!(world.core(call::PVALIDATE, page(3), 0, 0), Ok(ADDRESS));
    assert_eq!(world.state(page(3)), Some(PageState::Quarantined));
    assert_eq!(world.service.statistics().guest_page_faults, 2);
}

fn rescinded_between(world: &World<'_>) {
    world.touch(page(4));
    // Header, entries, first revocation: gone before the second.
    world
        .platform
        .act_before(world.platform.calls() + 4, Act::Rescind(page(4)));
    assert_eq!(world.pvalidate(LIST, &[small(page(4), false)]), Ok(ADDRESS));
    assert_eq!(world.state(page(4)), Some(PageState::Quarantined));
}

/// A window that is the guest's as far as the host is concerned, so that a lie matters.
fn assign_window(world: &World<'_>) -> u64 {
    let window = world.plan.placement.window;
    for chunk in (window.start..window.end).step_by(2 << 20) {
        let machine = world.platform.machine();
        machine.host_changes(gpa(chunk), PageSize::Size2M, PscOperation::Private);
    }
    window.start
}

fn lie_about_sharing(world: &World<'_>) {
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

fn opposite(world: &World<'_>) {
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

fn boot_replies(_: &World<'_>) {
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
            assert_eq!(acceptance.give(range), Err(reason), "{manner:?}");
        });
    }
}

fn replies(_: &World<'_>) {
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

fn moved_secret(world: &World<'_>) {
    // The paravisor's page ends under the guest's address, with its bytes and its key.
    world.platform.perform(Act::Remap(FRESH, OWN + 0x3000));
    assert_eq!(world.pvalidate(LIST, &[small(FRESH, true)]), Ok(SUCCESS));
    assert_eq!(seen(world, FRESH), Ok([0; 16]));
    let order: Vec<_> = executed(world).into_iter().map(|(name, _)| name).collect();
    assert_eq!(order, ["PVALIDATE", "zeroing", "RMPADJUST"]);
}

fn stale_permissions(world: &World<'_>) {
    let machine = world.platform.machine();
    assert_eq!(world.pvalidate(LIST, &[small(page(4), false)]), Ok(SUCCESS));
    let entry = machine.entry(gpa(page(4))).unwrap();
    assert_eq!(
        entry.permissions(Vmpl::Vmpl2).into_bits(),
        0,
        "before it comes back"
    );
    assert_eq!(world.pvalidate(LIST, &[small(page(4), true)]), Ok(SUCCESS));
    assert_eq!(seen(world, page(4)), Ok([0; 16]));
}

fn flush_first(world: &World<'_>) {
    let list = [
        small(page(4), false),
        small(page(5), false),
        small(page(4), true),
    ];
    assert_eq!(world.pvalidate(LIST, &list), Ok(SUCCESS));
    let done = executed(world);
    let position = |wanted| done.iter().position(|event| *event == wanted).unwrap();
    let rescinded = position(("PVALIDATE", page(5)));
    let flushed = position(("flush", 0));
    let validated = done
        .iter()
        .rposition(|event| *event == ("PVALIDATE", page(4)))
        .unwrap();
    assert!(rescinded < flushed && flushed < validated, "{done:?}");
    assert_eq!(
        done.iter().filter(|event| event.0 == "flush").count(),
        1,
        "one for both"
    );
}

fn edited_entries(world: &World<'_>) {
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

fn wrong_echoes(_: &World<'_>) {
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

fn race(world: &World<'_>) {
    world.put_list(page(1), &[small(page(7), false)]);
    world.put_vmsa(page(7));
    // Before the VMSA is read, another processor takes the page away.
    let attacker = world.platform.recorder.gate(5);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut code = None;
            attacker.when_reached(|| code = world.core(call::PVALIDATE, page(1), 0, 0).ok());
            code
        });
        assert_eq!(
            world.core(call::CREATE_VCPU, page(7), page(8), 1),
            Ok(SUCCESS)
        );
        assert_eq!(other.join().unwrap(), Some(ResultCode::BUSY));
    });
    assert_eq!(world.state(page(7)), Some(PageState::Vmsa));
}

fn deputy(world: &World<'_>) {
    let window = world.plan.placement.window;
    for address in [
        OWN,
        window.start,
        LAUNCH_VMSA,
        world.plan.placement.storage.start,
    ] {
        for validate in [true, false] {
            assert_eq!(
                world.pvalidate(LIST, &[small(address, validate)]),
                Ok(ADDRESS)
            );
        }
    }
    let around = large(window.start - 2 * MIB, true);
    assert_eq!(
        world.pvalidate(LIST, &[around]),
        Ok(ADDRESS),
        "storage, in one large page"
    );
    assert_eq!(executed(world), []);
}

fn residual(world: &World<'_>) {
    assert_eq!(world.pool(&guest::attach()).0, SUCCESS);
    for round in 1..=3 {
        let (code, granted) = world.pool(&guest::grow(1, 2, 4, false));
        assert_eq!(code, SUCCESS);
        world.check();
        let chunks = granted.rdx / (2 * MIB);
        assert_eq!(
            world.pool(&guest::release(granted.rcx, chunks, 1, round)).0,
            SUCCESS
        );
        world.check();
    }
}

fn remap_before_validation(_: &World<'_>) {
    // Page-state change, PVALIDATE, zeroing, RMPADJUST of one page: the host acts before each.
    for nth in 1..=4 {
        for act in [
            Act::Remap(FRESH, OWN + 0x3000),
            Act::Renew(FRESH),
            Act::Rescind(FRESH),
        ] {
            world(|world| {
                world.platform.act_before(nth, act);
                let acceptance = Acceptance {
                    owner: &world.core.owner,
                    memory_is_shared: true,
                };
                let given = acceptance.give(PhysRange::new(FRESH, 4096).unwrap());
                match given {
                    // Before the page-state change or before PVALIDATE: validated as it is, then zeroed.
                    Ok(()) => assert_eq!(seen(world, FRESH), Ok([0; 16]), "{act:?} {nth}"),
                    Err(reason) => {
                        assert_eq!(reason, Reason::ValidateFailed, "{act:?} {nth}");
                        assert!(seen(world, FRESH).is_err(), "{act:?} {nth}");
                    }
                }
                let late = nth > 2;
                assert!(!late || given.is_err(), "{act:?} {nth}");
            });
        }
    }
}

fn size_mismatch(world: &World<'_>) {
    let machine = world.platform.machine();
    let mismatch = ResultCode::protocol_error(6);
    machine.host_changes(gpa(LARGE), PageSize::Size2M, PscOperation::Private);
    assert_eq!(world.pvalidate(LIST, &[large(LARGE, true)]), Ok(SUCCESS));
    // Split behind its back: nothing has changed when the first instruction finds out.
    world.platform.perform(Act::Smash(LARGE));
    assert_eq!(world.pvalidate(LIST, &[large(LARGE, false)]), Ok(mismatch));
    assert_eq!(world.state(LARGE), Some(PageState::Valid));
    assert_eq!(world.pvalidate(LIST, &[small(LARGE, false)]), Ok(SUCCESS));
    world.platform.surprise(Surprise::SizeMismatch);
    assert_eq!(world.pvalidate(LIST, &[small(LARGE, true)]), Ok(mismatch));
    assert_eq!(world.state(LARGE), Some(PageState::Invalid));
}

fn refused_processor(world: &World<'_>) {
    world.platform.refuse_start();
    world.put_vmsa(page(7));
    let code = world.core(call::CREATE_VCPU, page(7), page(8), 1);
    assert_eq!(code, Ok(HOST_REFUSED));
    for number in [7, 8] {
        assert_eq!(world.state(page(number)), Some(PageState::Valid));
    }
}

fn plan_of(entries: &[(u64, u64, u16)]) -> Result<BootPlan, Reason> {
    let map = MemoryMap::parse(&memory_map(entries), 1 << 51)?;
    BootPlan::new(&boot_block(), &map, MIB)
}

fn memory_maps(_: &World<'_>) {
    let vmsa = LAUNCH_VMSA >> 12;
    let low = (0x100, 0x3F00, 0);
    for (what, entries, reason) in [
        ("no RAM", &[][..], Reason::MapEmpty),
        (
            "unsorted",
            &[(0x8000, 0x100, 0), low][..],
            Reason::MapUnsorted,
        ),
        (
            "overlapping",
            &[low, (0x3FFF, 0x1000, 0)][..],
            Reason::MapOverlap,
        ),
        (
            "reserved over RAM",
            &[low, (0x3FFF, 0x10, 1)][..],
            Reason::MapOverlap,
        ),
        (
            "wrapping",
            &[low, (0x10_0000, u64::MAX / 4096, 0)][..],
            Reason::MapWrap,
        ),
        (
            "wrapping in pages",
            &[low, (1 << 52, 1, 0)][..],
            Reason::MapWrap,
        ),
        (
            "beyond the C-bit",
            &[low, ((1 << 39) - 1, 2, 0)][..],
            Reason::MapWrap,
        ),
        (
            "of an unknown type",
            &[low, (0x8000, 1, 7)][..],
            Reason::MapType,
        ),
        (
            "without our region",
            &[(0x1000, 0x3000, 0)][..],
            Reason::ImageOutsideRam,
        ),
        (
            "without a launch page",
            &[(0x100, 0xF01, 0), (0x1002, 0x3000, 0)][..],
            Reason::LaunchOutsideRam,
        ),
        (
            "with too little RAM",
            &[(0x400, 0x1000 - 0x400 + 0x10, 0)][..],
            Reason::WindowOverLaunch,
        ),
        (
            "that steers it over the payload",
            &[(0x100, 0x1500, 0)][..],
            Reason::WindowOverLaunch,
        ),
        (
            "that steers it over ROM",
            &[low, (0xFE000, 0x2000, 0)][..],
            Reason::WindowOverHole,
        ),
        (
            "that steers it over the VMSA",
            &[low, (vmsa - 0x1FFF, 0x2000, 0)][..],
            Reason::WindowOverVmsa,
        ),
        (
            "without room for storage",
            &[(0x400, 0x1600, 0)][..],
            Reason::StorageNoRoom,
        ),
    ] {
        let outcome = plan_of(entries).map(|plan| plan.placement);
        assert_eq!(outcome.err(), Some(reason), "a map {what}: {outcome:?}");
    }
}

/// Whatever the map says: boot ends, or the window lies in one RAM entry and over nothing else.
#[test]
fn w1_no_memory_map_moves_the_window_over_anything() {
    // Mostly ascending, with gaps and lengths that may be anything.
    let entry = (0_u64..0x4000, 0_u64..0x12000, 0_u16..3, 0..60);
    let maps = (prop::collection::vec(entry, 1..8), 0_u64..0x900);
    let placed = Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(3000)
    });
    let outcome = runner.run(&maps, |(entries, low)| {
        let mut at = low;
        let mut list = Vec::new();
        for (gap, pages, kind, wild) in entries {
            let first = if wild == 0 {
                gap
            } else {
                at.saturating_add(gap / 16)
            };
            let pages = if wild == 1 { u64::MAX - pages } else { pages };
            list.push((first, pages, kind / 2));
            at = first.saturating_add(pages);
        }
        let Ok(plan) = plan_of(&list) else {
            return Ok(());
        };
        placed.set(placed.get() + 1);
        let window = plan.placement.window;
        let whole = list
            .iter()
            .take_while(|entry| entry.1 > 0)
            .any(|(first, pages, kind)| {
                *kind == 0 && first << 12 <= window.start && window.end <= (first + pages) << 12
            });
        prop_assert!(whole, "{window:?} of {list:?}");
        let payload = PhysRange::new(PAYLOAD_BASE, 0x1_0000).unwrap();
        let own = PhysRange::new(IMAGE_BASE, HANDOVER_END - IMAGE_BASE).unwrap();
        for taken in [payload, own, plan.placement.storage] {
            prop_assert!(!taken.overlaps(&window), "{taken:?} and {window:?}");
        }
        prop_assert!(!plan.tracked.overlaps(&window));
        for page in [window.start, window.end - 4096] {
            let page = PhysRange::new(page, 4096).unwrap();
            prop_assert!(!plan.may_validate(&page), "{page:?} of {list:?}");
        }
        Ok(())
    });
    outcome.unwrap();
    println!("{} of 3000 maps have a window", placed.get());
    assert!(placed.get() > 100, "{}", placed.get());
}
