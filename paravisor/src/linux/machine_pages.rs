// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes what depends on the machine into the measured pages of a Linux payload.

use zerocopy::IntoBytes;

use crate::apic_ids::ApicIds;
use crate::boot_plan::BootPlan;
use crate::layout::{ACPI_MADT, ZERO_PAGE};
use crate::linux::boot_params::{E820_ENTRIES, E820_TABLE, E820Entry};
use crate::linux::e820::e820;
use crate::linux::madt::madt;
use crate::memory_map::MemoryMap;
use crate::termination::Reason;

/// Writes the memory map into the zero page and the table of the processors. `put` writes bytes
/// at a guest physical address; the guest does not run yet.
///
/// # Errors
/// The reason with which the boot has to end.
pub fn write(
    plan: &BootPlan,
    map: &MemoryMap,
    processors: ApicIds<'_>,
    put: impl Fn(u64, &[u8]) -> Result<(), Reason>,
) -> Result<(), Reason> {
    let field = |offset: usize| ZERO_PAGE + offset as u64;
    let count = e820(plan, map.ram(), |number, entry| {
        let offset = E820_TABLE + number * size_of::<E820Entry>();
        put(field(offset), entry.as_bytes())
    })?;
    put(field(E820_ENTRIES), &[count])?;
    madt(processors, ACPI_MADT, put)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::{ACPI_MADT, ZERO_PAGE, write};
    use crate::apic_ids::tests::apic_ids;
    use crate::boot_plan::{
        BootPlan,
        tests::{linux_boot_block, map},
    };

    #[test]
    fn the_pages_hold_map_and_processors() {
        let (map, pages) = (map(), RefCell::new(vec![0_u8; 0xe000]));
        let plan = BootPlan::new(&linux_boot_block(), &map, 1 << 20, 1).unwrap();
        let put = |gpa: u64, bytes: &[u8]| {
            let offset = usize::try_from(gpa - ZERO_PAGE).unwrap();
            pages.borrow_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
            Ok(())
        };
        write(&plan, &map, apic_ids(&[0, 2]), put).unwrap();
        let pages = pages.borrow();
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
