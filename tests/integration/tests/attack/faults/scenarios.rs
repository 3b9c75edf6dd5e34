// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest does while something goes wrong.

use protocol::memory_form::CallBlock;
use reference_model::world::Watched;
use reference_model::{Shape, guest};
use snp_model::psc::HostManner;
use svsm_swiotlb::page_state::PageState;
use zerocopy::IntoBytes;

use crate::conversions::{large, small, smalls, trace};
use crate::hostile_machine::Act;
use crate::judged::{Judged, judged};

const RAM: u64 = 0x20_0000;
const WINDOW: u64 = 0x4000_0000;
const CHUNK: u64 = 2 << 20;
/// A block of 2 MiB that is valid in one entry of the reverse map.
const BLOCK: u64 = RAM;
const LIST: u64 = page(0);
/// A list in a calling area, as Linux has it.
const AREA: u64 = page(1) + 0x100;

const fn page(number: u64) -> u64 {
    RAM + CHUNK + number * 4096
}

/// What a scenario runs in.
#[derive(Clone, Copy, Debug)]
enum Setting {
    /// A few valid pages, a block of 2 MiB, and a pool of two chunks.
    Conversions,
    /// 300 valid pages.
    ManyPages,
    /// A pool that one batch does not cover.
    ManyChunks,
}

