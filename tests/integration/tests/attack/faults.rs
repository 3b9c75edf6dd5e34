// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every platform call of every scenario fails once. The service's calls are judged by the reference model, those of the
//! core protocol by the reverse map.

use paravisor::termination::Reason;
use protocol::list::ListHeader;
use reference_model::light_host::LightHost;
use reference_model::world::{Watched, machine};
use reference_model::{Shape, World as Judged, guest, with_world};
use snp::svsm::core_protocol as call;
use snp_model::machine::Machine;
use snp_model::psc::HostManner;
use svsm_swiotlb::page_state::PageState;
use svsm_swiotlb::platform::{GuestMemory, HostPages, PageInstructions};
use zerocopy::IntoBytes;

use crate::core_world::{FRESH, LARGE, World, large, page, small, world};
use crate::platform::{Act, Surprise};

const SHAPE: Shape = Shape {
    window: 0x4000_0000,
    chunks: 6,
    hard_cap: 6,
    ram: 0x20_0000,
    ram_pages: 4,
};
const PAGES: [(u64, PageState); 2] = [
    (SHAPE.ram, PageState::Valid),
    (SHAPE.ram + 0x1000, PageState::CallingArea),
];

/// A guest's day, of which anything may fail.
type Scenario<P> = fn(&Judged<'_, P>);

fn list<P: HostPages + GuestMemory + PageInstructions + Watched>(
    world: &Judged<'_, P>,
    capacity: u16,
) {
    let list = SHAPE.ram + 0x100;
    let header = ListHeader {
        capacity,
        ..ListHeader::default()
    };
    world.platform.inner().poke(list, header.as_bytes());
    let epoch = world.model().epoch;
    for _ in 0..SHAPE.chunks {
        if world.call(&guest::list(epoch, list)).rax == 0 {
            break;
        }
    }
}

/// Releases whatever the current epoch holds, chunk by chunk.
fn release_all<P: HostPages + GuestMemory + PageInstructions + Watched>(world: &Judged<'_, P>) {
    for number in 0..SHAPE.chunks {
        let held = world.chunk(number).unwrap();
        if let reference_model::Chunk::Held { epoch, generation } = held {
            let base = SHAPE.window + ((number as u64) << 21);
            world.call(&guest::release(base, 1, epoch, generation));
        }
    }
}

fn scenarios<P: HostPages + GuestMemory + PageInstructions + Watched>()
-> [(&'static str, Scenario<P>); 8] {
    [
        ("attach", |world| {
            world.call(&guest::attach());
            world.call(&guest::attach());
        }),
        ("grow", |world| {
            world.call(&guest::attach());
            world.call(&guest::grow(1, 1, 1, false));
            world.call(&guest::grow(1, 2, 5, false));
        }),
        ("grow contiguous", |world| {
            world.call(&guest::attach());
            world.call(&guest::grow(1, 2, 3, true));
            world.call(&guest::grow(1, 3, 3, true));
            world.call(&guest::grow(1, 1, 6, true));
        }),
        ("release", |world| {
            world.call(&guest::attach());
            world.call(&guest::grow(1, 3, 3, false));
            world.call(&guest::grow(1, 3, 3, false));
            release_all(world);
            world.call(&guest::grow(1, 6, 6, true));
        }),
        ("list", |world| {
            world.call(&guest::attach());
            world.call(&guest::grow(1, 1, 1, false));
            world.call(&guest::grow(1, 1, 1, false));
            list(world, 1);
            list(world, 9);
        }),
        ("statistics", |world| {
            world.call(&guest::statistics(SHAPE.ram, 504));
            world.call(&guest::statistics(SHAPE.ram + 0x1000, 8));
        }),
        ("set_limits", |world| {
            world.call(&guest::attach());
            world.call(&guest::set_limits(1, 2));
            world.call(&guest::grow(1, 1, 6, false));
            world.call(&guest::set_limits(1, 6));
            world.call(&guest::grow(1, 1, 6, false));
        }),
        ("orphans", |world| {
            world.call(&guest::attach());
            world.call(&guest::grow(1, 2, 2, false));
            world.call(&guest::attach());
            world.call(&guest::grow(2, 2, 2, false));
            world.call(&guest::adopt(2, 1));
            world.call(&guest::release_orphans(2, 1));
            list(world, 3);
            release_all(world);
            world.call(&guest::detach(2));
        }),
    ]
}

const MANNERS: [HostManner; 8] = [
    HostManner::Honest,
    HostManner::StopAfter(1),
    HostManner::FailAfter(1),
    HostManner::StopInside(200),
    HostManner::Lie,
    HostManner::NoProgress,
    HostManner::CursorBackwards,
    HostManner::ReservedBits,
];

/// Fails each call of each scenario; how many there were.
fn enumerate<P: HostPages + GuestMemory + PageInstructions + Watched>(
    make: impl Fn() -> P,
    set: impl Fn(&P, HostManner),
) -> u64 {
    let mut points = 0;
    for (name, scenario) in scenarios() {
        for manner in MANNERS {
            let run = |fail: Option<u64>| {
                with_world(make(), SHAPE, &PAGES, |world| {
                    set(world.platform.inner(), manner);
                    if let Some(nth) = fail {
                        world.platform.fail_at(nth);
                    }
                    scenario(world);
                    world.platform.calls()
                })
            };
            let calls = run(None);
            (1..=calls).for_each(|nth| {
                run(Some(nth));
            });
            println!("{name} with {manner:?}: {calls} calls");
            points += calls;
        }
    }
    points
}

#[test]
fn p3_p4_p5_every_platform_call_of_the_service_fails_once() {
    let light = enumerate(LightHost::default, LightHost::set_manner);
    let real = enumerate(
        || machine(&SHAPE, &PAGES),
        |machine: &Machine, manner| machine.set_manner(manner),
    );
    println!("{light} + {real} fault points");
    assert!(light > 200 && real > 200);
}

/// The core protocol's day: everything that it does with pages.
fn core_day(world: &World<'_>) {
    let list = page(0);
    let mut fatal = None;
    let mut note = |result: Result<_, Reason>| {
        if let Err(reason) = result {
            fatal = Some(reason);
        }
        world.check();
    };
    note(world.pvalidate(list, &[small(page(4), false), small(page(5), false)]));
    note(world.pvalidate(list, &[small(page(4), true), small(page(6), true)]));
    world.platform.perform(Act::Renew(FRESH));
    note(world.pvalidate(list, &[small(FRESH, true)]));
    note(world.pvalidate(list, &[large(LARGE, true)]));
    world.put_vmsa(page(7));
    note(world.core(call::CREATE_VCPU, page(7), page(8), 1));
    note(world.core(call::REMAP_CA, page(9), 0, 0));
    note(world.core(call::DELETE_VCPU, page(7), 0, 0));
    note(world.pvalidate(list, &[small(page(7), false), small(page(8), false)]));
    // Only what shows that somebody validated behind VMPL0's back may end the VM; a fault does not.
    assert_eq!(fatal, None);
}

#[test]
fn p1_p2_p3_p5_every_platform_call_of_the_core_protocol_fails_once() {
    let calls = world(|world| {
        core_day(world);
        world.platform.calls()
    });
    for nth in 1..=calls {
        world(|world| {
            world.platform.recorder.fail_at(nth);
            core_day(world);
        });
    }
    println!("{calls} fault points of the core protocol");
    assert!(calls > 30, "{calls}");
}

#[test]
fn b_c_the_host_takes_renews_or_remaps_a_page_before_every_platform_call() {
    let calls = world(|world| {
        core_day(world);
        world.platform.calls()
    });
    let mut points = 0;
    for nth in 1..=calls {
        for target in [page(0), page(4), page(7), page(8), page(9), FRESH] {
            for act in [
                Act::Rescind(target),
                Act::Renew(target),
                Act::Remap(target, page(12)),
            ] {
                world(|world| {
                    world.touch(target);
                    world.touch(page(12));
                    world.platform.act_before(nth, act);
                    core_day_of_a_hostile_host(world);
                });
                points += 1;
            }
        }
    }
    println!("{points} points at which a host acts");
}

/// The same day, in which the VM may end: then with the reason that names the attack.
fn core_day_of_a_hostile_host(world: &World<'_>) {
    let list = page(0);
    let days: [&dyn Fn() -> Result<snp::svsm::ResultCode, Reason>; 7] = [
        &|| world.pvalidate(list, &[small(page(4), false), small(page(5), false)]),
        &|| world.pvalidate(list, &[small(page(4), true), small(page(6), true)]),
        &|| {
            world.platform.perform(Act::Renew(FRESH));
            world.pvalidate(list, &[small(FRESH, true)])
        },
        &|| {
            world.put_vmsa(page(7));
            world.core(call::CREATE_VCPU, page(7), page(8), 1)
        },
        &|| world.core(call::REMAP_CA, page(9), 0, 0),
        &|| world.core(call::DELETE_VCPU, page(7), 0, 0),
        &|| world.pvalidate(list, &[small(page(7), false), small(page(8), false)]),
    ];
    for part in days {
        if let Err(reason) = part() {
            assert_eq!(reason, Reason::ValidateTwice);
            return;
        }
        world.check();
    }
}

#[test]
fn p1_every_instruction_that_surprises() {
    for (surprise, fatal) in [
        (Surprise::ValidAlready, Some(Reason::ValidateTwice)),
        (Surprise::InvalidAlready, None),
        (Surprise::SizeMismatch, None),
    ] {
        world(|world| {
            let list = page(0);
            world.touch(page(4)); // a lie about the page, not a change of it
            if surprise == Surprise::ValidAlready {
                world.pvalidate(list, &[small(page(4), false)]).unwrap();
            }
            world.platform.surprise(surprise);
            let validate = surprise == Surprise::ValidAlready;
            let result = world.pvalidate(list, &[small(page(4), validate)]);
            assert_eq!(result.err(), fatal, "{surprise:?}");
            assert_ne!(result, Ok(crate::core_world::SUCCESS), "{surprise:?}");
            let quarantined = world.state(page(4)) == Some(PageState::Quarantined);
            assert!(quarantined, "{surprise:?}: {:?}", world.state(page(4)));
        });
    }
}
