// SPDX-License-Identifier: MIT OR Apache-2.0
//! The free units: blocks of any length, found, split and joined at a cost that depends on neither their number nor
//! their length.
//!
//! Two-level segregated fit (Masmano, Ripoll, Crespo, Real, "TLSF: a new dynamic memory allocator for real-time systems",
//! ECRTS 2004): one list for each range of lengths, 16 ranges per doubling, and a bitmap of the lists that are not empty.
//! The lists run through the words of the units' records, which nobody else uses while a unit is free:
//!
//! ```text
//! unit of the block      tag          word of its record
//! first                  FreeHead     next << 32 | previous
//! second                              length
//! last                   FreeTail     length
//! only                   FreeSingle   next << 32 | previous
//! ```

use super::start::{Side, Start};
use super::tables::{NIL, Tables};
use super::tag::{Tag, UnitKind};
use crate::geometry::UNITS_PER_CHUNK;

/// Ranges of a doubling.
const RANGES: usize = 16;
const RANGES_LOG2: u32 = RANGES.trailing_zeros();
/// Doublings: lengths below 16 are exact, a length has at most 26 bits.
const DOUBLINGS: usize = 24;
/// Blocks that are looked at one by one where the lists cannot answer exactly.
const PROBES: u32 = 8;
/// The same for runs that may not begin anywhere.
const ALIGNED_PROBES: u32 = 64;

/// The first block of each list of a doubling.
pub(super) type Heads = [u32; RANGES];

/// Doublings of which a store of this many units has blocks.
pub(super) const fn doublings(units: u32) -> usize {
    List::holding(units).doubling + 1
}

/// The lists.
#[derive(Debug)]
pub(super) struct FreeBlocks<'a> {
    /// Doublings with a list that is not empty.
    doublings: u32,
    /// Their lists that are not empty.
    ranges: [u16; DOUBLINGS],
    /// In the metadata area: an attach on a kernel's stack has no room for it.
    heads: &'a mut [Heads],
    /// Free units in all blocks.
    units: u32,
}

/// The list of a length.
#[derive(Clone, Copy)]
struct List {
    doubling: usize,
    range: usize,
}

impl List {
    /// The list that a block of this length is in.
    const fn holding(length: u32) -> Self {
        let log2 = if length == 0 { 0 } else { length.ilog2() };
        if log2 < RANGES_LOG2 {
            return Self {
                doubling: 0,
                range: length as usize % RANGES,
            };
        }
        let doubling = (log2 - RANGES_LOG2 + 1) as usize;
        Self {
            doubling: if doubling < DOUBLINGS {
                doubling
            } else {
                DOUBLINGS - 1
            },
            range: (length >> (log2 - RANGES_LOG2)) as usize % RANGES,
        }
    }

    /// The first list in which every block has at least this length.
    const fn from(length: u32) -> Self {
        let log2 = if length == 0 { 0 } else { length.ilog2() };
        if log2 < RANGES_LOG2 {
            Self::holding(length)
        } else {
            Self::holding(length.saturating_add((1 << (log2 - RANGES_LOG2)) - 1))
        }
    }
}

impl List {
    /// The list behind this one.
    const fn next(self) -> Option<Self> {
        if self.range + 1 < RANGES {
            Some(Self {
                range: self.range + 1,
                ..self
            })
        } else if self.doubling + 1 < DOUBLINGS {
            Some(Self {
                doubling: self.doubling + 1,
                range: 0,
            })
        } else {
            None
        }
    }
}

impl<'a> FreeBlocks<'a> {
    /// Lists without a block: heads for each of the [`doublings`] of a store, of whatever content.
    pub fn new(heads: &'a mut [Heads]) -> Self {
        heads.as_flattened_mut().fill(NIL);
        Self {
            doublings: 0,
            ranges: [0; DOUBLINGS],
            heads,
            units: 0,
        }
    }

    /// Free units in all blocks.
    pub const fn units(&self) -> u32 {
        self.units
    }

