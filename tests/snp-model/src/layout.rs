// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest physical ranges to page indices and back.

use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PAGE_SIZE};

/// Ranges a layout holds at most.
pub const MAX_RANGES: usize = 8;

/// A range of guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First byte; 2 MiB aligned, so that a large page never spans two ranges.
    pub base: u64,
    /// Bytes, a multiple of 2 MiB.
    pub bytes: u64,
}

/// The machine's memory: ranges in ascending order, numbered through page by page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    ranges: [Range; MAX_RANGES],
    count: usize,
}

impl Layout {
    /// A layout of `ranges`; `None` when there are too many, or they are unsorted, overlap, wrap
    /// or are not multiples of 2 MiB.
    pub fn new(ranges: &[Range]) -> Option<Self> {
        let mut layout = Self::default();
        let mut end = 0;
        for range in ranges {
            let aligned = (range.base | range.bytes).is_multiple_of(LARGE_PAGE_SIZE);
            if !aligned || range.base < end || range.bytes == 0 {
                return None;
            }
            end = range.base.checked_add(range.bytes)?;
            *layout.ranges.get_mut(layout.count)? = *range;
            layout.count += 1;
        }
        Some(layout)
    }

    /// The ranges.
    pub fn ranges(&self) -> &[Range] {
        self.ranges.get(..self.count).unwrap_or(&[])
    }

    /// Pages of all ranges.
    pub fn pages(&self) -> usize {
        let bytes: u64 = self.ranges().iter().map(|range| range.bytes).sum();
        usize::try_from(bytes / PAGE_SIZE).unwrap_or(usize::MAX)
    }

    /// The index of the page that holds `address`.
    pub fn index_of(&self, address: GuestPhysicalAddress) -> Option<usize> {
        let mut first = 0;
        for range in self.ranges() {
            if let Some(offset) = address.bits().checked_sub(range.base)
                && offset < range.bytes
            {
                return usize::try_from((first + offset) / PAGE_SIZE).ok();
            }
            first += range.bytes;
        }
        None
    }

    /// The first byte of page `index`.
    pub fn gpa_of(&self, index: usize) -> Option<GuestPhysicalAddress> {
        let mut offset = u64::try_from(index).ok()?.checked_mul(PAGE_SIZE)?;
        for range in self.ranges() {
            if offset < range.bytes {
                return Some(GuestPhysicalAddress::new(range.base + offset));
            }
            offset -= range.bytes;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn indices_run_through_the_ranges() {
        let ranges = [
            Range {
                base: 0,
                bytes: 4 * MIB,
            },
            Range {
                base: 4096 * MIB,
                bytes: 2 * MIB,
            },
        ];
        let layout = Layout::new(&ranges).unwrap();
        assert_eq!(layout.pages(), 1536);
        let address = GuestPhysicalAddress::new(4096 * MIB + 0x1234);
        assert_eq!(layout.index_of(address), Some(1025));
        assert_eq!(layout.gpa_of(1025), Some(address.page_base()));
        assert_eq!(layout.index_of(GuestPhysicalAddress::new(4 * MIB)), None);
        assert_eq!(layout.gpa_of(1536), None);
    }

    #[test]
    fn bad_ranges_are_refused() {
        let range = |base, bytes| Range { base, bytes };
        assert!(Layout::new(&[range(0, 2 * MIB), range(0, 2 * MIB)]).is_none());
        assert!(Layout::new(&[range(MIB, 2 * MIB)]).is_none());
        assert!(Layout::new(&[range(0, 0)]).is_none());
        assert!(Layout::new(&[range(u64::MAX - (2 * MIB - 1), 2 * MIB)]).is_none());
        assert!(Layout::new(&[range(0, 2 * MIB); 9]).is_none());
    }
}
