// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page tables with which the guest starts: the first 4 GiB mapped to themselves, private,
//! in 2 MiB pages. A guest replaces them by its own at once; they are its memory, not ours.

use crate::layout::{LARGE_PAGE_BYTES, PAGE_BYTES, START_PAGE_TABLES, START_TABLE_PAGES};

/// Present, writable, accessed and dirty.
const TABLE: u64 = 0x63;
/// The same for a large page.
const LARGE: u64 = TABLE | 1 << 7;
/// Entries of a table.
const ENTRIES: u64 = 512;

/// Contents of page `number` (0: PML4, 1: PDPT, then page directories) of the start tables.
#[must_use]
pub fn start_table(number: u64, c_bit: u64) -> [u64; 512] {
    let table = |number: u64| START_PAGE_TABLES + number * PAGE_BYTES;
    let mut entries = [0; 512];
    for (index, entry) in (0..).zip(&mut entries) {
        *entry = match number {
            0 if index == 0 => table(1) | TABLE | c_bit,
            1 if index < START_TABLE_PAGES - 2 => table(2 + index) | TABLE | c_bit,
            2.. => (((number - 2) * ENTRIES + index) * LARGE_PAGE_BYTES) | LARGE | c_bit,
            _ => 0,
        };
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::{START_PAGE_TABLES, START_TABLE_PAGES, start_table};

    /// Walks the tables as the processor does.
    fn translate(address: u64, c_bit: u64) -> Option<u64> {
        let mut number = 0;
        for shift in [39, 30, 21] {
            let entry = start_table(number, c_bit)[(address >> shift & 511) as usize];
            if entry & 1 == 0 {
                return None;
            }
            assert_eq!(entry & c_bit, c_bit);
            let target = entry & 0x7_ffff_ffff_f000;
            if entry & 0x80 != 0 {
                return Some(target + (address & 0x1f_ffff));
            }
            number = (target - START_PAGE_TABLES) / 4096;
            assert!(number < START_TABLE_PAGES);
        }
        None
    }

    #[test]
    fn the_first_four_gigabytes_translate_to_themselves() {
        for address in [0, 0x100_0123, 0x3fff_ffff, 0x4000_0000, 0xffff_ffff] {
            assert_eq!(translate(address, 1 << 51), Some(address));
        }
        assert_eq!(translate(1 << 32, 1 << 51), None);
    }
}
