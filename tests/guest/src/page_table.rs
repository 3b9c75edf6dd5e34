// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identity page tables: private RAM with the C-bit, the pool window without it.
//!
//! The window is mapped once and whole, write-back, with 2 MiB pages: growing and shrinking change
//! no entry. It appears nowhere with the C-bit set, since such an access could only fault.

use snp::address::{LARGE_PAGE_SIZE, PAGE_SIZE};

use crate::arena::Range;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
// Set from the start: the processor need not write to the tables.
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// Bits of an entry that can be an address; the C-bit lies among them.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Page-table levels, PML4 to PT.
const LEVELS: u32 = 4;

/// Memory that page tables are built in.
pub trait TableMemory {
    /// A new zeroed page: its physical address.
    fn new_table(&mut self) -> Option<u64>;
    /// Entry `index` (below 512) of the table at `table`.
    fn read(&self, table: u64, index: usize) -> u64;
    /// Sets an entry.
    fn write(&mut self, table: u64, index: usize, entry: u64);
}

/// What a mapping allows, and whom the memory belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Writable.
    pub write: bool,
    /// Executable.
    pub execute: bool,
    /// The C-bit is clear: the memory is shared with the host.
    pub shared: bool,
}

impl Access {
    /// Private data.
    pub const DATA: Self = Self {
        write: true,
        execute: false,
        shared: false,
    };
    /// Private constants.
    pub const CONSTANTS: Self = Self {
        write: false,
        execute: false,
        shared: false,
    };
    /// Private code.
    pub const CODE: Self = Self {
        write: false,
        execute: true,
        shared: false,
    };
    /// Memory shared with the host: never executed.
    pub const SHARED: Self = Self {
        write: true,
        execute: false,
        shared: true,
    };
}

/// Why a range was not mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapError {
    /// No page for a table.
    OutOfMemory,
    /// The range is not made of whole pages.
    Misaligned,
    /// Part of the range is mapped already.
    AlreadyMapped,
}

/// A tree of page tables under construction.
#[derive(Debug)]
pub struct PageTables<M> {
    memory: M,
    root: u64,
    c_bit_mask: u64,
}

impl<M: TableMemory> PageTables<M> {
    /// An empty address space.
    ///
    /// # Errors
    /// [`MapError::OutOfMemory`].
    pub fn new(mut memory: M, c_bit_mask: u64) -> Result<Self, MapError> {
        let root = memory.new_table().ok_or(MapError::OutOfMemory)?;
        Ok(Self {
            memory,
            root,
            c_bit_mask,
        })
    }

    /// The value for CR3: walks of the tables are private.
    #[must_use]
    pub const fn cr3(&self) -> u64 {
        self.root | self.c_bit_mask
    }

    /// Maps `range` to itself, with 2 MiB pages where it holds whole ones.
    ///
    /// # Errors
    /// [`MapError`]; part of the range may be mapped then.
    pub fn map(&mut self, range: Range, access: Access) -> Result<(), MapError> {
        if !range.start.is_multiple_of(PAGE_SIZE) || !range.end.is_multiple_of(PAGE_SIZE) {
            return Err(MapError::Misaligned);
        }
        let mut address = range.start;
        while address < range.end {
            let large =
                address.is_multiple_of(LARGE_PAGE_SIZE) && range.end - address >= LARGE_PAGE_SIZE;
            self.map_page(address, access, large)?;
            address += if large { LARGE_PAGE_SIZE } else { PAGE_SIZE };
        }
        Ok(())
    }

    fn map_page(&mut self, address: u64, access: Access, large: bool) -> Result<(), MapError> {
        let leaf_level = if large { 1 } else { 0 };
        let mut table = self.root;
        let mut level = LEVELS - 1;
        while level > leaf_level {
            table = self.descend(table, index(address, level))?;
            level -= 1;
        }
        let slot = index(address, leaf_level);
        if self.memory.read(table, slot) & PRESENT != 0 {
            return Err(MapError::AlreadyMapped);
        }
        self.memory
            .write(table, slot, address | self.leaf_flags(access, large));
        Ok(())
    }

    /// The next lower table, made where there is none.
    fn descend(&mut self, table: u64, slot: usize) -> Result<u64, MapError> {
        let entry = self.memory.read(table, slot);
        if entry & PRESENT == 0 {
            let next = self.memory.new_table().ok_or(MapError::OutOfMemory)?;
            let flags = PRESENT | WRITABLE | ACCESSED | self.c_bit_mask;
            self.memory.write(table, slot, next | flags);
            return Ok(next);
        }
        if entry & LARGE != 0 {
            return Err(MapError::AlreadyMapped);
        }
        Ok(entry & ADDRESS & !self.c_bit_mask)
    }

