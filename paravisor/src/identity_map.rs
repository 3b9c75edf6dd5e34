// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page tables of VMPL0: every mapped address translates to itself.
//!
//! Private pages carry the C-bit, whose position is known at run time only. What is not mapped here
//! cannot be touched by mistake: the pool window above all (invariant W1). Accessed and dirty bits
//! are preset, so that the processor never writes to the tables.
//!
//! Source: APM volume 2, 5.3 (long-mode page translation) and 15.34.5 (the C-bit).

use crate::layout::{LARGE_PAGE_BYTES, PAGE_BYTES};
use crate::range_list::PhysRange;

/// Bytes of a page that is mapped by an entry of the page directory pointer table.
const HUGE_PAGE_BYTES: u64 = 1 << 30;
/// Bytes that one entry of the root maps.
const TOP_BYTES: u64 = 1 << 39;
/// Page sizes by level of the table that holds the leaf: 0 is the page table.
const LEAF_BYTES: [u64; 3] = [PAGE_BYTES, LARGE_PAGE_BYTES, HUGE_PAGE_BYTES];
/// Level of the root, the PML4.
const ROOT_LEVEL: usize = 3;
/// First address that one PML4 cannot map to itself: the lower canonical half ends.
const ADDRESS_LIMIT: u64 = 1 << 47;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// Bits of an entry that hold an address (or the C-bit).
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Tables that ranges of memory, sorted and apart, need besides the root: one for each 512 GiB, 1 GiB and 2 MiB that
/// something begins or ends in, and for the first kind also what lies between. Each cut that is made later, inside of a range,
/// adds two of the smaller kinds at the most.
#[must_use]
pub fn scattered_tables(ranges: impl Iterator<Item = PhysRange>) -> u64 {
    let mut count = 0_u64;
    // First number that has no table yet, by the size that a table is for.
    let mut from = [0; 3];
    for range in ranges.filter(|range| !range.is_empty()) {
        for (bytes, from) in [LARGE_PAGE_BYTES, HUGE_PAGE_BYTES, TOP_BYTES]
            .into_iter()
            .zip(&mut from)
        {
            let (first, last) = (range.start / bytes, (range.end - 1) / bytes);
            let mut add = |first: u64, last: u64| {
                let first = first.max(*from);
                if first <= last {
                    count = count.saturating_add(last - first + 1);
                    *from = last + 1;
                }
            };
            if bytes == TOP_BYTES {
                add(first, last);
                continue;
            }
            if !range.start.is_multiple_of(bytes) {
                add(first, first);
            }
            if !range.end.is_multiple_of(bytes) {
                add(last, last);
            }
        }
    }
    count
}

/// One page of tables.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(4096))]
pub struct Table(pub [u64; 512]);

impl Table {
    /// A table that maps nothing.
    pub const EMPTY: Self = Self([0; 512]);
}

/// What a mapping allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Code: read and execute.
    Execute,
    /// Constants: read.
    Read,
    /// Private data: read and write.
    Write,
    /// Data shared with the host: read and write, C-bit clear.
    SharedWrite,
}

/// Why a range cannot be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapError {
    /// An end is not page aligned, or beyond what the tables can map.
    Range,
    /// A part of the range is mapped already.
    Occupied,
    /// No table is left.
    NoTable,
}

/// Page tables in an array of pages.
#[derive(Debug)]
pub struct IdentityMap<'a> {
    tables: &'a mut [Table],
    /// Physical address of the first table, the root.
    base: u64,
    used: usize,
    /// The C-bit as a mask.
    c_bit: u64,
}

impl<'a> IdentityMap<'a> {
    /// Empty tables in `tables`, which lie at physical address `base`.
    ///
    /// # Errors
    /// [`MapError::NoTable`] when there is no table at all.
    pub fn new(tables: &'a mut [Table], base: u64, c_bit: u64) -> Result<Self, MapError> {
        *tables.first_mut().ok_or(MapError::NoTable)? = Table::EMPTY;
        Ok(Self {
            tables,
            base,
            used: 1,
            c_bit,
        })
    }

    /// Tables that are built, to look at.
    #[cfg(test)]
    pub(crate) fn built(tables: &'a mut [Table], base: u64, c_bit: u64) -> Self {
        Self {
            used: tables.len(),
            tables,
            base,
            c_bit,
        }
    }

    /// Value for CR3.
    #[must_use]
    pub const fn root(&self) -> u64 {
        self.base | self.c_bit
    }

