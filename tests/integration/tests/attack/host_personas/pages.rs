// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages of the guest that the host takes, renews, remaps or splits.

use paravisor::acceptance::Acceptance;
use paravisor::core_protocol::HOST_REFUSED;
use paravisor::layout::LAUNCH_VMSA;
use paravisor::range_list::PhysRange;
use paravisor::termination::Reason;
use reference_model::{Event, guest};
use snp::address::{PageSize, Vmpl};
use snp::psc::PscOperation;
use snp::svsm::{ResultCode, core_protocol as call};
use snp_model::access::AccessOutcome;
use snp_model::machine::AccessFault;
use svsm_swiotlb::page_state::PageState;

use crate::core_world::{
    ADDRESS, FRESH, LARGE, MIB, OWN, SUCCESS, World, large, page, small, world,
};
use crate::platform::{Act, Surprise, gpa};

const NO_CHANGE: ResultCode = ResultCode(call::ERROR_NO_CHANGE);
const LIST: u64 = page(0);

/// What the guest reads at an address.
pub fn seen(world: &World<'_>, address: u64) -> Result<[u8; 16], AccessFault> {
    let mut bytes = [0; 16];
    let machine = world.platform.machine();
    machine.guest_read(Vmpl::Vmpl2, true, gpa(address), &mut bytes)?;
    Ok(bytes)
}

pub fn executed(world: &World<'_>) -> Vec<(&'static str, u64)> {
    let events = world.platform.recorder.take().into_iter();
    let instruction = |event| match event {
        Event::Instruction(name, page) => Some((name, page)),
        _ => None,
    };
    events.filter_map(instruction).collect()
}

pub fn remapped_valid_page(world: &World<'_>) {
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

pub fn double_mapping(world: &World<'_>) {
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

pub fn carry(world: &World<'_>) {
    world.touch(page(4));
    assert_eq!(world.pvalidate(LIST, &[small(page(4), false)]), Ok(SUCCESS));
    world.platform.surprise(Surprise::ValidAlready);
    let ended = world.pvalidate(LIST, &[small(page(4), true)]);
    assert_eq!(ended, Err(Reason::ValidateTwice));
    assert_eq!(world.state(page(4)), Some(PageState::Quarantined));
}

pub fn rescinded_list(world: &World<'_>) {
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

pub fn rescinded_between(world: &World<'_>) {
    world.touch(page(4));
    // Header, entries, first revocation: gone before the second.
    world
        .platform
        .act_before(world.platform.calls() + 4, Act::Rescind(page(4)));
    assert_eq!(world.pvalidate(LIST, &[small(page(4), false)]), Ok(ADDRESS));
    assert_eq!(world.state(page(4)), Some(PageState::Quarantined));
}

pub fn moved_secret(world: &World<'_>) {
    // The paravisor's page ends under the guest's address, with its bytes and its key.
    world.platform.perform(Act::Remap(FRESH, OWN + 0x3000));
    assert_eq!(world.pvalidate(LIST, &[small(FRESH, true)]), Ok(SUCCESS));
    assert_eq!(seen(world, FRESH), Ok([0; 16]));
    let order: Vec<_> = executed(world).into_iter().map(|(name, _)| name).collect();
    assert_eq!(order, ["PVALIDATE", "eviction", "zeroing", "RMPADJUST"]);
}

pub fn stale_permissions(world: &World<'_>) {
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

pub fn flush_first(world: &World<'_>) {
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

pub fn race(world: &World<'_>) {
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

pub fn deputy(world: &World<'_>) {
    let window = world.plan.placement.window();
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

pub fn residual(world: &World<'_>) {
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

pub fn remap_before_validation(_: &World<'_>) {
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
                let given = acceptance.give(PhysRange::new(FRESH, 4096).into_iter());
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

pub fn size_mismatch(world: &World<'_>) {
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

pub fn refused_processor(world: &World<'_>) {
    world.platform.refuse_start();
    world.put_vmsa(page(7));
    let code = world.core(call::CREATE_VCPU, page(7), page(8), 1);
    assert_eq!(code, Ok(HOST_REFUSED));
    for number in [7, 8] {
        assert_eq!(world.state(page(number)), Some(PageState::Valid));
    }
}
