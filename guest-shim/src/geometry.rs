// SPDX-License-Identifier: MIT OR Apache-2.0
//! The window and its two units: chunks, which the service grants, and slots, which the shim hands out.
//!
//! The window is one contiguous range that never moves and never grows beyond its reserved size. That is what makes
//! "is this address ours" one compare and "which record belongs to it" one shift, however much of it is granted.

/// Unit of granting and giving back: 2 MiB.
pub const CHUNK_BYTES: u64 = 2 << 20;
/// Unit of allocation inside a chunk, and what one record stands for: 2 KiB.
pub const SLOT_BYTES: u64 = 2 << 10;
/// Slots of one chunk.
pub const SLOTS_PER_CHUNK: usize = to_index(CHUNK_BYTES / SLOT_BYTES);
/// The largest window: its length still fits the 38 bits of a record.
pub const MAX_WINDOW_BYTES: u64 = 128 << 30;

pub(crate) const SLOT_SHIFT: u32 = SLOT_BYTES.trailing_zeros();
pub(crate) const CHUNK_SLOT_SHIFT: u32 = SLOTS_PER_CHUNK.trailing_zeros();

const _: () = assert!(
    usize::BITS == 64,
    "slot numbers and lengths are 64 bits wide"
);

/// A range of guest physical addresses that only the pool uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    base: u64,
    bytes: u64,
}

impl Window {
    /// A window, if it is made of whole chunks, does not wrap and is at most [`MAX_WINDOW_BYTES`] long.
    pub const fn new(base: u64, bytes: u64) -> Option<Self> {
        let whole_chunks = base.is_multiple_of(CHUNK_BYTES) && bytes.is_multiple_of(CHUNK_BYTES);
        if !whole_chunks
            || bytes == 0
            || bytes > MAX_WINDOW_BYTES
            || base.checked_add(bytes).is_none()
        {
            return None;
        }
        Some(Self { base, bytes })
    }

    /// First address.
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// Size in bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Size in chunks.
    pub const fn chunks(&self) -> usize {
        to_index(self.bytes / CHUNK_BYTES)
    }

    /// Offset of an address, if it lies in the window.
    pub const fn offset_of(&self, address: u64) -> Option<u64> {
        match address.checked_sub(self.base) {
            Some(offset) if offset < self.bytes => Some(offset),
            _ => None,
        }
    }

    /// The slot an address lies in.
    pub(crate) const fn slot_of(&self, address: u64) -> Option<usize> {
        match self.offset_of(address) {
            Some(offset) => Some(to_index(offset >> SLOT_SHIFT)),
            None => None,
        }
    }

    /// First address of a slot.
    pub(crate) const fn slot_address(&self, slot: usize) -> u64 {
        self.base + ((slot as u64) << SLOT_SHIFT)
    }

    /// First address of a chunk.
    pub(crate) const fn chunk_address(&self, chunk: usize) -> u64 {
        self.base + chunk as u64 * CHUNK_BYTES
    }

    /// The slot number counted from address 0, so that alignment can be tested on it.
    pub(crate) const fn absolute_slot(&self, slot: usize) -> u64 {
        (self.base >> SLOT_SHIFT) + slot as u64
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_made_of_whole_chunks_and_does_not_wrap() {
        assert!(Window::new(0x4000_0000, CHUNK_BYTES).is_some());
        for (base, bytes) in [
            (0x4000_0000, 0),
            (0x4000_0000, CHUNK_BYTES + 4096),
            (0x4010_0000, CHUNK_BYTES),
            (u64::MAX - CHUNK_BYTES + 1, CHUNK_BYTES),
            (0, MAX_WINDOW_BYTES + CHUNK_BYTES),
        ] {
            assert_eq!(Window::new(base, bytes), None, "{base:#x} {bytes:#x}");
        }
    }

    #[test]
    fn addresses_outside_have_no_slot() {
        let window = Window::new(0x4000_0000, 2 * CHUNK_BYTES).unwrap();
        assert_eq!(window.slot_of(0x3fff_ffff), None);
        assert_eq!(window.slot_of(0x4000_0000), Some(0));
        assert_eq!(
            window.slot_of(0x4000_0000 + 2 * CHUNK_BYTES - 1),
            Some(2 * SLOTS_PER_CHUNK - 1)
        );
        assert_eq!(window.slot_of(0x4000_0000 + 2 * CHUNK_BYTES), None);
        assert_eq!(window.slot_address(3), 0x4000_1800);
    }
}
