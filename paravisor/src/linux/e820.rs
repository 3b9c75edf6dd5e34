// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory map of a Linux guest.
//!
//! Whatever is ours stays in the map as *reserved*: the kernel takes a hole for room in which it may
//! place devices. Usable RAM is all validated and granted, so everything else must not be called
//! usable.

use crate::boot_plan::BootPlan;
use crate::layout::{ACPI_TABLES, CC_BLOB, LINUX_PAGES_END};
use crate::linux::boot_params::{E820_ACPI, E820_MAX_ENTRIES, E820_RAM, E820_RESERVED, E820Entry};
use crate::placement::{LEGACY_RANGE, OWN_REGION, Placement};
use crate::range_list::{ListFull, PhysRange, RangeList};
use crate::termination::Reason;

/// PCI configuration space of the machine (ECAM).
const PCI_CONFIGURATION: PhysRange = PhysRange {
    start: 0xb000_0000,
    end: 0xc000_0000,
};
/// The confidential-computing blob. Zero page, command line and start data before it are RAM: the
/// kernel copies the first two and keeps what it needs of the third.
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
/// [`Reason::HandoverMap`] when the zero page has too few entries; what `put` returns.
pub fn e820(
    plan: &BootPlan,
    ram: &[PhysRange],
    mut put: impl FnMut(usize, E820Entry) -> Result<(), Reason>,
) -> Result<u8, Reason> {
    let full = |_: ListFull| Reason::HandoverMap;
    let Placement { window, storage } = plan.placement;
    let mut usable: RangeList = plan.tracked;
    for hole in [LEGACY_RANGE, OWN_REGION, BLOB, TABLES, storage] {
        usable = usable.without(&hole).map_err(full)?;
    }
    let is_ram = ram.iter().any(|entry| entry.overlaps(&PCI_CONFIGURATION));
    let configuration = if is_ram {
        PhysRange::default()
    } else {
        PCI_CONFIGURATION
    };
    let special = [
        (LEGACY_RANGE, E820_RESERVED),
        (OWN_REGION, E820_RESERVED),
        (BLOB, E820_RESERVED),
        (TABLES, E820_ACPI),
        (storage, E820_RESERVED),
        (window, E820_RESERVED),
        (configuration, E820_RESERVED),
    ];
    // All of them are apart, so the next one is the lowest that begins where the last one ended or
    // behind.
    let (mut from, mut count) = (0, 0);
    loop {
        let ram = usable.as_slice().iter().map(|range| (*range, E820_RAM));
        let next = ram
            .chain(special)
            .filter(|(range, _)| range.start >= from && !range.is_empty())
            .min_by_key(|(range, _)| range.start);
        let Some((range, kind)) = next else {
            return u8::try_from(count).map_err(|_| Reason::HandoverMap);
        };
        if count == E820_MAX_ENTRIES {
            return Err(Reason::HandoverMap);
        }
        let entry = E820Entry {
            base: range.start,
            bytes: range.bytes(),
            kind,
        };
        put(count, entry)?;
        count += 1;
        from = range.end;
    }
}

#[cfg(test)]
mod tests {
    use super::{
        BLOB, BootPlan, E820_ACPI, E820_RAM, E820_RESERVED, OWN_REGION, PhysRange, TABLES, e820,
    };
    use crate::boot_plan::tests::{linux_boot_block, map};
    use crate::memory_map::{MemoryMap, tests::page};

    /// Start, end and kind of every entry.
    fn entries(map: &MemoryMap) -> (BootPlan, Vec<(u64, u64, u32)>) {
        let plan = BootPlan::new(&linux_boot_block(), map, 1 << 20, 1).unwrap();
        let mut list = Vec::new();
        let count = e820(&plan, map.ram(), |number, entry| {
            assert_eq!(number, list.len());
            list.push((entry.base, entry.base + entry.bytes, entry.kind));
            Ok(())
        });
        assert_eq!(usize::from(count.unwrap()), list.len());
        (plan, list)
    }

    /// Sorted, apart, and nothing of ours usable.
    fn check(plan: &BootPlan, list: &[(u64, u64, u32)]) {
        for pair in list.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{pair:x?}");
        }
        let ours = [
            plan.placement.window,
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
        let (plan, list) = entries(&map());
        check(&plan, &list);
        let want = [
            (0, 0xa_0000, E820_RAM),
            (0xa_0000, 0x10_0000, E820_RESERVED),
            (0x10_0000, 0x40_0000, E820_RAM),
            (0x40_0000, 0x90_0000, E820_RESERVED),
            (0x90_0000, 0x90_3000, E820_RAM),
            (0x90_3000, 0x90_4000, E820_RESERVED),
            (0x90_4000, 0x90_e000, E820_ACPI),
            (0x90_e000, 0x2000_0000, E820_RAM),
            (0xb000_0000, 0xc000_0000, E820_RESERVED),
            (0x1_0000_0000, 0x1_7be0_0000, E820_RAM),
            (0x1_7be0_0000, 0x1_7c00_0000, E820_RESERVED),
            (0x1_7c00_0000, 0x1_8000_0000, E820_RESERVED),
        ];
        assert_eq!(list, want);
    }

    #[test]
    fn ram_that_a_pc_cannot_have_or_that_is_everywhere_is_handled() {
        // One entry through the video memory, up to the configuration space and beyond.
        let all = MemoryMap::parse(&page(&[(0, 0xb_8000, 0)]), 1 << 51).unwrap();
        let (plan, list) = entries(&all);
        check(&plan, &list);
        assert!(list.contains(&(0xa_0000, 0x10_0000, E820_RESERVED)));
        assert!(!list.iter().any(|entry| entry.0 == 0xb000_0000));
        // As many entries as a map may have.
        let many: Vec<_> = [(0x400, 0x1_0000, 0)]
            .into_iter()
            .chain((0..31).map(|index| (0x2_0000 + index * 0x10, 8, 0)))
            .collect();
        let (plan, list) = entries(&MemoryMap::parse(&page(&many), 1 << 51).unwrap());
        check(&plan, &list);
        assert_eq!(list.iter().filter(|entry| entry.2 == E820_RAM).count(), 33);
    }
}
