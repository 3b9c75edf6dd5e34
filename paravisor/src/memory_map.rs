// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory map that the VMM passes as an IGVM parameter (`IGVM_VHS_MEMORY_MAP_ENTRY`).
//!
//! It is not measured, so it is host input: invariant W1 wants every deviation from the format to end
//! the boot. An overlap, for instance, would let one page be RAM and window at once.

use igvm_defs::{IGVM_VHS_MEMORY_MAP_ENTRY, MemoryMapEntryType};
use zerocopy::FromBytes;

use crate::general_parameters::check_zero;
use crate::layout::{PAGE_BYTES, PageBytes};
use crate::range_list::PhysRange;
use crate::termination::Reason;

/// Most RAM entries of a map.
pub const MAX_ENTRIES: usize = 32;

/// The RAM entries of a checked memory map, as the VMM gave them (adjoining ones stay apart).
#[derive(Debug, Clone, Copy)]
pub struct MemoryMap {
    ram: [PhysRange; MAX_ENTRIES],
    count: usize,
}

impl MemoryMap {
    /// Parses and checks the parameter page.
    ///
    /// `address_limit` is the first address that is no guest physical address (the C-bit's value).
    ///
    /// # Errors
    /// One reason per way in which a map can be wrong.
    pub fn parse(page: &PageBytes, address_limit: u64) -> Result<Self, Reason> {
        let mut map = Self {
            ram: [PhysRange::default(); MAX_ENTRIES],
            count: 0,
        };
        let mut previous = PhysRange::default();
        let mut rest: &[u8] = page;
        // Ends with the page at the latest.
        loop {
            let (entry, behind) = IGVM_VHS_MEMORY_MAP_ENTRY::read_from_prefix(rest)
                .map_err(|_| Reason::MapUnterminated)?;
            if entry.number_of_pages == 0 {
                check_zero(rest)?;
                return if map.count == 0 {
                    Err(Reason::MapEmpty)
                } else {
                    Ok(map)
                };
            }
            rest = behind;
            let range = entry_range(&entry, address_limit)?;
            // Reserved entries are checked as well: they too must not lie over RAM.
            if range.start < previous.start {
                return Err(Reason::MapUnsorted);
            }
            if range.start < previous.end {
                return Err(Reason::MapOverlap);
            }
            previous = range;
            if is_ram(&entry)? {
                *map.ram.get_mut(map.count).ok_or(Reason::MapTooLong)? = range;
                map.count += 1;
            }
        }
    }

    /// The RAM entries by address.
    #[must_use]
    pub fn ram(&self) -> &[PhysRange] {
        self.ram.get(..self.count).unwrap_or(&[])
    }
}

/// The bytes of an entry, with both multiplications and the sum checked.
fn entry_range(entry: &IGVM_VHS_MEMORY_MAP_ENTRY, limit: u64) -> Result<PhysRange, Reason> {
    let start = entry.starting_gpa_page_number.checked_mul(PAGE_BYTES);
    let bytes = entry.number_of_pages.checked_mul(PAGE_BYTES);
    start
        .zip(bytes)
        .and_then(|(start, bytes)| PhysRange::new(start, bytes))
        .filter(|range| range.end <= limit)
        .ok_or(Reason::MapWrap)
}

/// Whether an entry is ordinary RAM. Persistent and VTL2-protectable memory is left alone.
fn is_ram(entry: &IGVM_VHS_MEMORY_MAP_ENTRY) -> Result<bool, Reason> {
    if entry.flags != 0 || entry.reserved != 0 {
        return Err(Reason::MapType);
    }
    match entry.entry_type {
        MemoryMapEntryType::MEMORY => Ok(true),
        MemoryMapEntryType::PLATFORM_RESERVED
        | MemoryMapEntryType::PERSISTENT
        | MemoryMapEntryType::VTL2_PROTECTABLE => Ok(false),
        _ => Err(Reason::MapType),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{IGVM_VHS_MEMORY_MAP_ENTRY, MemoryMap, MemoryMapEntryType, PhysRange, Reason};
    use zerocopy::IntoBytes;

    const LIMIT: u64 = 1 << 51;

    /// A parameter page with (first page, pages, type) entries and a terminator.
    pub(crate) fn page(entries: &[(u64, u64, u16)]) -> [u8; 4096] {
        let mut page = [0; 4096];
        for (index, (first, count, kind)) in entries.iter().enumerate() {
            let entry = IGVM_VHS_MEMORY_MAP_ENTRY {
                starting_gpa_page_number: *first,
                number_of_pages: *count,
                entry_type: MemoryMapEntryType(*kind),
                flags: 0,
                reserved: 0,
            };
            page[index * 24..][..24].copy_from_slice(entry.as_bytes());
        }
        page
    }

    fn reason(entries: &[(u64, u64, u16)]) -> Reason {
        MemoryMap::parse(&page(entries), LIMIT).unwrap_err()
    }

    #[test]
    fn ram_entries_are_kept_in_order() {
        let page = page(&[(0, 0xa0, 0), (0x100, 0x700, 0), (0x800, 0x100, 1)]);
        let map = MemoryMap::parse(&page, LIMIT).unwrap();
        let want = [
            PhysRange {
                start: 0,
                end: 0xa_0000,
            },
            PhysRange {
                start: 0x10_0000,
                end: 0x80_0000,
            },
        ];
        assert_eq!(map.ram(), want);
    }

    #[test]
    fn every_violation_has_its_own_reason() {
        assert_eq!(reason(&[]), Reason::MapEmpty);
        assert_eq!(reason(&[(0x100, 0x100, 1)]), Reason::MapEmpty);
        assert_eq!(
            reason(&[(0x100, 0x100, 0), (0, 0x10, 0)]),
            Reason::MapUnsorted
        );
        assert_eq!(
            reason(&[(0x100, 0x100, 0), (0x1ff, 0x10, 0)]),
            Reason::MapOverlap
        );
        assert_eq!(
            reason(&[(0x100, 0x100, 0), (0x1ff, 0x10, 1)]),
            Reason::MapOverlap
        );
        assert_eq!(reason(&[(0x100, 0x100, 9)]), Reason::MapType);
        assert_eq!(reason(&[(LIMIT / 4096 - 1, 2, 0)]), Reason::MapWrap);
        assert_eq!(reason(&[(1, u64::MAX / 4096, 0)]), Reason::MapWrap);
        assert_eq!(reason(&[(1, 1 << 60, 0)]), Reason::MapWrap);
        let many: Vec<_> = (0..33).map(|index| (index * 16, 1, 0)).collect();
        assert_eq!(reason(&many), Reason::MapTooLong);
        let endless: Vec<_> = (0..170).map(|index| (index * 16, 1, 1)).collect();
        assert_eq!(reason(&endless), Reason::MapUnterminated);
        let mut longer = page(&[(0x100, 0x100, 0), (0, 0, 0), (0x300, 0x100, 0)]);
        assert_eq!(
            MemoryMap::parse(&longer, LIMIT).unwrap_err(),
            Reason::ParameterTail
        );
        longer[48..].fill(0);
        assert!(MemoryMap::parse(&longer, LIMIT).is_ok());
        for byte in [24, 4095] {
            longer[byte] = 1;
            let tail = MemoryMap::parse(&longer, LIMIT).unwrap_err();
            assert_eq!(tail, Reason::ParameterTail, "{byte}");
            longer[byte] = 0;
        }
        let mut flagged = page(&[(0x100, 0x100, 0)]);
        flagged[18] = 1;
        assert_eq!(
            MemoryMap::parse(&flagged, LIMIT).unwrap_err(),
            Reason::MapType
        );
    }
}
