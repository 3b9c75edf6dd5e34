// SPDX-License-Identifier: MIT OR Apache-2.0
//! CONVERT under every manner of the host, with each platform call failing and each instruction surprising once; all judged
//! by the model.

mod batches;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use reference_model::light_host::{LightHost, Surprise};
use reference_model::world::{CONVERT, machine, with_pages};
use reference_model::{Shape, Tried, World, guest, with_world};
use snp::svsm::ResultCode;
use snp_model::psc::HostManner;
use svsm_swiotlb::page_state::PageState;

/// Pages of 4 KiB in a large one.
const LARGE: u64 = 512;
const SHAPE: Shape = Shape {
    window: 0x4000_0000,
    chunks: 1,
    hard_cap: 1,
    second: None,
    ram: 0x20_0000,
    // Under Miri no large page.
    ram_pages: if cfg!(miri) { 16 } else { 2 * LARGE },
};
const LIST: u64 = SHAPE.ram;
/// The first page of the window, counted as those of RAM.
const WINDOW_PAGE: u64 = (SHAPE.window - SHAPE.ram) / 4096;

const fn page(number: u64) -> u64 {
    SHAPE.ram + number * 4096
}

const fn small(number: u64, to_shared: bool) -> u64 {
    guest::convert_entry(page(number), false, to_shared)
}

const fn large(number: u64, to_shared: bool) -> u64 {
    guest::convert_entry(page(number * LARGE), true, to_shared)
}

/// The list's page, a few small pages of each kind, a large page.
fn pages() -> BTreeMap<u64, PageState> {
    let few = [
        PageState::Valid,
        PageState::Valid,
        PageState::Valid,
        PageState::Valid,
        PageState::Shared,
        PageState::Shared,
        PageState::Invalid,
        PageState::Vmsa,
        PageState::CallingArea,
        PageState::Paravisor,
        PageState::Quarantined,
    ];
    let few = (0..).zip(few);
    let large = (LARGE..2 * LARGE).map(|number| (number, PageState::Valid));
    few.chain(large)
        .filter(|(number, _)| *number < SHAPE.ram_pages)
        .map(|(number, state)| (page(number), state))
        .collect()
}