/// A scenario.
pub struct Scenario {
    pub name: &'static str,
    setting: Setting,
    /// Of thousands of platform calls: of the codes only two are tried.
    pub long: bool,
    /// Hosts it is run with.
    pub manners: &'static [HostManner],
    run: fn(&Judged<'_>),
}

impl Scenario {
    /// Runs it in a fresh world that `prepare` sees first.
    pub fn run<R>(
        &self,
        prepare: impl FnOnce(&Judged<'_>),
        after: impl FnOnce(&Judged<'_>) -> R,
    ) -> R {
        let (chunks, ram_pages, valid, blocks): (_, _, _, &[u64]) = match self.setting {
            Setting::Conversions => (2, 512 + 32, 16, &[BLOCK]),
            Setting::ManyPages => (2, 512 + 300, 300, &[]),
            Setting::ManyChunks => (260, 512 + 4, 4, &[]),
        };
        let shape = Shape {
            window: WINDOW,
            chunks,
            hard_cap: chunks,
            second: None,
            ram: RAM,
            ram_pages,
        };
        let state = |number| match number {
            1 => PageState::CallingArea,
            _ => PageState::Valid,
        };
        let pages: Vec<_> = (0..valid)
            .map(|number| (page(number), state(number)))
            .collect();
        judged(shape, &pages, blocks, |world| {
            prepare(world);
            (self.run)(world);
            after(world)
        })
    }
}

const HONEST: &[HostManner] = &[HostManner::Honest];
/// Hosts under which conversions take every path: done at once, entry by entry, in parts of one, taken back, not at all.
const HOSTS: &[HostManner] = &[
    HostManner::Honest,
    HostManner::StopAfter(1),
    HostManner::FailAfter(1),
    HostManner::Lie,
    HostManner::CursorBackwards,
];

pub const SCENARIOS: [Scenario; 12] = [
    Scenario {
        name: "CONVERT of 4 KiB pages, there and back",
        setting: Setting::Conversions,
        long: false,
        manners: HOSTS,
        run: |world| {
            world.call(&guest::attach());
            world.convert(LIST, &smalls(page(4), 3, true));
            world.convert(LIST, &smalls(page(4), 3, false));
        },
    },
    Scenario {
        name: "CONVERT of a 2 MiB page, there and back",
        setting: Setting::Conversions,
        long: false,
        manners: HOSTS,
        run: |world| {
            world.call(&guest::attach());
            world.convert(LIST, &[large(BLOCK, true)]);
            world.convert(LIST, &[large(BLOCK, false)]);
        },
    },
    Scenario {
        name: "CONVERT of both sizes, from a calling area",
        setting: Setting::Conversions,
        long: false,
        manners: HOSTS,
        run: |world| {
            let both = |to_shared| {
                [
                    small(page(4), to_shared),
                    large(BLOCK, to_shared),
                    small(page(5), to_shared),
                ]
            };
            world.call(&guest::attach());
            world.convert(AREA, &both(true));
            world.convert(AREA, &both(false));
        },
    },
    Scenario {
        name: "CONVERT in both directions in one list, and of what is refused",
        setting: Setting::Conversions,
        long: false,
        manners: &[HostManner::Honest, HostManner::FailAfter(1)],
        run: |world| {
            world.call(&guest::attach());
            world.convert(LIST, &[small(page(4), true), small(page(5), true)]);
            let list = [
                small(page(4), false),
                small(page(6), true),
                small(page(20), false),
                small(page(6), false),
                small(LIST, true),
            ];
            world.convert(LIST, &list);
        },
    },
    Scenario {
        name: "CONVERT to private of pages that nobody validated",
        setting: Setting::Conversions,
        long: false,
        manners: HOSTS,
        run: |world| {
            world.call(&guest::attach());
            world.convert(LIST, &smalls(page(20), 3, false));
            world.convert(LIST, &smalls(page(20), 3, true));
        },
    },
    Scenario {
        name: "CONVERT to shared of a 2 MiB page that the host has split",
        setting: Setting::Conversions,
        long: true,
        manners: HONEST,
        run: |world| {
            world.call(&guest::attach());
            world.hostile().perform(Act::Smash(BLOCK));
            let list = [
                small(page(4), true),
                large(BLOCK, true),
                small(page(5), true),
            ];
            world.convert(LIST, &list);
        },
    },
    Scenario {
        name: "CONVERT to private of a 2 MiB page that the host assigns in parts",
        setting: Setting::Conversions,
        long: true,
        manners: &[HostManner::StopInside(400)],
        run: |world| {
            world.call(&guest::attach());
            world.convert(LIST, &[large(BLOCK, true)]);
            world.convert(LIST, &[small(page(20), false), large(BLOCK, false)]);
        },
    },
    Scenario {
        name: "CONVERT of a list of two batches, there and back",
        setting: Setting::ManyPages,
        long: true,
        manners: HONEST,
        run: |world| {
            world.call(&guest::attach());
            world.convert(LIST, &smalls(page(20), 260, true));
            world.convert(LIST, &smalls(page(20), 260, false));
        },
    },
    Scenario {
        name: "RELEASE_ORPHANS over two batches, of two epochs",
        setting: Setting::ManyChunks,
        long: false,
        manners: HONEST,
        run: |world| {
            world.call(&guest::attach());
            world.call(&guest::grow(1, 253, 253, false));
            world.call(&guest::grow(1, 4, 4, false));
            world.call(&guest::attach());
            world.call(&guest::grow(2, 1, 3, false));
            world.call(&guest::attach());
            for older in [1, 1, 2, 2] {
                world.call(&guest::release_orphans(3, older));
            }
            world.call(&guest::grow(3, 253, 253, true));
        },
    },
    Scenario {
        name: "ADOPT and DETACH",
        setting: Setting::Conversions,
        long: false,
        manners: HOSTS,
        run: |world| {
            world.call(&guest::attach());
            world.call(&guest::grow(1, 2, 2, false));
            world.call(&guest::attach());
            world.call(&guest::adopt(2, 1));
            world.call(&guest::release(WINDOW, 1, 2, 1));
            world.call(&guest::detach(2));
            world.call(&guest::grow(2, 1, 1, false));
            world.call(&guest::attach());
            world.call(&guest::adopt(3, 2));
            world.call(&guest::release(WINDOW + CHUNK, 1, 3, 1));
        },
    },
    Scenario {
        name: "STATISTICS and TRACE",
        setting: Setting::Conversions,
        long: false,
        manners: HONEST,
        run: |world| {
            world.call(&guest::attach());
            world.call(&guest::grow(1, 1, 1, false));
            world.call(&guest::grow(2, 1, 1, false));
            world.convert(LIST, &smalls(page(4), 2, true));
            world.call(&guest::statistics(page(2), 520));
            world.call(&guest::statistics(AREA, 8));
            world.call(&trace(page(3), 3, 0));
            world.call(&trace(AREA, 64, 2));
            world.call(&trace(page(3), 1, 99));
        },
    },
    Scenario {
        name: "calls from memory",
        setting: Setting::Conversions,
        long: false,
        manners: HOSTS,
        run: |world| {
            let from_memory = |call| {
                let block = page(1) + 8;
                world.hostile().poke(block, CallBlock::of(&call).as_bytes());
                world.call(&guest::memory_form(block));
            };
            from_memory(guest::attach());
            from_memory(guest::grow(1, 1, 2, false));
            from_memory(guest::release(WINDOW, 1, 1, 1));
            // Counters behind the block in the same page.
            from_memory(guest::statistics(AREA, 520));
            let list = guest::convert_list(&[guest::convert_entry(page(4), false, true)]);
            world.hostile().poke(LIST, &list);
            from_memory(guest::convert(1, LIST));
            from_memory(guest::memory_form(page(1) + 8));
            world.call(&guest::memory_form(LIST + 8));
        },
    },
];

/// Short ones, in which two calls go wrong.
pub const TWICE: [Scenario; 2] = [
    Scenario {
        name: "CONVERT to shared",
        setting: Setting::Conversions,
        long: false,
        manners: HONEST,
        run: |world| {
            world.call(&guest::attach());
            let list = [
                small(page(4), true),
                large(BLOCK, true),
                small(page(5), true),
            ];
            world.convert(LIST, &list);
        },
    },
    Scenario {
        name: "CONVERT to private",
        setting: Setting::Conversions,
        long: false,
        manners: HONEST,
        run: |world| {
            world.call(&guest::attach());
            world.convert(LIST, &smalls(page(20), 3, false));
        },
    },
];
