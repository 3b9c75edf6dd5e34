// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory map, which the host passes and nobody measures (invariant W1).

use std::cell::Cell;

use paravisor::boot_plan::BootPlan;
use paravisor::layout::{HANDOVER_END, IMAGE_BASE, LAUNCH_VMSA, PAYLOAD_BASE};
use paravisor::memory_map::MemoryMap;
use paravisor::range_list::PhysRange;
use paravisor::storage_needs::StorageNeeds;
use paravisor::termination::Reason;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::core_world::{LOW_WINDOW_BYTES, World, boot_block, memory_map};

pub fn plan_of(entries: &[(u64, u64, u16)]) -> Result<BootPlan<'static>, Reason> {
    let map = Box::leak(Box::new(memory_map(entries)));
    let map = MemoryMap::parse(map, 1 << 51)?;
    let needs = StorageNeeds::of(&boot_block(), map.ram(), 1);
    BootPlan::new(&boot_block(), map, needs)
}

pub fn memory_maps(_: &World<'_>) {
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

/// Whatever the map says: boot ends, or both windows lie in RAM without a hole and over nothing else.
#[test]
fn w1_no_memory_map_moves_a_window_over_anything() {
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
        let [first, second] = plan.placement.windows;
        prop_assert!(!first.overlaps(&second), "{first:?} and {second:?}");
        prop_assert!(second.end <= 1 << 32 && second.bytes() == LOW_WINDOW_BYTES);
        for window in [first, second] {
            // Sorted, so what is left of it begins where an entry ends.
            let mut left = window;
            for (first, pages, kind) in &list {
                let entry = PhysRange {
                    start: first << 12,
                    end: (first + pages) << 12,
                };
                if *kind == 0 && (entry.start..entry.end).contains(&left.start) {
                    left.start = entry.end.min(left.end);
                }
            }
            let whole = left.is_empty();
            prop_assert!(whole, "{window:?} of {list:?}");
            let payload = PhysRange::new(PAYLOAD_BASE, 0x1_0000).unwrap();
            let own = PhysRange::new(IMAGE_BASE, HANDOVER_END - IMAGE_BASE).unwrap();
            for taken in [payload, own, plan.placement.storage] {
                prop_assert!(!taken.overlaps(&window), "{taken:?} and {window:?}");
            }
            prop_assert!(!plan.tracked().any(|range| range.overlaps(&window)));
            for page in [window.start, window.end - 4096] {
                let page = PhysRange::new(page, 4096).unwrap();
                prop_assert!(!plan.may_validate(&page), "{page:?} of {list:?}");
            }
        }
        Ok(())
    });
    outcome.unwrap();
    println!("{} of 3000 maps have both windows", placed.get());
    assert!(placed.get() > 100, "{}", placed.get());
}
