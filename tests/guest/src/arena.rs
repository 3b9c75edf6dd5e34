// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ranges of guest physical memory, and an arena that hands parts of one out for good.
//!
//! The guest allocates at its start only: nothing is ever returned to the arena.

/// A half-open range of guest physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// One past the last byte; never below `start` for a range that holds something.
    pub end: u64,
}

impl Range {
    /// The range from `start` up to `end`.
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Self {
        Self { start, end }
    }

    /// The range of `bytes` bytes from `base`, unless it wraps.
    #[must_use]
    pub const fn of_bytes(base: u64, bytes: u64) -> Option<Self> {
        match base.checked_add(bytes) {
            Some(end) => Some(Self::new(base, end)),
            None => None,
        }
    }

    /// Bytes in the range; 0 when it is turned around.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// The part that consists of whole blocks of `align` bytes, a power of two.
    #[must_use]
    pub const fn aligned_inside(&self, align: u64) -> Self {
        let mask = align - 1;
        match self.start.checked_add(mask) {
            Some(up) if up & !mask <= self.end => Self::new(up & !mask, self.end & !mask),
            _ => Self::new(self.start, self.start),
        }
    }
}

/// Hands out consecutive parts of a range.
#[derive(Debug)]
pub struct Arena {
    free: Range,
}

impl Arena {
    /// An arena over `range`, which must belong to nobody else.
    #[must_use]
    pub const fn new(range: Range) -> Self {
        Self { free: range }
    }

    /// Takes `bytes` bytes at a multiple of `align`, a power of two; `None` when too little is left,
    /// in which case nothing is taken.
    pub fn take(&mut self, bytes: u64, align: u64) -> Option<Range> {
        let start = self.free.aligned_inside(align).start;
        let part = Range::of_bytes(start, bytes)?;
        if !start.is_multiple_of(align) || part.end > self.free.end {
            return None;
        }
        self.free.start = part.end;
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::{Arena, Range};

    #[test]
    fn whole_blocks_inside_a_range() {
        assert_eq!(
            Range::new(0x1001, 0x5fff).aligned_inside(0x1000),
            Range::new(0x2000, 0x5000)
        );
        assert_eq!(Range::new(0x1001, 0x1fff).aligned_inside(0x1000).bytes(), 0);
        assert_eq!(
            Range::new(u64::MAX - 1, u64::MAX)
                .aligned_inside(0x1000)
                .bytes(),
            0
        );
    }

    #[test]
    fn parts_are_aligned_apart_and_inside() {
        let mut arena = Arena::new(Range::new(0x1010, 0x4000));
        assert_eq!(arena.take(8, 8), Some(Range::new(0x1010, 0x1018)));
        assert_eq!(arena.take(0x1000, 0x1000), Some(Range::new(0x2000, 0x3000)));
        assert_eq!(arena.take(0x1001, 1), None);
        assert_eq!(arena.take(0x1000, 1), Some(Range::new(0x3000, 0x4000)));
        assert_eq!(arena.take(1, 1), None);
        assert_eq!(Arena::new(Range::new(8, 16)).take(u64::MAX, 8), None);
    }
}