    const fn leaf_flags(&self, access: Access, large: bool) -> u64 {
        let mut flags = PRESENT | ACCESSED | DIRTY;
        if access.write {
            flags |= WRITABLE;
        }
        if !access.execute {
            flags |= NO_EXECUTE;
        }
        if !access.shared {
            flags |= self.c_bit_mask;
        }
        if large {
            flags |= LARGE;
        }
        flags
    }
}

/// Index into the table of a level, 3 (PML4) to 0 (PT).
fn index(address: u64, level: u32) -> usize {
    usize::try_from(address >> (12 + 9 * level) & 511).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const C_BIT: u64 = 1 << 51;

    /// Tables at 0x1000, 0x2000, ... as in memory.
    struct Fake {
        tables: Vec<[u64; 512]>,
        limit: usize,
    }

    impl Fake {
        fn slot(table: u64) -> usize {
            usize::try_from(table / 0x1000 - 1).expect("small")
        }
    }

    impl TableMemory for Fake {
        fn new_table(&mut self) -> Option<u64> {
            if self.tables.len() == self.limit {
                return None;
            }
            self.tables.push([0; 512]);
            Some(self.tables.len() as u64 * 0x1000)
        }
        fn read(&self, table: u64, index: usize) -> u64 {
            self.tables[Self::slot(table)][index]
        }
        fn write(&mut self, table: u64, index: usize, entry: u64) {
            self.tables[Self::slot(table)][index] = entry;
        }
    }

    fn tables(limit: usize) -> PageTables<Fake> {
        PageTables::new(
            Fake {
                tables: Vec::new(),
                limit,
            },
            C_BIT,
        )
        .expect("one table")
    }

    /// The leaf for an address, found as the processor would: (entry, bytes).
    fn walk(tables: &PageTables<Fake>, address: u64) -> Option<(u64, u64)> {
        assert_ne!(tables.cr3() & C_BIT, 0);
        let mut table = tables.cr3() & !C_BIT;
        for level in (0..4).rev() {
            let entry = tables.memory.read(table, index(address, level));
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 0 || entry & LARGE != 0 {
                return Some((entry, 0x1000 << (9 * level)));
            }
            assert_ne!(entry & C_BIT, 0, "a table is reached without the C-bit");
            table = entry & ADDRESS & !C_BIT;
        }
        None
    }

    #[test]
    fn the_window_is_shared_writable_and_never_code() {
        let mut tables = tables(16);
        let window = Range::new(0x4000_0000, 0x4080_0000);
        tables.map(window, Access::SHARED).expect("mapped");
        let (entry, bytes) = walk(&tables, 0x4061_2345).expect("mapped");
        assert_eq!(bytes, LARGE_PAGE_SIZE);
        assert_eq!(entry & ADDRESS, 0x4060_0000, "no C-bit");
        assert_eq!(entry & (WRITABLE | NO_EXECUTE), WRITABLE | NO_EXECUTE);
        assert_eq!(walk(&tables, window.end), None);
    }

    #[test]
    fn edges_use_small_pages_and_the_rest_large_ones() {
        let mut tables = tables(16);
        tables
            .map(Range::new(0x1f_f000, 0x60_1000), Access::DATA)
            .expect("mapped");
        let bytes = [0x1f_f000, 0x20_0000, 0x5f_f000, 0x60_0000]
            .map(|address| walk(&tables, address).map(|(_, bytes)| bytes));
        assert_eq!(
            bytes,
            [Some(0x1000), Some(0x20_0000), Some(0x20_0000), Some(0x1000)]
        );
        assert_eq!(walk(&tables, 0x60_1000), None);
        let (entry, _) = walk(&tables, 0x60_0000).expect("mapped");
        assert_eq!(entry & ADDRESS, 0x60_0000 | C_BIT);
    }

    #[test]
    fn a_page_has_one_mapping() {
        let mut tables = tables(16);
        tables
            .map(Range::new(0x20_0000, 0x40_0000), Access::DATA)
            .expect("mapped");
        let again = Range::new(0x30_0000, 0x30_1000);
        assert_eq!(
            tables.map(again, Access::SHARED),
            Err(MapError::AlreadyMapped)
        );
        assert_eq!(
            tables.map(Range::new(1, 0x1000), Access::DATA),
            Err(MapError::Misaligned)
        );
    }

    #[test]
    fn running_out_of_tables_is_an_error() {
        let mut tables = tables(3);
        assert_eq!(
            tables.map(Range::new(0x1000, 0x2000), Access::DATA),
            Err(MapError::OutOfMemory)
        );
    }
}
