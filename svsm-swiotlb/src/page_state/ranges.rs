// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest RAM as a list of ranges, and the index of a page's state byte.
//!
//! RAM has holes (below 1 MiB, below 4 GiB), so the index is counted through the ranges and is not the frame number. The
//! count is made once, when the list is checked: a call looks at no more ranges than a binary search does.

use core::ops::Range;

use snp::address::{GuestPhysicalAddress, PAGE_SIZE};

/// Ranges a list may have: bounds the search to eleven of them.
pub const MAX_RANGES: usize = 1024;

/// A range of guest RAM; base and size are multiples of 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RamRange {
    /// First byte.
    pub base: GuestPhysicalAddress,
    /// Bytes.
    pub bytes: u64,
    /// Pages of the ranges before it in its list, once that is a checked one.
    pages_before: u64,
}

impl RamRange {
    /// The range of `bytes` bytes from `base`.
    pub const fn new(base: GuestPhysicalAddress, bytes: u64) -> Self {
        Self {
            base,
            bytes,
            pages_before: 0,
        }
    }

    const fn pages(&self) -> u64 {
        self.bytes / PAGE_SIZE
    }
}

/// What is wrong with a list of ranges or with the storage for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// More than [`MAX_RANGES`].
    TooMany,
    /// A range is empty, misaligned, or ends beyond the physical address space.
    Malformed,
    /// Ranges overlap or are not in ascending order.
    Unsorted,
    /// The storage has not exactly one byte per page.
    WrongStorage,
}

/// A checked list: ascending, disjoint, page aligned.
#[derive(Clone, Copy, Debug)]
pub struct RamRanges<'a> {
    ranges: &'a [RamRange],
}

impl<'a> RamRanges<'a> {
    /// Checks a list, and counts the pages before each of its ranges.
    ///
    /// # Errors
    /// See [`RangeError`].
    pub fn new(ranges: &'a mut [RamRange]) -> Result<Self, RangeError> {
        if ranges.len() > MAX_RANGES {
            return Err(RangeError::TooMany);
        }
        let mut free_from = GuestPhysicalAddress::new(0);
        let mut pages = 0_u64;
        for range in &mut *ranges {
            let aligned = range.base.is_aligned(PAGE_SIZE) && range.bytes.is_multiple_of(PAGE_SIZE);
            if !aligned || range.bytes == 0 {
                return Err(RangeError::Malformed);
            }
            let end = range
                .base
                .checked_add(range.bytes)
                .ok_or(RangeError::Malformed)?;
            if range.base < free_from {
                return Err(RangeError::Unsorted);
            }
            free_from = end;
            range.pages_before = pages;
            pages = pages.saturating_add(range.pages());
        }
        Ok(Self { ranges })
    }

    /// 4 KiB pages in all ranges together: the bytes of storage that [`super::PageStates`] needs.
    pub fn pages(&self) -> u64 {
        let last = self.ranges.last();
        last.map_or(0, |last| last.pages_before.saturating_add(last.pages()))
    }

    /// Whether any page of the list lies in `[base, base + bytes)`.
    pub fn overlaps(&self, base: GuestPhysicalAddress, bytes: u64) -> bool {
        let end = base.bits().saturating_add(bytes);
        self.ranges.iter().any(|range| {
            range.base.bits() < end && base.bits() < range.base.bits().saturating_add(range.bytes)
        })
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = RamRange> + use<'a> {
        self.ranges.iter().copied()
    }

