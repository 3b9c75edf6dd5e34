// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory map of a Linux guest.
//!
//! Whatever is ours stays in the map as *reserved*: the kernel takes a hole for room in which it may
//! place devices. Usable RAM is all validated and granted, so everything else must not be called
//! usable.
//!
//! The zero page has room for [`E820_MAX_ENTRIES`] of them; those behind are in a `setup_data` node.

use crate::boot_plan::BootPlan;
use crate::layout::{ACPI_TABLES, CC_BLOB, LINUX_PAGES_END};
use crate::linux::boot_params::{E820_ACPI, E820_RAM, E820_RESERVED, E820Entry};
use crate::placement::{LEGACY_RANGE, OWN_REGION, Placement};
use crate::range_list::PhysRange;
use crate::termination::Reason;

/// PCI configuration space of the machine (ECAM).
const PCI_CONFIGURATION: PhysRange = PhysRange {
    start: 0xb000_0000,
    end: 0xc000_0000,
};
/// The confidential-computing blob. The pages before it are RAM: the kernel copies what it needs of them, or keeps it.
const BLOB: PhysRange = PhysRange {
    start: CC_BLOB,
    end: ACPI_TABLES,
};
/// ACPI tables.
const TABLES: PhysRange = PhysRange {
    start: ACPI_TABLES,
    end: LINUX_PAGES_END,
};

/// Passes every entry of the map to `put` with its number, by address, and returns how many there are.
///
/// # Errors
/// What `put` returns.
pub fn e820(
    plan: &BootPlan<'_>,
    mut put: impl FnMut(usize, E820Entry) -> Result<(), Reason>,
) -> Result<usize, Reason> {
    let Placement {
        windows: [window, low],
        storage,
    } = plan.placement;
    let holes = [LEGACY_RANGE, OWN_REGION, BLOB, TABLES, storage];
    let ram = plan.tracked().flat_map(|range| range.without(&holes));
    let mut ram = ram.map(|range| (range, E820_RAM)).peekable();
    let is_ram = plan.ram().any(|entry| entry.overlaps(&PCI_CONFIGURATION));
    let configuration = if is_ram {
        PhysRange::default()
    } else {
        PCI_CONFIGURATION
    };
    let mut special = [
        (LEGACY_RANGE, E820_RESERVED),
        (OWN_REGION, E820_RESERVED),
        (BLOB, E820_RESERVED),
        (TABLES, E820_ACPI),
        (storage, E820_RESERVED),
        (window, E820_RESERVED),
        (low, E820_RESERVED),
        (configuration, E820_RESERVED),
    ];
    special.sort_unstable_by_key(|(range, _)| range.start);
    let mut special = (special.into_iter())
        .filter(|(range, _)| !range.is_empty())
        .peekable();
    // All of them are apart.
    for count in 0.. {
        let next = match (ram.peek(), special.peek()) {
            (Some((first, _)), Some((other, _))) if first.start < other.start => ram.next(),
            (Some(_), None) => ram.next(),
            _ => special.next(),
        };
        let Some((range, kind)) = next else {
            return Ok(count);
        };
        let entry = E820Entry {
            base: range.start,
            bytes: range.bytes(),
            kind,
        };
        put(count, entry)?;
    }
    Err(Reason::HandoverMap)
}

#[cfg(test)]
mod tests {
    use super::{
        BLOB, BootPlan, E820_ACPI, E820_RAM, E820_RESERVED, OWN_REGION, PhysRange, TABLES, e820,
    };
    use crate::boot_plan::tests::{linux_boot_block, map, plan_for};
    use crate::memory_map::{MAX_ENTRIES, MemoryMap, tests::map_of};

    /// Start, end and kind of every entry.
    fn entries(map: MemoryMap<'_>) -> (BootPlan<'_>, Vec<(u64, u64, u32)>) {
        entries_for(0, map)
    }

    /// The same beside a low window.
    fn entries_for(
        low_window_bytes: u64,
        map: MemoryMap<'_>,
    ) -> (BootPlan<'_>, Vec<(u64, u64, u32)>) {
        let mut block = linux_boot_block();
        block.low_window_bytes = low_window_bytes;
        let plan = plan_for(&block, map, 1).unwrap();
        let mut list = Vec::new();
        let count = e820(&plan, |number, entry| {
            assert_eq!(number, list.len());
            list.push((entry.base, entry.base + entry.bytes, entry.kind));
            Ok(())
        });
        assert_eq!(count, Ok(list.len()));
        (plan, list)
    }

    /// Sorted, apart, and nothing of ours usable.
    fn check(plan: &BootPlan<'_>, list: &[(u64, u64, u32)]) {
        for pair in list.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{pair:x?}");
        }
        let ours = [
            plan.placement.windows[0],
            plan.placement.windows[1],
            plan.placement.storage,
            OWN_REGION,
            BLOB,
            TABLES,
        ];
        for (start, end, kind) in list {
            let range = PhysRange {
                start: *start,
                end: *end,
            };
            let overlap = ours.iter().any(|one| one.overlaps(&range));
            assert!(*kind != E820_RAM || !overlap, "{start:#x}..{end:#x}");
        }
    }

    #[test]
    fn what_is_ours_is_reserved_and_never_a_hole() {
        let (plan, list) = entries(map());
        check(&plan, &list);
        let want = [
            (0, 0xa_0000, E820_RAM),
            (0xa_0000, 0x10_0000, E820_RESERVED),
            (0x10_0000, 0x40_0000, E820_RAM),
            (0x40_0000, 0x90_0000, E820_RESERVED),
            (0x90_0000, 0x90_7000, E820_RAM),
            (0x90_7000, 0x90_8000, E820_RESERVED),
            (0x90_8000, 0x91_2000, E820_ACPI),
            (0x91_2000, 0x2000_0000, E820_RAM),
            (0xb000_0000, 0xc000_0000, E820_RESERVED),
            (0x1_0000_0000, 0x1_7be0_0000, E820_RAM),
            (0x1_7be0_0000, 0x1_7c00_0000, E820_RESERVED),
            (0x1_7c00_0000, 0x1_8000_0000, E820_RESERVED),
        ];
        assert_eq!(list, want);
    }

    #[test]
    fn w1_a_low_window_is_reserved() {
        let (plan, list) = entries_for(32 << 20, map());
        check(&plan, &list);
        let want = [
            (0x91_2000, 0x1e00_0000, E820_RAM),
            (0x1e00_0000, 0x2000_0000, E820_RESERVED),
        ];
        assert_eq!(list[7..9], want);
    }

    #[test]
    fn ram_that_a_pc_cannot_have_or_that_is_everywhere_is_handled() {
        // One entry through the video memory, up to the configuration space and beyond.
        let (plan, list) = entries(map_of(&[(0, 0xb_8000, 0)]));
        check(&plan, &list);
        assert!(list.contains(&(0xa_0000, 0x10_0000, E820_RESERVED)));
        assert!(!list.iter().any(|entry| entry.0 == 0xb000_0000));
        // As many entries as a map may have.
        let many: Vec<_> = [(0x400, 0x1_0000, 0)]
            .into_iter()
            .chain((1..MAX_ENTRIES as u64).map(|index| (0x2_0000 + index * 0x10, 8, 0)))
            .collect();
        let (plan, list) = entries(map_of(&many));
        check(&plan, &list);
        let ram = list.iter().filter(|entry| entry.2 == E820_RAM).count();
        assert_eq!(ram, MAX_ENTRIES + 1);
    }
}
