// SPDX-License-Identifier: MIT OR Apache-2.0
//! The window and its units: chunks, which the service grants; units, which extents and slabs are made of; granules, the
//! least that is handed out.
//!
//! The window is one contiguous range that never moves and never grows beyond its reserved size. That is what makes
//! "is this address ours" one compare and "which record belongs to it" one shift, however much of it is granted.

/// Unit of granting and giving back: 2 MiB.
pub const CHUNK_BYTES: u64 = 2 << 20;
/// What one record of the private metadata stands for: 2 KiB.
pub const UNIT_BYTES: u64 = 2 << 10;
/// The smallest slot: 64 bytes, a cache line.
pub const SMALLEST_SLOT_BYTES: u64 = 64;
/// First address that no processor has: physical addresses have at most 52 bits (APM volume 2, 5.1).
const ADDRESS_LIMIT: u64 = 1 << 52;
/// The largest window. Its units have numbers of 26 bits, its granules of 31.
pub const MAX_WINDOW_BYTES: u64 = 128 << 30;

/// Chunks of all windows of a service together, at most (docs/PROTOCOL.md, P-6.5).
pub(crate) const MAX_CHUNKS: u64 = MAX_WINDOW_BYTES / CHUNK_BYTES;

pub(crate) const UNIT_SHIFT: u32 = UNIT_BYTES.trailing_zeros();
/// Units of one chunk.
pub(crate) const UNITS_PER_CHUNK: u32 = 1 << (CHUNK_BYTES.trailing_zeros() - UNIT_SHIFT);

const _: () = assert!(
    usize::BITS == 64,
    "unit numbers and lengths are 64 bits wide"
);

/// A range of guest physical addresses that only the pool uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    base: u64,
    bytes: u64,
    /// The last address: every map compares it.
    last: u64,
}

impl Window {
    /// A window, if it is made of whole chunks, ends where there are addresses and is at most [`MAX_WINDOW_BYTES`] long.
    pub const fn new(base: u64, bytes: u64) -> Option<Self> {
        let whole_chunks = base.is_multiple_of(CHUNK_BYTES) && bytes.is_multiple_of(CHUNK_BYTES);
        if !whole_chunks || bytes == 0 || bytes > MAX_WINDOW_BYTES || base > ADDRESS_LIMIT - bytes {
            return None;
        }
        Some(Self {
            base,
            bytes,
            last: base + (bytes - 1),
        })
    }

    /// First address.
    #[inline]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// Size in bytes.
    #[inline]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Size in chunks.
    pub const fn chunks(&self) -> usize {
        to_index(self.bytes / CHUNK_BYTES)
    }

    /// Offset of an address, if it lies in the window.
    #[inline]
    pub const fn offset_of(&self, address: u64) -> Option<u64> {
        match address.checked_sub(self.base) {
            Some(offset) if offset < self.bytes => Some(offset),
            _ => None,
        }
    }

    /// Whether the two windows overlap.
    pub(crate) const fn overlaps(&self, other: &Self) -> bool {
        self.base <= other.last && other.base <= self.last
    }

    /// First address of a chunk.
    pub(crate) const fn chunk_address(&self, chunk: usize) -> u64 {
        self.base + chunk as u64 * CHUNK_BYTES
    }

    /// Whether every byte lies at or below an address.
    #[inline]
    pub(crate) const fn ends_at_or_below(&self, highest_address: u64) -> bool {
        self.last <= highest_address
    }

    /// Whether no multiple of a boundary lies behind the first byte: 0 is no boundary, else it is a power of two.
    #[inline]
    pub(crate) const fn lies_within(&self, boundary: u64) -> bool {
        self.base ^ self.last <= boundary.wrapping_sub(1)
    }
}

/// A 64-bit quantity as an index or a length in memory.
#[expect(
    clippy::cast_possible_truncation,
    reason = "usize is 64 bits wide, asserted above"
)]
pub(crate) const fn to_index(value: u64) -> usize {
    value as usize
}

/// The unit in which a byte of the window lies, by the byte's offset.
#[expect(
    clippy::cast_possible_truncation,
    reason = "unit numbers of the largest window have 26 bits"
)]
pub(crate) const fn unit_of(offset: u64) -> u32 {
    (offset >> UNIT_SHIFT) as u32
}

/// Offset of a unit's first byte in the window.
pub(crate) const fn unit_offset(unit: u32) -> u64 {
    (unit as u64) << UNIT_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_made_of_whole_chunks_of_addresses_there_are() {
        assert!(Window::new(0x4000_0000, CHUNK_BYTES).is_some());
        assert!(Window::new((1 << 52) - CHUNK_BYTES, CHUNK_BYTES).is_some());
        for (base, bytes) in [
            (0x4000_0000, 0),
            (0x4000_0000, CHUNK_BYTES + 4096),
            (0x4010_0000, CHUNK_BYTES),
            (1 << 52, CHUNK_BYTES),
            ((1 << 52) - CHUNK_BYTES, 2 * CHUNK_BYTES),
            (u64::MAX - CHUNK_BYTES + 1, CHUNK_BYTES),
            (0, MAX_WINDOW_BYTES + CHUNK_BYTES),
        ] {
            assert_eq!(Window::new(base, bytes), None, "{base:#x} {bytes:#x}");
        }
    }

    #[test]
    fn addresses_outside_have_no_offset() {
        let window = Window::new(0x4000_0000, 2 * CHUNK_BYTES).unwrap();
        assert_eq!(window.offset_of(0x3fff_ffff), None);
        assert_eq!(window.offset_of(0x4000_0000), Some(0));
        let last = 0x4000_0000 + 2 * CHUNK_BYTES - 1;
        assert_eq!(
            window.offset_of(last).map(unit_of),
            Some(2 * UNITS_PER_CHUNK - 1)
        );
        assert_eq!(window.offset_of(last + 1), None);
        assert!(window.ends_at_or_below(last) && !window.ends_at_or_below(last - 1));
        assert_eq!(unit_offset(3), 0x1800);
    }

    #[test]
    fn a_window_lies_within_boundaries_that_it_does_not_cross() {
        let window = Window::new(0x4000_0000, 3 * CHUNK_BYTES).unwrap();
        for (boundary, within) in [
            (0, true),
            (1 << 63, true),
            (8 << 20, true),
            (4 << 20, false),
        ] {
            assert_eq!(window.lies_within(boundary), within, "{boundary:#x}");
        }
        let across = Window::new((4 << 30) - CHUNK_BYTES, 2 * CHUNK_BYTES).unwrap();
        assert!(!across.lies_within(4 << 30) && across.lies_within(8 << 30));
    }
}
