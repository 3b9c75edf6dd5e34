// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sorted lists of physical address ranges in a fixed array.

use crate::boot_block::MAX_LAUNCH_RANGES;
use crate::layout::{LARGE_PAGE_BYTES, PAGE_BYTES};

/// Most ranges of one list: the launch ranges.
pub const MAX_RANGES: usize = MAX_LAUNCH_RANGES;

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

    /// What is left of it beside `holes`, by address. The holes may overlap and come in any order.
    pub fn without(self, holes: &[Self]) -> impl Iterator<Item = Self> + Clone + use<'_> {
        let Self { mut start, end } = self;
        core::iter::from_fn(move || {
            // A hole that is passed is not met again.
            while let Some(hole) =
                (holes.iter()).find(|hole| (hole.start..hole.end).contains(&start))
            {
                start = hole.end;
            }
            let next = (holes.iter())
                .filter(|hole| !hole.is_empty() && hole.start > start)
                .map(|hole| hole.start)
                .fold(end, u64::min);
            (start < end).then(|| {
                let piece = Self { start, end: next };
                start = next;
                piece
            })
        })
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

/// The same ranges. What finds the next one is long, and is once in the image however many walk over them.
pub fn compiled_once<I>(mut ranges: I) -> impl Iterator<Item = PhysRange> + Clone + use<I>
where
    I: Iterator<Item = PhysRange> + Clone,
{
    #[inline(never)]
    fn next(ranges: &mut impl Iterator<Item = PhysRange>) -> Option<PhysRange> {
        ranges.next()
    }
    core::iter::from_fn(move || next(&mut ranges))
}

/// Ranges in the order of their addresses, those that touch each other joined; empty ones are dropped.
pub fn joined<I>(ranges: I) -> impl Iterator<Item = PhysRange> + Clone + use<I>
where
    I: Iterator<Item = PhysRange> + Clone,
{
    let mut ranges = ranges.filter(|range| !range.is_empty()).peekable();
    core::iter::from_fn(move || {
        let mut range = ranges.next()?;
        while let Some(next) = ranges.next_if(|next| next.start == range.end) {
            range.end = next.end;
        }
        Some(range)
    })
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
    use super::{ListFull, MAX_RANGES, PhysRange, RangeList, joined};

    const fn range(start: u64, end: u64) -> PhysRange {
        PhysRange { start, end }
    }

    #[test]
    fn cutting_keeps_what_is_outside_the_holes() {
        let left = |holes: &[PhysRange]| range(10, 90).without(holes).collect::<Vec<_>>();
        assert_eq!(left(&[]), [range(10, 90)]);
        assert_eq!(left(&[range(0, 10), range(90, 95)]), [range(10, 90)]);
        assert_eq!(left(&[range(5, 20)]), [range(20, 90)]);
        assert_eq!(left(&[range(50, 95)]), [range(10, 50)]);
        assert_eq!(left(&[range(0, 100)]), []);
        let any_order = [range(60, 70), range(20, 40), range(30, 50), range(55, 55)];
        let want = [range(10, 20), range(50, 60), range(70, 90)];
        assert_eq!(left(&any_order), want);
        assert_eq!(range(5, 5).without(&any_order).count(), 0);
    }

    #[test]
    fn what_touches_is_joined() {
        let list = [
            range(0, 1),
            range(1, 3),
            range(3, 3),
            range(4, 5),
            range(5, 6),
        ];
        let whole: Vec<_> = joined(list.into_iter()).collect();
        assert_eq!(whole, [range(0, 3), range(4, 6)]);
    }

    #[test]
    fn a_list_joins_what_touches_and_is_finite() {
        let mut list = RangeList::new();
        for start in 0..MAX_RANGES as u64 {
            list.push(range(start * 2, start * 2 + 1)).unwrap();
        }
        assert_eq!(list.push(range(1000, 1001)), Err(ListFull));
        list.push(range(63, 64)).unwrap();
        assert!(list.contains(&range(62, 64)) && !list.overlaps(&range(61, 62)));
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