/// Lists, one after the other, each until it is done or its first entry is refused.
fn days() -> [(&'static str, Vec<Vec<u64>>); 6] {
    [
        (
            "small, there and back",
            vec![
                vec![small(1, true), small(2, true), small(3, true)],
                vec![small(1, false), small(2, false), small(3, false)],
            ],
        ),
        (
            "large among small, there and back",
            vec![
                vec![small(1, true), large(1, true), small(2, true)],
                vec![small(2, false), large(1, false), small(1, false)],
            ],
        ),
        (
            "both ways in one list",
            vec![vec![
                small(4, false),
                small(1, true),
                small(2, true),
                small(6, false),
                small(1, false),
                small(4, true),
            ]],
        ),
        (
            "refused pages",
            (7..11)
                .chain([0, WINDOW_PAGE, SHAPE.ram_pages])
                .flat_map(|wrong| {
                    [true, false].map(|to| vec![small(1, to), small(wrong, to), small(2, to)])
                })
                .chain([vec![large(0, true)], vec![large(0, false)]])
                // Each right for the way that the other one goes.
                .chain([vec![small(1, true), small(2, false)]])
                .chain([vec![small(4, false), small(5, true)]])
                .collect(),
        ),
        (
            "entries that are none",
            [
                small(1, true) | 0x8,
                small(1, true) | 0x100,
                small(1, false) | 0x800,
                small(1, true) | 2,
                large(1, true) | 2,
                guest::convert_entry(page(LARGE + 1), true, true),
            ]
            .into_iter()
            .flat_map(|wrong| {
                [
                    vec![wrong],
                    vec![small(2, true), wrong],
                    vec![small(2, false)],
                ]
            })
            .collect(),
        ),
        (
            "twice in one list, and parts of a whole",
            vec![
                vec![small(1, true), small(1, true)],
                vec![small(LARGE + 3, true), large(1, true)],
                vec![large(1, false)],
            ],
        ),
    ]
}

/// Everything a day asks for, then what is left of it: counters and records.
fn spend<P>(world: &World<'_, P>, lists: &[Vec<u64>])
where
    P: svsm_swiotlb::platform::HostPages
        + svsm_swiotlb::platform::GuestMemory
        + svsm_swiotlb::platform::PageInstructions
        + reference_model::world::Watched,
{
    world.call(&guest::attach());
    for list in lists {
        world
            .platform
            .inner()
            .poke(LIST, &guest::convert_list(list));
        for _ in 0..=list.len() {
            let code = world.call(&guest::convert(1, LIST)).rax;
            if code != u64::from(ResultCode::INCOMPLETE.0) {
                break;
            }
        }
    }
    world.call(&guest::statistics(page(3), 560));
    world.call(&guest::trace(page(3), 4096, 0));
}

const MANNERS: [HostManner; 11] = [
    HostManner::Honest,
    HostManner::Refuse,
    HostManner::StopAfter(1),
    HostManner::FailAfter(1),
    HostManner::StopInside(200),
    HostManner::Lie,
    HostManner::NoProgress,
    HostManner::CursorBackwards,
    HostManner::CursorBeyondEnd,
    HostManner::EnlargeEnd,
    HostManner::ReservedBits,
];
const SURPRISES: [Surprise; 5] = [
    Surprise::Fault,
    Surprise::Unchanged,
    Surprise::SizeMismatch,
    Surprise::Code(1),
    Surprise::Code(3),
];

/// Of many instructions or calls that are alike, every so many: never a divisor of 512.
const fn stride(of: u64) -> usize {
    match of {
        _ if cfg!(miri) => 29,
        0..=200 => 1,
        _ => 61,
    }
}

/// A day on a host of a manner whose entries are large or small: platform calls, whether all surprises came, what was tried.
fn day(
    lists: &[Vec<u64>],
    manner: HostManner,
    split: bool,
    disturb: impl FnOnce(&World<'_, LightHost>),
) -> (u64, bool, Tried) {
    let light = LightHost::default();
    with_pages(light, CONVERT, SHAPE, Arc::new(pages()), |world| {
        let host = world.platform.inner();
        host.set_manner(manner);
        if split {
            host.split_all();
        }
        disturb(world);
        spend(world, lists);
        let tried = world.model().tried.clone();
        (world.platform.calls(), host.surprises_left() == 0, tried)
    })
}

fn every_manner() -> impl Iterator<Item = HostManner> {
    let few = if cfg!(miri) { 1 } else { MANNERS.len() };
    MANNERS.into_iter().take(few)
}

fn every_surprise() -> impl Iterator<Item = Surprise> {
    let few = if cfg!(miri) { 1 } else { SURPRISES.len() };
    SURPRISES.into_iter().take(few)
}

#[test]
fn p2_p3_p4_every_platform_call_of_a_conversion_fails_and_every_instruction_surprises() {
    let mut points = [0_u64; 2];
    let mut outcomes = BTreeSet::new();
    for (name, lists) in days() {
        for split in [false, true] {
            // Without a large page there is nothing to split.
            let small = lists.iter().flatten().all(|entry| entry & 3 != 1);
            if split && small || cfg!(miri) && (split || name != "small, there and back") {
                continue;
            }
            for manner in every_manner() {
                let (calls, _, tried) = day(&lists, manner, split, |_| {});
                outcomes.extend(tried.outcomes);
                for nth in (1..=calls).step_by(stride(calls)) {
                    day(&lists, manner, split, |world| world.platform.fail_at(nth));
                    points[0] += 1;
                }
                for how in every_surprise() {
                    for after in (0..calls).step_by(stride(calls)) {
                        let (_, surprised, tried) = day(&lists, manner, split, |world| {
                            world.platform.inner().surprise(after, how);
                        });
                        if !surprised {
                            break;
                        }
                        outcomes.extend(tried.outcomes);
                        points[1] += 1;
                    }
                }
            }
        }
    }
    println!("{} failing calls, {} surprises", points[0], points[1]);
    assert!(cfg!(miri) || (points[0] > 1000 && points[1] > 1000));
    assert!(
        cfg!(miri) || outcomes == BTreeSet::from(Tried::ALL_OUTCOMES),
        "{outcomes:?}"
    );
    assert!(outcomes.len() >= 2, "{outcomes:?}");
}

#[test]
fn p2_p3_two_instructions_of_a_conversion_surprise() {
    let other = |to_shared| match cfg!(miri) {
        true => small(2, to_shared),
        false => large(1, to_shared),
    };
    let lists = vec![
        vec![small(1, true), other(true)],
        vec![other(false), small(1, false)],
    ];
    let mut points = 0;
    let furthest = if cfg!(miri) { 1 } else { 10 };
    for first in every_surprise() {
        for second in every_surprise() {
            for manner in [HostManner::Honest, HostManner::FailAfter(1)] {
                for (after, between) in
                    (0..furthest).flat_map(|a| (0..furthest).map(move |b| (a, b)))
                {
                    day(&lists, manner, false, |world| {
                        world.platform.inner().surprise(after, first);
                        world.platform.inner().surprise(between, second);
                    });
                    points += 1;
                }
            }
        }
    }
    println!("{points} pairs of surprises");
}

#[test]
#[cfg_attr(miri, ignore = "copies megabytes; the other tests are the same code")]
fn p1_p2_p3_every_platform_call_of_a_conversion_fails_on_a_machine() {
    let pages: Vec<(u64, PageState)> = pages().into_iter().collect();
    let mut points = 0;
    for (_, lists) in days() {
        // The light host has all of them.
        for manner in [
            HostManner::Honest,
            HostManner::FailAfter(1),
            HostManner::StopInside(200),
            HostManner::Lie,
            HostManner::ReservedBits,
        ] {
            let run = |fail: Option<u64>| {
                with_world(machine(&SHAPE, &pages), SHAPE, &pages, |world| {
                    world.platform.inner().set_manner(manner);
                    if let Some(nth) = fail {
                        world.platform.fail_at(nth);
                    }
                    spend(world, &lists);
                    world.platform.calls()
                })
            };
            let calls = run(None);
            for nth in (1..=calls).step_by(stride(calls)) {
                run(Some(nth));
                points += 1;
            }
        }
    }
    println!("{points} failing calls");
    assert!(points > 500);
}