    /// Maps a range with the largest pages that fit.
    ///
    /// # Errors
    /// See [`MapError`]; pages before the failing one stay mapped.
    pub fn map(&mut self, range: PhysRange, access: Access) -> Result<(), MapError> {
        if !range.start.is_multiple_of(PAGE_BYTES)
            || !range.end.is_multiple_of(PAGE_BYTES)
            || range.end > ADDRESS_LIMIT
        {
            return Err(MapError::Range);
        }
        let mut next = range.start;
        while next < range.end {
            let room = range.end - next;
            let fits = |bytes: &u64| next.is_multiple_of(*bytes) && *bytes <= room;
            let level = LEAF_BYTES.iter().rposition(fits).ok_or(MapError::Range)?;
            self.map_page(next, level, access)?;
            next += LEAF_BYTES.get(level).ok_or(MapError::Range)?;
        }
        Ok(())
    }

    /// The entry that maps `address`, with the bytes it maps; `None` if nothing does.
    #[must_use]
    pub fn lookup(&self, address: u64) -> Option<(u64, u64)> {
        let (entry, bytes) = self.walk(address)?;
        (entry & PRESENT != 0).then_some((entry, bytes))
    }

    /// Whether any page of `range` is mapped. A walk that leaves our tables counts as one.
    #[must_use]
    pub fn maps_any(&self, range: PhysRange) -> bool {
        let mut next = range.start;
        while next < range.end {
            match self.walk(next) {
                Some((entry, bytes)) if entry & PRESENT == 0 => next = (next | (bytes - 1)) + 1,
                _ => return true,
            }
        }
        false
    }

    /// The entry at which the walk for `address` ends, present or not, with the bytes that it covers.
    fn walk(&self, address: u64) -> Option<(u64, u64)> {
        let mut table = 0;
        for level in (0..=ROOT_LEVEL).rev() {
            let entry = *self.tables.get(table)?.0.get(index(address, level))?;
            if entry & PRESENT == 0 || level == 0 || entry & PAGE_SIZE != 0 {
                return Some((entry, PAGE_BYTES << (9 * level)));
            }
            table = self.table_of(entry)?;
        }
        None
    }

    /// Writes one leaf, adding tables on the way.
    fn map_page(&mut self, address: u64, leaf: usize, access: Access) -> Result<(), MapError> {
        let mut table = 0;
        for level in (leaf + 1..=ROOT_LEVEL).rev() {
            let entry = *self.entry(table, address, level)?;
            table = if entry & PRESENT == 0 {
                let (number, pointer) = self.add_table()?;
                *self.entry(table, address, level)? = pointer;
                number
            } else if entry & PAGE_SIZE != 0 {
                return Err(MapError::Occupied);
            } else {
                self.table_of(entry).ok_or(MapError::NoTable)?
            };
        }
        let bits = self.leaf_bits(leaf, access);
        let entry = self.entry(table, address, leaf)?;
        if *entry & PRESENT != 0 {
            return Err(MapError::Occupied);
        }
        *entry = address | bits;
        Ok(())
    }

    fn leaf_bits(&self, level: usize, access: Access) -> u64 {
        let size = if level == 0 { 0 } else { PAGE_SIZE };
        let rights = match access {
            Access::Execute => self.c_bit,
            Access::Read => self.c_bit | NO_EXECUTE,
            Access::Write => self.c_bit | NO_EXECUTE | WRITE,
            Access::SharedWrite => NO_EXECUTE | WRITE,
        };
        PRESENT | ACCESSED | DIRTY | size | rights
    }

    fn entry(&mut self, table: usize, address: u64, level: usize) -> Result<&mut u64, MapError> {
        let table = self.tables.get_mut(table).ok_or(MapError::NoTable)?;
        table
            .0
            .get_mut(index(address, level))
            .ok_or(MapError::NoTable)
    }

    /// Takes an empty table; gives its number and the entry that points to it.
    fn add_table(&mut self) -> Result<(usize, u64), MapError> {
        let number = self.used;
        *self.tables.get_mut(number).ok_or(MapError::NoTable)? = Table::EMPTY;
        self.used += 1;
        let address = self.base + number as u64 * PAGE_BYTES;
        Ok((number, address | PRESENT | WRITE | ACCESSED | self.c_bit))
    }

    /// Number of the table an entry points to.
    fn table_of(&self, entry: u64) -> Option<usize> {
        let address = entry & ADDRESS & !self.c_bit;
        usize::try_from(address.checked_sub(self.base)? / PAGE_BYTES).ok()
    }
}

