// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pool's calls with hosts of every manner, on a platform without rules and on one with them: each platform call
//! fails once.

use protocol::list::ListHeader;
use reference_model::light_host::LightHost;
use reference_model::world::{Watched, machine};
use reference_model::{Shape, World as Judged, guest, with_world};
use snp_model::machine::Machine;
use snp_model::psc::HostManner;
use svsm_swiotlb::page_state::PageState;
use svsm_swiotlb::platform::{GuestMemory, HostPages, PageInstructions};
use zerocopy::IntoBytes;

const SHAPE: Shape = Shape {
    window: 0x4000_0000,
    chunks: 6,
    hard_cap: 6,
    second: None,
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
            world.call(&guest::statistics(SHAPE.ram, 520));
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
