// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sorted lists of physical address ranges in a fixed array.

use crate::layout::{LARGE_PAGE_BYTES, PAGE_BYTES};

/// Most ranges of one list: a memory map, cut by the launch ranges and what boot carves out.
pub const MAX_RANGES: usize = 96;

/// A range of physical addresses; `start <= end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PhysRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl PhysRange {
    /// The range of `bytes` bytes from `start`; `None` if it ends beyond the address space.
    #[must_use]
    pub const fn new(start: u64, bytes: u64) -> Option<Self> {
        match start.checked_add(bytes) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// Whether no byte is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether both share a byte.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether every byte of `other` is in it.
    #[must_use]
    pub const fn contains(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Its parts in order: 4 KiB pages at the ragged ends, 2 MiB pages between them.
    /// `start` and `end` are page aligned.
    pub fn pages(self) -> impl Iterator<Item = (u64, bool)> {
        let mut next = self.start;
        core::iter::from_fn(move || {
            let gpa = next;
            let large = gpa.is_multiple_of(LARGE_PAGE_BYTES) && self.end - gpa >= LARGE_PAGE_BYTES;
            let bytes = if large { LARGE_PAGE_BYTES } else { PAGE_BYTES };
            (gpa < self.end).then(|| {
                next = gpa.saturating_add(bytes);
                (gpa, large)
            })
        })
    }
}

/// The list has no room for another range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListFull;

/// Ranges, sorted and apart from each other.
#[derive(Debug, Clone, Copy)]
pub struct RangeList {
    ranges: [PhysRange; MAX_RANGES],
    count: usize,
}

impl RangeList {
    /// The empty list.
    #[must_use]
    pub const fn new() -> Self {
        let empty = PhysRange { start: 0, end: 0 };
        Self {
            ranges: [empty; MAX_RANGES],
            count: 0,
        }
    }

    /// The ranges by address.
    #[must_use]
    pub fn as_slice(&self) -> &[PhysRange] {
        self.ranges.get(..self.count).unwrap_or(&[])
    }

    /// Appends a range that lies behind all others; adjoining ones are joined, an empty one is
    /// dropped.
    ///
    /// # Errors
    /// [`ListFull`] when the array is full.
    pub fn push(&mut self, range: PhysRange) -> Result<(), ListFull> {
        if range.is_empty() {
            return Ok(());
        }
        let last = self
            .count
            .checked_sub(1)
            .and_then(|last| self.ranges.get_mut(last));
        if let Some(last) = last
            && last.end == range.start
        {
            last.end = range.end;
            return Ok(());
        }
        *self.ranges.get_mut(self.count).ok_or(ListFull)? = range;
        self.count += 1;
        Ok(())
    }

    /// The list without the bytes of `hole`.
    ///
    /// # Errors
    /// [`ListFull`] when cutting a range in two makes one too many.
    pub fn without(&self, hole: &PhysRange) -> Result<Self, ListFull> {
        let mut rest = Self::new();
        for range in self.as_slice() {
            if !range.overlaps(hole) {
                rest.push(*range)?;
                continue;
            }
            if range.start < hole.start {
                rest.push(PhysRange {
                    start: range.start,
                    end: hole.start,
                })?;
            }
            if hole.end < range.end {
                rest.push(PhysRange {
                    start: hole.end,
                    end: range.end,
                })?;
            }
        }
        Ok(rest)
    }

    /// Whether every byte of `range` is in one range of the list.
    #[must_use]
    pub fn contains(&self, range: &PhysRange) -> bool {
        self.as_slice().iter().any(|own| own.contains(range))
    }

    /// Whether a byte of `range` is in the list.
    #[must_use]
    pub fn overlaps(&self, range: &PhysRange) -> bool {
        self.as_slice().iter().any(|own| own.overlaps(range))
    }
}

impl Default for RangeList {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{PhysRange, RangeList};

    fn list(ranges: &[(u64, u64)]) -> RangeList {
        let mut list = RangeList::new();
        for (start, end) in ranges {
            list.push(PhysRange {
                start: *start,
                end: *end,
            })
            .unwrap();
        }
        list
    }

    #[test]
    fn cutting_keeps_what_is_outside_the_hole() {
        let ram = list(&[(0, 0xa_0000), (0x10_0000, 0x80_0000)]);
        let rest = ram
            .without(&PhysRange {
                start: 0x9_0000,
                end: 0x20_0000,
            })
            .unwrap();
        assert_eq!(
            rest.as_slice(),
            list(&[(0, 0x9_0000), (0x20_0000, 0x80_0000)]).as_slice()
        );
        let rest = rest
            .without(&PhysRange {
                start: 0x40_0000,
                end: 0x50_0000,
            })
            .unwrap();
        let want = list(&[
            (0, 0x9_0000),
            (0x20_0000, 0x40_0000),
            (0x50_0000, 0x80_0000),
        ]);
        assert_eq!(rest.as_slice(), want.as_slice());
    }

    #[test]
    fn pages_are_large_where_alignment_and_room_allow() {
        let range = PhysRange {
            start: 0x1f_e000,
            end: 0x40_1000,
        };
        let pages: Vec<(u64, bool)> = range.pages().collect();
        let want = [
            (0x1f_e000, false),
            (0x1f_f000, false),
            (0x20_0000, true),
            (0x40_0000, false),
        ];
        assert_eq!(pages, want);
        assert_eq!(
            PhysRange {
                start: 0x1000,
                end: 0x1000
            }
            .pages()
            .count(),
            0
        );
    }
}
