// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a slab with more than one slot keeps about itself, and the blocks of records for small slots.
//!
//! ```text
//! slab of            free map and links in
//! small slots        the header of its block of records
//! slots above 2 KiB  the word of the record of its last unit, where no slot begins
//! one slot           (none: it is used or it is dissolved)
//! ```

use super::class::Class;
use super::tables::{BlockHeader, NIL, RecordNumber, Tables};
use crate::atomic::Ordering;

/// The blocks of records that no slab has.
#[derive(Debug)]
pub(super) struct RecordBlocks {
    head: u32,
}

impl RecordBlocks {
    /// All of them. Linear in their number, once.
    pub fn new(tables: &Tables<'_>) -> Self {
        let mut blocks = Self { head: NIL };
        for number in (0..u32::try_from(tables.blocks()).unwrap_or(0)).rev() {
            blocks.put(tables, number);
        }
        blocks
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.head == NIL
    }

    pub fn take(&mut self, tables: &Tables<'_>) -> Option<u32> {
        let number = self.head;
        self.head = tables.block(number)?.next.load(Ordering::Relaxed);
        Some(number)
    }

    pub fn put(&mut self, tables: &Tables<'_>, number: u32) {
        if let Some(block) = tables.block(number) {
            block.next.store(self.head, Ordering::Relaxed);
            self.head = number;
        }
    }
}

/// What a slab with more than one slot keeps about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// A bit for each free slot.
    pub free_map: u32,
    pub next: u32,
    pub previous: u32,
}

/// Unit numbers have 26 bits in a header that is one word; all ones is none.
const NO_UNIT: u64 = (1 << 26) - 1;

impl Header {
    const fn into_word(self) -> u64 {
        (self.next as u64 & NO_UNIT) << 34
            | (self.previous as u64 & NO_UNIT) << 8
            | self.free_map as u64 & 0xff
    }

    #[expect(clippy::cast_possible_truncation, reason = "26 and 8 bits")]
    const fn from_word(word: u64) -> Self {
        const fn unit(bits: u64) -> u32 {
            if bits == NO_UNIT { NIL } else { bits as u32 }
        }
        Self {
            free_map: word as u32 & 0xff,
            next: unit(word >> 34 & NO_UNIT),
            previous: unit(word >> 8 & NO_UNIT),
        }
    }

    pub fn read(tables: &Tables<'_>, class: &Class, first: u32) -> Self {
        if class.is_small() {
            block_of(tables, first).map_or(
                Self {
                    free_map: 0,
                    next: NIL,
                    previous: NIL,
                },
                |block| Self {
                    free_map: block.free_map.load(Ordering::Relaxed),
                    next: block.next.load(Ordering::Relaxed),
                    previous: block.previous.load(Ordering::Relaxed),
                },
            )
        } else {
            Self::from_word(tables.word(first + class.units - 1))
        }
    }

    pub fn write(self, tables: &Tables<'_>, class: &Class, first: u32) {
        if class.is_small() {
            if let Some(block) = block_of(tables, first) {
                block.free_map.store(self.free_map, Ordering::Relaxed);
                block.next.store(self.next, Ordering::Relaxed);
                block.previous.store(self.previous, Ordering::Relaxed);
            }
        } else {
            tables.set_word(first + class.units - 1, self.into_word());
        }
    }
}

fn block_of<'a>(tables: &Tables<'a>, first: u32) -> Option<&'a BlockHeader> {
    tables.block(tables.block_number(first))
}

/// Gives a slab of small slots a block of records. A generation belongs to an address for ever: whatever record stood for
/// the slab's addresses before, its successor is newer.
pub(super) fn give_block(tables: &Tables<'_>, class: &Class, first: u32, number: u32) {
    let units = first..first + class.units;
    let of_units = units
        .clone()
        .filter_map(|unit| tables.record(RecordNumber::of_unit(unit)));
    let records = tables.block_records(number);
    let newest = of_units
        .chain(records)
        .map(|record| record.state().generation())
        .max()
        .unwrap_or(0);
    records.iter().for_each(|record| record.restart(newest + 1));
    units.for_each(|unit| tables.set_word(unit, u64::from(number)));
}

/// Leaves the generations of a slab of small slots to the records of its units, before its block goes.
pub(super) fn keep_generations(tables: &Tables<'_>, class: &Class, first: u32, number: u32) {
    let records = tables.block_records(number).iter();
    let newest = records.map(|record| record.state().generation()).max();
    for unit in first..first + class.units {
        if let Some(record) = tables.record(RecordNumber::of_unit(unit)) {
            record.raise(newest.unwrap_or(0) + 1);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_word() {
        for header in [
            Header {
                free_map: 0xff,
                next: NIL,
                previous: 0,
            },
            Header {
                free_map: 1,
                next: (1 << 26) - 2,
                previous: NIL,
            },
        ] {
            assert_eq!(Header::from_word(header.into_word()), header);
        }
    }
}