    /// Length of a longest block, as far as a bounded number of looks tells: less than a sixteenth may be missing.
    pub fn longest(&self, tables: &Tables<'_>) -> u32 {
        let Some(doubling) = self.doublings.checked_ilog2() else {
            return 0;
        };
        let doubling = doubling as usize;
        let ranges = self.ranges.get(doubling).copied().unwrap_or(0);
        let range = ranges.checked_ilog2().unwrap_or(0) as usize;
        let head = self.heads.get(doubling).and_then(|heads| heads.get(range));
        let mut block = head.copied().filter(|head| *head != NIL);
        let mut longest = 0;
        for _ in 0..PROBES {
            let Some(first) = block else { break };
            longest = longest.max(length_of(tables, first));
            block = next_of(tables, first);
        }
        longest
    }

    /// Takes a run of `length` units; returns its first one.
    pub fn take(
        &mut self,
        tables: &Tables<'_>,
        length: u32,
        start: Start,
        side: Side,
    ) -> Option<u32> {
        let (block, block_length) = self.find(tables, length, start)?;
        let first = start.fit(block, block_length, length, side)?;
        self.cut(tables, block, block_length, first, length);
        Some(first)
    }

    /// Takes the run `first..first + length` out of the block it lies in.
    pub fn cut(
        &mut self,
        tables: &Tables<'_>,
        block: u32,
        block_length: u32,
        first: u32,
        length: u32,
    ) {
        self.remove(tables, block, block_length);
        let end = first + length;
        if first > block {
            self.insert(tables, block, first - block);
        }
        if block + block_length > end {
            self.insert(tables, end, block + block_length - end);
        }
    }

    /// A block that has room for the run.
    fn find(&self, tables: &Tables<'_>, length: u32, start: Start) -> Option<(u32, u32)> {
        let with_room = |first| {
            let block_length = length_of(tables, first);
            let room = start.fit(first, block_length, length, Side::Low);
            room.map(|_| (first, block_length))
        };
        // Few blocks lie across a boundary. So one that is just long enough is tried before one that is twice as long.
        if start.has_boundary()
            && let Some((_, found)) = self.list_from(List::from(length))
            && let Some(found) = with_room(found)
        {
            return Some(found);
        }
        if let Some((_, found)) = self.list_from(List::from(length.checked_add(start.slack())?)) {
            return Some((found, length_of(tables, found)));
        }
        // No block is so long that it fits for certain. One in a list that begins below may still: the list of the
        // length itself has longer blocks too, and a shorter one than is certain may lie well.
        let mut probes = if start.slack() == 0 {
            PROBES
        } else {
            ALIGNED_PROBES
        };
        let mut list = Some(List::holding(length));
        while let Some((found, head)) = list.and_then(|list| self.list_from(list)) {
            let mut block = Some(head);
            while let Some(first) = block {
                let found = with_room(first);
                if found.is_some() {
                    return found;
                }
                probes -= 1;
                if probes == 0 {
                    return None;
                }
                block = next_of(tables, first);
            }
            list = found.next();
        }
        None
    }

    /// The first list at or behind this one that is not empty, and its first block.
    fn list_from(&self, list: List) -> Option<(List, u32)> {
        let ranges = u32::from(*self.ranges.get(list.doubling)?) & (u32::MAX << list.range);
        let (doubling, ranges) = if ranges != 0 {
            (list.doubling, ranges)
        } else {
            let longer = self.doublings & (u32::MAX << 1 << list.doubling);
            if longer == 0 {
                return None;
            }
            let doubling = longer.trailing_zeros() as usize;
            (doubling, u32::from(*self.ranges.get(doubling)?))
        };
        let range = ranges.trailing_zeros() as usize;
        let head = *self.heads.get(doubling)?.get(range)?;
        (head != NIL).then_some((List { doubling, range }, head))
    }

    /// Makes a run free and joins it with its free neighbours; the first unit of the block that comes of it.
    pub fn put(&mut self, tables: &Tables<'_>, first: u32, length: u32) -> u32 {
        let end = first + length;
        let (before, behind) = self.beside(tables, first, end);
        if before > 0 {
            self.remove(tables, first - before, before);
        }
        if behind > 0 {
            self.remove(tables, end, behind);
        }
        self.insert(tables, first - before, before + length + behind);
        first - before
    }