/// Index of `address` in a table of `level`.
fn index(address: u64, level: usize) -> usize {
    usize::try_from(address >> (12 + 9 * level) & 511).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Access, IdentityMap, MapError, NO_EXECUTE, PRESENT, PhysRange, Table, WRITE};

    const C_BIT: u64 = 1 << 51;
    const BASE: u64 = 0x50_0000;

    const fn range(start: u64, end: u64) -> PhysRange {
        PhysRange { start, end }
    }

    #[test]
    fn pages_are_as_large_as_fits_and_nothing_else_is_mapped() {
        let mut tables = [Table::EMPTY; 16];
        let mut map = IdentityMap::new(&mut tables, BASE, C_BIT).unwrap();
        map.map(range(0x9_f000, 0xa_0000), Access::Write).unwrap();
        map.map(range(0x10_0000, 0xc020_0000), Access::Write)
            .unwrap();
        map.map(range(1 << 32, 3 << 31), Access::Write).unwrap();
        for (address, bytes) in [
            (0x9_f000, Some(4096)),
            (0xa_0000, None),
            (0x1f_ffff, Some(4096)),
            (0x20_0000, Some(2 << 20)),
            (0x4000_0000, Some(1 << 30)),
            (0xc01f_ffff, Some(2 << 20)),
            (0xc020_0000, None),
            (1 << 32, Some(1 << 30)),
            (3 << 31, None),
            (1 << 46, None),
        ] {
            let found = map.lookup(address);
            assert_eq!(found.map(|(_, bytes)| bytes), bytes, "{address:#x}");
            if let Some((entry, bytes)) = found {
                assert_eq!(entry & 0x7_ffff_ffff_f000, address & !(bytes - 1));
                assert_eq!(entry & C_BIT, C_BIT);
            }
        }
        assert_eq!(map.root(), BASE | C_BIT);
    }

    #[test]
    fn one_mapped_page_of_a_range_is_found() {
        let mut tables = [Table::EMPTY; 16];
        let mut map = IdentityMap::new(&mut tables, BASE, C_BIT).unwrap();
        map.map(range(0x4020_1000, 0x4020_2000), Access::Write)
            .unwrap();
        for (start, end, found) in [
            (0, 1 << 40, true),
            (0x4020_0000, 0x4040_0000, true),
            (0x4020_1000, 0x4020_2000, true),
            (0x4020_0000, 0x4020_1000, false),
            (0x4020_2000, 1 << 40, false),
            (0, 0x4020_1000, false),
            (0x4020_1000, 0x4020_1000, false),
        ] {
            assert_eq!(
                map.maps_any(range(start, end)),
                found,
                "{start:#x}..{end:#x}"
            );
        }
    }

    #[test]
    fn no_mapping_is_writable_and_executable() {
        let mut tables = [Table::EMPTY; 4];
        let mut map = IdentityMap::new(&mut tables, BASE, C_BIT).unwrap();
        for (page, access) in [
            Access::Execute,
            Access::Read,
            Access::Write,
            Access::SharedWrite,
        ]
        .iter()
        .enumerate()
        {
            let start = page as u64 * 4096;
            map.map(range(start, start + 4096), *access).unwrap();
        }
        let bits = |page: u64| {
            let (entry, _) = map.lookup(page * 4096).unwrap();
            (
                entry & WRITE != 0,
                entry & NO_EXECUTE == 0,
                entry & C_BIT != 0,
            )
        };
        assert_eq!(bits(0), (false, true, true));
        assert_eq!(bits(1), (false, false, true));
        assert_eq!(bits(2), (true, false, true));
        assert_eq!(bits(3), (true, false, false));
        assert_eq!(
            map.map(range(0, 4096), Access::Write),
            Err(MapError::Occupied)
        );
    }

    #[test]
    fn limits_are_errors() {
        let mut tables = [Table::EMPTY; 3];
        let mut map = IdentityMap::new(&mut tables, BASE, C_BIT).unwrap();
        assert_eq!(map.map(range(1, 4096), Access::Read), Err(MapError::Range));
        assert_eq!(
            map.map(range(0, 1 << 48), Access::Read),
            Err(MapError::Range)
        );
        map.map(range(0, 2 << 20), Access::Read).unwrap();
        assert_eq!(
            map.map(range(0, 4096), Access::Read),
            Err(MapError::Occupied)
        );
        assert_eq!(
            map.map(range(2 << 20, (2 << 20) + 4096), Access::Read),
            Err(MapError::NoTable)
        );
        assert_eq!(map.lookup(4 << 20), None);
        assert_eq!(tables[0].0[0] & PRESENT, PRESENT);
    }
}
