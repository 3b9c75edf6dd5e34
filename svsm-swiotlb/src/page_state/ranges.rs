// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest RAM as a list of ranges, and the index of a page's state byte.
//!
//! RAM has holes (below 1 MiB, below 4 GiB), so the index is counted through the ranges and is not the frame number.

use core::ops::Range;

use snp::address::{GuestPhysicalAddress, PAGE_SIZE};

/// Ranges a list may have: bounds the search.
pub const MAX_RANGES: usize = 1024;

/// A range of guest RAM; base and size are multiples of 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RamRange {
    /// First byte.
    pub base: GuestPhysicalAddress,
    /// Bytes.
    pub bytes: u64,
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
    /// Checks a list.
    ///
    /// # Errors
    /// See [`RangeError`].
    pub fn new(ranges: &'a [RamRange]) -> Result<Self, RangeError> {
        if ranges.len() > MAX_RANGES {
            return Err(RangeError::TooMany);
        }
        let mut free_from = GuestPhysicalAddress::new(0);
        for range in ranges {
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
        }
        Ok(Self { ranges })
    }

    /// 4 KiB pages in all ranges together: the bytes of storage that [`super::PageStates`] needs.
    pub fn pages(&self) -> u64 {
        self.ranges
            .iter()
            .fold(0, |sum, range| sum.saturating_add(range.bytes / PAGE_SIZE))
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
        let mut pages_before = 0_u64;
        for range in self.ranges {
            if let Some(offset) = base.bits().checked_sub(range.base.bits()) {
                // Both differences, no sum: a base near the top of the address space cannot wrap.
                if offset < range.bytes && bytes <= range.bytes.saturating_sub(offset) {
                    let first = usize::try_from(pages_before.checked_add(offset / PAGE_SIZE)?);
                    let count = usize::try_from(bytes / PAGE_SIZE);
                    let (first, count) = (first.ok()?, count.ok()?);
                    return Some(first..first.checked_add(count)?);
                }
            }
            pages_before = pages_before.checked_add(range.bytes / PAGE_SIZE)?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(base: u64, bytes: u64) -> RamRange {
        RamRange {
            base: GuestPhysicalAddress::new(base),
            bytes,
        }
    }

    #[test]
    fn a_page_is_counted_through_the_ranges() {
        let list = [range(0x1000, 0x2000), range(0x10_0000, 0x3000)];
        let ranges = RamRanges::new(&list).unwrap();
        let indices = |base, bytes| ranges.indices(GuestPhysicalAddress::new(base), bytes);
        assert_eq!(ranges.pages(), 5);
        assert_eq!(indices(0x1000, 0x1000), Some(0..1));
        assert_eq!(indices(0x2000, 0x1000), Some(1..2));
        assert_eq!(indices(0x10_1000, 0x2000), Some(3..5));
    }

    #[test]
    fn c2_what_is_not_wholly_in_one_range_has_no_index() {
        let list = [range(0x1000, 0x2000), range(0x3000, 0x1000)];
        let ranges = RamRanges::new(&list).unwrap();
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
        let check = |list: &[RamRange]| RamRanges::new(list).err();
        assert_eq!(check(&[range(0x1000, 0)]), Some(RangeError::Malformed));
        assert_eq!(check(&[range(0x1001, 0x1000)]), Some(RangeError::Malformed));
        assert_eq!(check(&[range(0x1000, 0x1001)]), Some(RangeError::Malformed));
        assert_eq!(
            check(&[range(1 << 52, 0x1000)]),
            Some(RangeError::Malformed)
        );
        let overlapping = [range(0x1000, 0x2000), range(0x2000, 0x1000)];
        assert_eq!(check(&overlapping), Some(RangeError::Unsorted));
        assert_eq!(
            check(&[range(0x3000, 0x1000), range(0, 0x1000)]),
            Some(RangeError::Unsorted)
        );
        assert_eq!(
            check(&[range(0, 0x1000); MAX_RANGES + 1]),
            Some(RangeError::TooMany)
        );
    }

    #[test]
    fn the_last_page_of_a_tebibyte_has_the_last_index() {
        let list = [range(0, 2 << 30), range(4 << 30, 1022 << 30)];
        let ranges = RamRanges::new(&list).unwrap();
        assert_eq!(ranges.pages(), 1 << 28);
        let last = GuestPhysicalAddress::new((1026 << 30) - PAGE_SIZE);
        let index = (1 << 28) - 1;
        assert_eq!(ranges.indices(last, PAGE_SIZE), Some(index..index + 1));
        let high = GuestPhysicalAddress::new(4 << 30);
        assert_eq!(ranges.indices(high, 1022 << 30), Some(1 << 19..1 << 28));
    }

    #[test]
    fn overlap_is_seen_at_both_edges() {
        let list = [range(0x2000, 0x2000)];
        let ranges = RamRanges::new(&list).unwrap();
        let overlaps = |base, bytes| ranges.overlaps(GuestPhysicalAddress::new(base), bytes);
        assert!(!overlaps(0x1000, 0x1000));
        assert!(overlaps(0x1000, 0x1001));
        assert!(overlaps(0x3FFF, 1));
        assert!(!overlaps(0x4000, 0x1000));
    }
}