    /// Indices of the state bytes of `[base, base + bytes)`, which must be whole pages inside one range.
    pub(super) fn indices(&self, base: GuestPhysicalAddress, bytes: u64) -> Option<Range<usize>> {
        if bytes == 0 || !base.is_aligned(PAGE_SIZE) || !bytes.is_multiple_of(PAGE_SIZE) {
            return None;
        }
        let behind = self.ranges.partition_point(|range| range.base <= base);
        let range = self.ranges.get(behind.checked_sub(1)?)?;
        // Differences, no sum: a base near the top of the address space cannot wrap.
        let offset = base.bits().checked_sub(range.base.bits())?;
        if bytes > range.bytes.checked_sub(offset)? {
            return None;
        }
        let first = usize::try_from(range.pages_before.checked_add(offset / PAGE_SIZE)?).ok()?;
        let count = usize::try_from(bytes / PAGE_SIZE).ok()?;
        Some(first..first.checked_add(count)?)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    const fn range(base: u64, bytes: u64) -> RamRange {
        RamRange::new(GuestPhysicalAddress::new(base), bytes)
    }

    #[test]
    fn a_page_is_counted_through_the_ranges() {
        let mut list = [range(0x1000, 0x2000), range(0x10_0000, 0x3000)];
        let ranges = RamRanges::new(&mut list).unwrap();
        let indices = |base, bytes| ranges.indices(GuestPhysicalAddress::new(base), bytes);
        assert_eq!(ranges.pages(), 5);
        assert_eq!(indices(0x1000, 0x1000), Some(0..1));
        assert_eq!(indices(0x2000, 0x1000), Some(1..2));
        assert_eq!(indices(0x10_1000, 0x2000), Some(3..5));
    }

    #[test]
    fn c2_what_is_not_wholly_in_one_range_has_no_index() {
        let mut list = [range(0x1000, 0x2000), range(0x3000, 0x1000)];
        let ranges = RamRanges::new(&mut list).unwrap();
        let bad = [
            (0, 0x1000),
            (0x1800, 0x1000),
            (0x1000, 0),
            (0x1000, 0x800),
            (0x2000, 0x2000),
            (0x4000, 0x1000),
            (0x1000, !0xFFF),
            (!0xFFF, 0x1000),
        ];
        for (base, bytes) in bad {
            assert_eq!(
                ranges.indices(GuestPhysicalAddress::new(base), bytes),
                None,
                "{base:#x}"
            );
        }
    }

    #[test]
    fn a_bad_list_is_refused() {
        let check = |list: &mut [RamRange]| RamRanges::new(list).err();
        assert_eq!(check(&mut [range(0x1000, 0)]), Some(RangeError::Malformed));
        assert_eq!(
            check(&mut [range(0x1001, 0x1000)]),
            Some(RangeError::Malformed)
        );
        assert_eq!(
            check(&mut [range(0x1000, 0x1001)]),
            Some(RangeError::Malformed)
        );
        assert_eq!(
            check(&mut [range(1 << 52, 0x1000)]),
            Some(RangeError::Malformed)
        );
        let mut overlapping = [range(0x1000, 0x2000), range(0x2000, 0x1000)];
        assert_eq!(check(&mut overlapping), Some(RangeError::Unsorted));
        assert_eq!(
            check(&mut [range(0x3000, 0x1000), range(0, 0x1000)]),
            Some(RangeError::Unsorted)
        );
        assert_eq!(
            check(&mut [range(0, 0x1000); MAX_RANGES + 1]),
            Some(RangeError::TooMany)
        );
    }

    #[test]
    fn the_last_page_of_a_tebibyte_has_the_last_index() {
        let mut list = [range(0, 2 << 30), range(4 << 30, 1022 << 30)];
        let ranges = RamRanges::new(&mut list).unwrap();
        assert_eq!(ranges.pages(), 1 << 28);
        let last = GuestPhysicalAddress::new((1026 << 30) - PAGE_SIZE);
        let index = (1 << 28) - 1;
        assert_eq!(ranges.indices(last, PAGE_SIZE), Some(index..index + 1));
        let high = GuestPhysicalAddress::new(4 << 30);
        assert_eq!(ranges.indices(high, 1022 << 30), Some(1 << 19..1 << 28));
    }

    /// The index by its definition: the pages of all ranges before, one by one.
    fn counted(list: &[RamRange], base: u64, bytes: u64) -> Option<Range<usize>> {
        let mut before = 0;
        for range in list {
            let (first, end) = (range.base.bits(), range.base.bits() + range.bytes);
            let inside = first <= base && base < end && bytes <= end - base;
            if inside {
                let first = usize::try_from(before + (base - first) / PAGE_SIZE).unwrap();
                let count = usize::try_from(bytes / PAGE_SIZE).unwrap();
                return (count > 0).then(|| first..first + count);
            }
            before += range.bytes / PAGE_SIZE;
        }
        None
    }

    /// Numbers below something, drawn from a seed.
    fn random(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed;
        move |below| {
            state = state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 20) % below
        }
    }

