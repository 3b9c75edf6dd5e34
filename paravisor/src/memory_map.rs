// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory map that the VMM passes as an IGVM parameter (`IGVM_VHS_MEMORY_MAP_ENTRY`).
//!
//! It is not measured, so it is host input: invariant W1 wants every deviation from the format to end
//! the boot. An overlap, for instance, would let one page be RAM and window at once.

use igvm_defs::{IGVM_VHS_MEMORY_MAP_ENTRY, MemoryMapEntryType};
use zerocopy::FromBytes;

use crate::general_parameters::check_zero;
use crate::layout::{MEMORY_MAP_BYTES, PAGE_BYTES};
use crate::range_list::{PhysRange, joined};
use crate::termination::Reason;

/// Bytes of an entry.
const ENTRY_BYTES: usize = size_of::<IGVM_VHS_MEMORY_MAP_ENTRY>();
/// Most entries of a map: as many as the parameter area has room for in front of the one that ends the list.
pub const MAX_ENTRIES: usize = MEMORY_MAP_BYTES / ENTRY_BYTES - 1;
const _: () = assert!(MAX_ENTRIES >= 512);

/// A checked memory map: the VMM's list itself, which lies in launched pages that nobody can write to.
#[derive(Debug, Clone, Copy)]
pub struct MemoryMap<'a> {
    /// The entries without the one that ends the list.
    entries: &'a [[u8; ENTRY_BYTES]],
}

impl<'a> MemoryMap<'a> {
    /// Parses and checks the parameter area.
    ///
    /// `address_limit` is the first address that is no guest physical address (the C-bit's value).
    ///
    /// # Errors
    /// One reason per way in which a map can be wrong.
    pub fn parse(area: &'a [u8], address_limit: u64) -> Result<Self, Reason> {
        let (list, _) = area.as_chunks();
        let mut previous = PhysRange::default();
        let mut has_ram = false;
        for (number, bytes) in list.iter().enumerate() {
            let entry = IGVM_VHS_MEMORY_MAP_ENTRY::read_from_bytes(bytes)
                .map_err(|_| Reason::MapUnterminated)?;
            if entry.number_of_pages == 0 {
                check_zero(area.get(number * ENTRY_BYTES..).unwrap_or(area))?;
                let entries = list.get(..number).filter(|_| has_ram);
                return Ok(Self {
                    entries: entries.ok_or(Reason::MapEmpty)?,
                });
            }
            let range = entry_range(&entry, address_limit)?;
            // Reserved entries are checked as well: they too must not lie over RAM.
            if range.start < previous.start {
                return Err(Reason::MapUnsorted);
            }
            if range.start < previous.end {
                return Err(Reason::MapOverlap);
            }
            previous = range;
            has_ram |= is_ram(&entry)?;
        }
        Err(Reason::MapUnterminated)
    }

    /// The RAM by address, adjoining entries joined.
    pub fn ram(self) -> impl Iterator<Item = PhysRange> + Clone + use<'a> {
        joined(
            self.entries
                .iter()
                .map(read)
                .filter_map(|(range, is_ram)| is_ram.then_some(range)),
        )
    }

    /// Whether all of `range` is RAM.
    #[must_use]
    pub fn is_ram(&self, range: &PhysRange) -> bool {
        let from = (self.entries).partition_point(|entry| read(entry).0.end <= range.start);
        let mut covered_to = range.start;
        // Each round takes an entry, and no entry is empty.
        for (entry, is_ram) in self.entries.iter().skip(from).map(read) {
            if covered_to >= range.end || !is_ram || entry.start > covered_to {
                break;
            }
            covered_to = entry.end;
        }
        covered_to >= range.end
    }
}