    /// Lengths of the blocks that end where a range begins, and begin where it ends.
    pub fn beside(&self, tables: &Tables<'_>, begin: u32, end: u32) -> (u32, u32) {
        let before = match begin.checked_sub(1) {
            Some(last) if tables.tag(last).kind() == UnitKind::FreeSingle => 1,
            Some(last) if tables.tag(last).kind() == UnitKind::FreeTail => {
                low(tables.word(last)).min(begin)
            }
            _ => 0,
        };
        let behind = match tables.tag(end).kind() {
            UnitKind::FreeHead | UnitKind::FreeSingle => length_of(tables, end),
            _ => 0,
        };
        (before, behind)
    }

    /// Marks a run as a block and puts it on its list.
    fn insert(&mut self, tables: &Tables<'_>, first: u32, length: u32) {
        let List { doubling, range } = List::holding(length);
        let Some(head) = self
            .heads
            .get_mut(doubling)
            .and_then(|heads| heads.get_mut(range))
        else {
            return;
        };
        let next = core::mem::replace(head, first);
        if next != NIL {
            tables.set_word(next, links(high(tables.word(next)), first));
        }
        if length == 1 {
            tables.set_tag(first, Tag::of(UnitKind::FreeSingle));
        } else {
            let last = first + length - 1;
            tables.set_word(first + 1, u64::from(length));
            tables.set_word(last, u64::from(length));
            tables.set_tag(first, Tag::of(UnitKind::FreeHead));
            tables.set_tag(last, Tag::of(UnitKind::FreeTail));
        }
        tables.set_word(first, links(next, NIL));
        self.doublings |= 1 << doubling;
        if let Some(ranges) = self.ranges.get_mut(doubling) {
            *ranges |= 1 << range;
        }
        self.units += length;
    }

    /// Takes a block off its list and clears its marks.
    fn remove(&mut self, tables: &Tables<'_>, first: u32, length: u32) {
        let List { doubling, range } = List::holding(length);
        let (next, previous) = (high(tables.word(first)), low(tables.word(first)));
        if next != NIL {
            tables.set_word(next, links(high(tables.word(next)), previous));
        }
        if previous != NIL {
            tables.set_word(previous, links(next, low(tables.word(previous))));
        } else if let Some(heads) = self.heads.get_mut(doubling)
            && let Some(head) = heads.get_mut(range)
        {
            *head = next;
            if next == NIL
                && let Some(ranges) = self.ranges.get_mut(doubling)
            {
                *ranges &= !(1 << range);
                if *ranges == 0 {
                    self.doublings &= !(1 << doubling);
                }
            }
        }
        tables.set_tag(first, Tag::BODY);
        tables.set_tag(first + length - 1, Tag::BODY);
        self.units -= length;
    }

    /// Calls `look` for the first blocks of at least a chunk, longest doubling first.
    pub fn for_each_long(&self, tables: &Tables<'_>, most: usize, mut look: impl FnMut(u32, u32)) {
        let mut left = most;
        let List { doubling, .. } = List::holding(UNITS_PER_CHUNK);
        for heads in self.heads.iter().skip(doubling).rev() {
            for head in heads {
                let mut block = (*head != NIL).then_some(*head);
                while let Some(first) = block {
                    if left == 0 {
                        return;
                    }
                    left -= 1;
                    look(first, length_of(tables, first));
                    block = next_of(tables, first);
                }
            }
        }
    }
}

/// Length of the block that begins at a unit.
pub(super) fn length_of(tables: &Tables<'_>, first: u32) -> u32 {
    if tables.tag(first).kind() == UnitKind::FreeSingle {
        1
    } else {
        low(tables.word(first + 1))
    }
}

fn next_of(tables: &Tables<'_>, first: u32) -> Option<u32> {
    let next = high(tables.word(first));
    (next != NIL).then_some(next)
}

const fn links(next: u32, previous: u32) -> u64 {
    (next as u64) << 32 | previous as u64
}

const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
const fn low(word: u64) -> u32 {
    word as u32
}

#[cfg(all(test, not(loom)))]
mod tests;