    /// Ranges of 1 to `most` pages, with gaps of 0 to `most` before them.
    fn drawn(count: usize, most: u64, mut below: impl FnMut(u64) -> u64) -> Vec<RamRange> {
        let mut at = 0;
        let ranges = core::iter::from_fn(|| {
            let first = at + below(most + 1);
            let pages = 1 + below(most);
            at = first + pages;
            Some(range(first * PAGE_SIZE, pages * PAGE_SIZE))
        });
        ranges.take(count).collect()
    }

    fn end_of(list: &[RamRange]) -> u64 {
        list.last().map_or(0, |last| last.base.bits() + last.bytes)
    }

    #[test]
    fn the_longest_list_agrees_with_a_count_at_every_edge() {
        let longest = if cfg!(miri) { 40 } else { MAX_RANGES };
        for count in [0, 1, 2, 3, longest - 1, longest] {
            let mut list = drawn(count, 3, random(count as u64));
            let by_definition = list.clone();
            let ranges = RamRanges::new(&mut list).unwrap();
            let pages = by_definition.iter().map(|range| range.bytes / PAGE_SIZE);
            assert_eq!(ranges.pages(), pages.sum());
            // With ranges and gaps this short every page is at an edge or beside one.
            for base in (0..end_of(&by_definition) + 3 * PAGE_SIZE).step_by(0x1000) {
                for bytes in (0..6).map(|pages| pages * PAGE_SIZE) {
                    let found = ranges.indices(GuestPhysicalAddress::new(base), bytes);
                    assert_eq!(found, counted(&by_definition, base, bytes), "{base:#x}");
                }
            }
        }
    }

    #[test]
    fn c2_any_request_agrees_with_a_count() {
        let mut below = random(1);
        for _ in 0..if cfg!(miri) { 3 } else { 300 } {
            let count = usize::try_from(below(60)).unwrap();
            let mut list = drawn(count, 1 << 22, &mut below);
            let by_definition = list.clone();
            let ranges = RamRanges::new(&mut list).unwrap();
            for _ in 0..300 {
                // Mostly whole pages in the list or behind it.
                let (base, bytes) = match below(8) {
                    0 => (below(u64::MAX), below(1 << 40)),
                    1 => (!0xfff, below(3) * PAGE_SIZE),
                    2 => (below(1 << 40) * PAGE_SIZE, !0xfff),
                    3 => (below(1 << 30), PAGE_SIZE),
                    _ => {
                        let page = below(end_of(&by_definition) / PAGE_SIZE + 2);
                        (page * PAGE_SIZE, below(1 << 23) * PAGE_SIZE)
                    }
                };
                let whole = base % PAGE_SIZE == 0 && bytes % PAGE_SIZE == 0;
                let want = counted(&by_definition, base, bytes).filter(|_| whole);
                let found = ranges.indices(GuestPhysicalAddress::new(base), bytes);
                assert_eq!(found, want, "{bytes:#x} from {base:#x}");
            }
        }
    }

    #[test]
    fn overlap_is_seen_at_both_edges() {
        let mut list = [range(0x2000, 0x2000)];
        let ranges = RamRanges::new(&mut list).unwrap();
        let overlaps = |base, bytes| ranges.overlaps(GuestPhysicalAddress::new(base), bytes);
        assert!(!overlaps(0x1000, 0x1000));
        assert!(overlaps(0x1000, 0x1001));
        assert!(overlaps(0x3FFF, 1));
        assert!(!overlaps(0x4000, 0x1000));
    }
}