/// The bytes of an entry that was checked, and whether it is RAM.
fn read(bytes: &[u8; ENTRY_BYTES]) -> (PhysRange, bool) {
    let Ok(entry) = IGVM_VHS_MEMORY_MAP_ENTRY::read_from_bytes(bytes) else {
        return (PhysRange::default(), false);
    };
    let start = entry.starting_gpa_page_number.wrapping_mul(PAGE_BYTES);
    let bytes = entry.number_of_pages.wrapping_mul(PAGE_BYTES);
    let end = start.wrapping_add(bytes);
    let is_ram = entry.entry_type == MemoryMapEntryType::MEMORY;
    (PhysRange { start, end }, is_ram)
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
    use super::{
        IGVM_VHS_MEMORY_MAP_ENTRY, MAX_ENTRIES, MEMORY_MAP_BYTES, MemoryMap, MemoryMapEntryType,
        PhysRange, Reason,
    };
    use zerocopy::IntoBytes;

    const LIMIT: u64 = 1 << 51;
    /// What the parameter area holds.
    type Area = [u8; MEMORY_MAP_BYTES];
    /// First page, pages, type.
    type Entry = (u64, u64, u16);

    /// A parameter area with these entries and a terminator, if there is room.
    pub(crate) fn area(entries: &[Entry]) -> Area {
        let mut area = [0; MEMORY_MAP_BYTES];
        for (index, (first, count, kind)) in entries.iter().enumerate() {
            let entry = IGVM_VHS_MEMORY_MAP_ENTRY {
                starting_gpa_page_number: *first,
                number_of_pages: *count,
                entry_type: MemoryMapEntryType(*kind),
                flags: 0,
                reserved: 0,
            };
            area[index * 24..][..24].copy_from_slice(entry.as_bytes());
        }
        area
    }

    /// The map of these entries.
    pub(crate) fn map_of(entries: &[Entry]) -> MemoryMap<'static> {
        MemoryMap::parse(Box::leak(Box::new(area(entries))), LIMIT).unwrap()
    }

    fn reason(entries: &[Entry]) -> Reason {
        MemoryMap::parse(&area(entries), LIMIT).unwrap_err()
    }

    fn pages(first: u64, count: u64) -> PhysRange {
        PhysRange::new(first << 12, count << 12).unwrap()
    }

    #[test]
    fn ram_is_kept_in_order_and_adjoining_entries_are_one() {
        let map = map_of(&[
            (0, 0xa0, 0),
            (0x100, 0x600, 0),
            (0x700, 0x100, 0),
            (0x800, 0x100, 1),
            (0x900, 1, 0),
        ]);
        let ram: Vec<_> = map.ram().collect();
        assert_eq!(ram, [pages(0, 0xa0), pages(0x100, 0x700), pages(0x900, 1)]);
        assert!(map.is_ram(&pages(0x6ff, 2)), "over the seam");
        assert!(!map.is_ram(&pages(0x7ff, 2)), "into what is reserved");
        assert!(!map.is_ram(&pages(0x9f, 2)), "into a hole");
        assert!(map.is_ram(&pages(0x900, 1)) && !map.is_ram(&pages(0x901, 1)));
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
        let mut longer = area(&[(0x100, 0x100, 0), (0, 0, 0), (0x300, 0x100, 0)]);
        assert_eq!(
            MemoryMap::parse(&longer, LIMIT).unwrap_err(),
            Reason::ParameterTail,
            "an entry of no pages between others"
        );
        longer[48..].fill(0);
        assert!(MemoryMap::parse(&longer, LIMIT).is_ok());
        for byte in [24, 4095, 4096, MEMORY_MAP_BYTES - 1] {
            longer[byte] = 1;
            let tail = MemoryMap::parse(&longer, LIMIT).unwrap_err();
            assert_eq!(tail, Reason::ParameterTail, "{byte}");
            longer[byte] = 0;
        }
        let mut flagged = area(&[(0x100, 0x100, 0)]);
        flagged[18] = 1;
        assert_eq!(
            MemoryMap::parse(&flagged, LIMIT).unwrap_err(),
            Reason::MapType
        );
    }

    #[test]
    fn as_many_entries_as_the_area_has_room_for() {
        for kind in [0, 1] {
            let entry = |index| (index * 3, 2, if index == 0 { 0 } else { kind });
            let count = u64::try_from(MAX_ENTRIES).unwrap();
            let most: Vec<_> = (0..count).map(entry).collect();
            let ram = map_of(&most).ram().count();
            assert_eq!(ram, if kind == 0 { MAX_ENTRIES } else { 1 });
            let more: Vec<_> = (0..=count).map(entry).collect();
            assert_eq!(reason(&more), Reason::MapUnterminated, "nothing ends it");
        }
    }

    #[test]
    fn a_page_is_ram_if_one_range_of_ram_holds_it() {
        // Gaps of 0 to 2 pages, entries of 1 to 4, of both types.
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 33) % below
        };
        for entries in [1, 2, 40, MAX_ENTRIES, MAX_ENTRIES] {
            let mut at = 0;
            let mut list = vec![(0, 1, 0)];
            for _ in 1..entries {
                at += list[list.len() - 1].1 + random(3);
                list.push((at, 1 + random(4), u16::from(random(4) == 0)));
            }
            let map = map_of(&list);
            for first in 0..3000 {
                let range = pages(first, 1 + random(9));
                let whole = map.ram().any(|ram| ram.contains(&range));
                assert_eq!(map.is_ram(&range), whole, "{range:?} of {list:?}");
            }
        }
    }
}
