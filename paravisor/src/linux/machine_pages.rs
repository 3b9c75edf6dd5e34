// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes what depends on the machine into the measured pages of a Linux payload.

use zerocopy::IntoBytes;

use crate::apic_ids::ApicIds;
use crate::boot_plan::BootPlan;
use crate::layout::{ACPI_MADT, E820_EXTENSION, E820_EXTENSION_BYTES, SETUP_DATA, ZERO_PAGE};
use crate::linux::boot_params::{
    E820_ENTRIES, E820_MAX_ENTRIES, E820_TABLE, E820Entry, SETUP_E820_EXT, SetupData,
};
use crate::linux::e820::e820;
use crate::linux::madt::madt;
use crate::termination::Reason;

/// Entries that the pages behind the zero page have room for.
const MORE_ENTRIES: usize =
    (E820_EXTENSION_BYTES - size_of::<SetupData>()) / size_of::<E820Entry>();

/// Writes the memory map into the zero page, and into a node of its list what is longer, and the table of the processors.
/// `put` writes bytes at a guest physical address; the guest does not run yet.
///
/// # Errors
/// The reason with which the boot has to end.
pub fn write(
    plan: &BootPlan<'_>,
    processors: ApicIds<'_>,
    put: impl Fn(u64, &[u8]) -> Result<(), Reason>,
) -> Result<(), Reason> {
    let bytes = |entries: usize| entries * size_of::<E820Entry>();
    let extension = E820_EXTENSION + size_of::<SetupData>() as u64;
    let count = e820(plan, |number, entry| {
        let address = match number.checked_sub(E820_MAX_ENTRIES) {
            None => ZERO_PAGE + (E820_TABLE + bytes(number)) as u64,
            Some(number) if number < MORE_ENTRIES => extension + bytes(number) as u64,
            Some(_) => return Err(Reason::HandoverMap),
        };
        put(address, entry.as_bytes())
    })?;
    let in_zero_page = count.min(E820_MAX_ENTRIES);
    put(
        ZERO_PAGE + E820_ENTRIES as u64,
        &in_zero_page.to_le_bytes()[..1],
    )?;
    if count > in_zero_page {
        let bytes = bytes(count - in_zero_page);
        let node = SetupData {
            next: 0,
            kind: SETUP_E820_EXT,
            bytes: u32::try_from(bytes).map_err(|_| Reason::HandoverMap)?,
        };
        put(E820_EXTENSION, node.as_bytes())?;
        // The node with the blob's address has been the only one.
        put(SETUP_DATA, &E820_EXTENSION.to_le_bytes())?;
    }
    madt(processors, ACPI_MADT, put)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::{ACPI_MADT, E820_EXTENSION, SETUP_DATA, ZERO_PAGE, write};
    use crate::apic_ids::tests::apic_ids;
    use crate::boot_plan::tests::{linux_boot_block, map, plan_for};
    use crate::memory_map::{MAX_ENTRIES, MemoryMap, tests::map_of};

    /// The bytes of all pages for this map.
    fn pages(map: MemoryMap<'_>) -> Vec<u8> {
        let pages = RefCell::new(vec![0_u8; 0x12000]);
        let plan = plan_for(&linux_boot_block(), map, 1).unwrap();
        let put = |gpa: u64, bytes: &[u8]| {
            let offset = usize::try_from(gpa - ZERO_PAGE).unwrap();
            pages.borrow_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
            Ok(())
        };
        write(&plan, apic_ids(&[0, 2]), put).unwrap();
        pages.into_inner()
    }

    fn u64_at(bytes: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    }

    #[test]
    fn a_map_longer_than_the_zero_page_is_continued_in_a_node_of_its_list() {
        let offset = |gpa: u64| usize::try_from(gpa - ZERO_PAGE).unwrap();
        for more in [118, 119, 120, MAX_ENTRIES as u64 - 1] {
            let many: Vec<_> = [(0x400, 0x1_0000, 0)]
                .into_iter()
                .chain((0..more).map(|index| (0x2_0000 + index * 0x10, 8, 0)))
                .collect();
            let pages = pages(map_of(&many));
            let node = offset(E820_EXTENSION);
            // Two pieces of the first entry, five that are ours, the video memory and the configuration space.
            let count = usize::try_from(more).unwrap() + 9;
            let behind = count.saturating_sub(128);
            assert_eq!(usize::from(pages[0x1e8]), count - behind, "{more}");
            let next = if behind == 0 { 0 } else { E820_EXTENSION };
            assert_eq!(u64_at(&pages, offset(SETUP_DATA)), next);
            let length = u32::try_from(behind * 20).unwrap();
            let kind = u32::from(behind != 0);
            assert_eq!(pages[node..node + 8], [0; 8], "the last one");
            assert_eq!(pages[node + 8..node + 12], kind.to_le_bytes());
            assert_eq!(pages[node + 12..node + 16], length.to_le_bytes());
            // Sorted from the zero page on into the node, and apart.
            let first = (0..count - behind).map(|number| 0x2d0 + number * 20);
            let others = (0..behind).map(|number| node + 16 + number * 20);
            let mut end = 0;
            for entry in first.chain(others) {
                let base = u64_at(&pages, entry);
                assert!(base >= end, "{base:#x}");
                end = base + u64_at(&pages, entry + 8);
            }
            let last = node + 16 + behind * 20;
            assert!(
                pages[last..offset(crate::layout::CC_BLOB)]
                    .iter()
                    .all(|byte| *byte == 0)
            );
        }
    }

    #[test]
    fn the_pages_hold_map_and_processors() {
        let pages = pages(map());
        assert_eq!(pages[0x1e8], 12, "e820_entries");
        assert_eq!(pages[0x2d0..0x2d8], [0; 8]);
        assert_eq!(pages[0x2d8..0x2e0], 0xa_0000_u64.to_le_bytes());
        assert_eq!(pages[0x2e0..0x2e4], 1_u32.to_le_bytes());
        let last = 0x2d0 + 11 * 20;
        assert_eq!(pages[last..last + 8], 0x1_7c00_0000_u64.to_le_bytes());
        assert_eq!(pages[last + 16..last + 20], 2_u32.to_le_bytes());
        let behind = 0x2d0 + 12 * 20;
        assert!(pages[behind..0x1000].iter().all(|byte| *byte == 0));
        let madt = usize::try_from(ACPI_MADT - ZERO_PAGE).unwrap();
        assert_eq!(&pages[madt..madt + 4], b"APIC");
    }
}
