// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pool window: which addresses, and which chunk an address lies in (invariant W1).

use core::ops::Range;

use protocol::CHUNK_BYTES;
use snp::address::GuestPhysicalAddress;

/// Chunks that the windows may have together (128 GiB): bounds the search for a free run.
pub const MAX_WINDOW_CHUNKS: usize = 1 << 16;

/// What is wrong with a window or with the storage for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowError {
    /// Empty, not a multiple of the chunk size, or beyond the physical address space.
    Malformed,
    /// More than [`MAX_WINDOW_CHUNKS`].
    TooLarge,
    /// A page of it is also in the list of guest RAM, so it could be validated.
    OverlapsRam,
    /// A page of it is also in the other window.
    OverlapsWindow,
    /// The storage has not exactly one record per chunk.
    WrongStorage,
}

/// A range of guest physical addresses of which no page is ever validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    base: GuestPhysicalAddress,
    bytes: u64,
    chunks: usize,
}

impl Window {
    /// Checks a window.
    ///
    /// # Errors
    /// See [`WindowError`].
    pub fn new(base: GuestPhysicalAddress, bytes: u64) -> Result<Self, WindowError> {
        let aligned = base.is_aligned(CHUNK_BYTES) && bytes.is_multiple_of(CHUNK_BYTES);
        if !aligned || bytes == 0 || base.checked_add(bytes).is_none() {
            return Err(WindowError::Malformed);
        }
        let chunks = usize::try_from(bytes / CHUNK_BYTES).map_err(|_| WindowError::TooLarge)?;
        if chunks > MAX_WINDOW_CHUNKS {
            return Err(WindowError::TooLarge);
        }
        Ok(Self {
            base,
            bytes,
            chunks,
        })
    }

    /// First byte.
    pub const fn base(&self) -> GuestPhysicalAddress {
        self.base
    }

    /// Bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Chunks.
    pub const fn chunks(&self) -> usize {
        self.chunks
    }

    /// Whether all of `[address, address + bytes)` lies in the window.
    pub const fn contains(&self, address: GuestPhysicalAddress, bytes: u64) -> bool {
        let offset = address.bits().wrapping_sub(self.base.bits());
        offset < self.bytes && bytes <= self.bytes.wrapping_sub(offset)
    }

    /// Whether any byte of `[address, address + bytes)` lies in the window.
    ///
    /// This is the check an integrator puts in front of everything that validates, grants or maps a page for the guest:
    /// PVALIDATE, REMAP_CA, CREATE_VCPU, DELETE_VCPU and DEPOSIT_MEM refuse such a page with INVALID_ADDRESS. A range
    /// that wraps counts as touching.
    #[inline(never)]
    pub const fn touches(&self, address: GuestPhysicalAddress, bytes: u64) -> bool {
        match address.bits().checked_add(bytes) {
            Some(end) => {
                bytes != 0
                    && address.bits() < self.base.bits().saturating_add(self.bytes)
                    && self.base.bits() < end
            }
            None => true,
        }
    }

    /// Address of a chunk; `None` past the window's end.
    pub fn chunk_address(&self, chunk: usize) -> Option<GuestPhysicalAddress> {
        let offset = u64::try_from(chunk).ok()?.checked_mul(CHUNK_BYTES)?;
        if offset >= self.bytes {
            None
        } else {
            self.base.checked_add(offset)
        }
    }

    /// The chunks of a range of whole chunks; `None` unless it lies wholly in the window.
    pub fn chunk_range(&self, base: GuestPhysicalAddress, bytes: u64) -> Option<Range<usize>> {
        let aligned = base.is_aligned(CHUNK_BYTES) && bytes.is_multiple_of(CHUNK_BYTES);
        if !aligned || bytes == 0 || !self.contains(base, bytes) {
            return None;
        }
        let offset = base.bits().checked_sub(self.base.bits())?;
        let first = usize::try_from(offset / CHUNK_BYTES).ok()?;
        let count = usize::try_from(bytes / CHUNK_BYTES).ok()?;
        Some(first..first.checked_add(count)?)
    }
}

/// Bytes of so many chunks.
pub(crate) fn chunk_bytes(chunks: usize) -> u64 {
    u64::try_from(chunks)
        .unwrap_or(u64::MAX)
        .saturating_mul(CHUNK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(address: u64) -> GuestPhysicalAddress {
        GuestPhysicalAddress::new(address)
    }

    fn window() -> Window {
        Window::new(at(0x3000_0000), 8 * MIB).unwrap()
    }

    #[test]
    fn w1_p_6_5_a_malformed_window_is_refused() {
        let check = |base, bytes| Window::new(at(base), bytes).err();
        assert_eq!(check(0x3000_0000, 0), Some(WindowError::Malformed));
        assert_eq!(check(0x3010_0000, 2 * MIB), Some(WindowError::Malformed));
        assert_eq!(check(0x3000_0000, 3 * MIB), Some(WindowError::Malformed));
        assert_eq!(
            check((1 << 52) - 2 * MIB, 4 * MIB),
            Some(WindowError::Malformed)
        );
        assert_eq!(
            check(0, (MAX_WINDOW_CHUNKS as u64 + 1) * 2 * MIB),
            Some(WindowError::TooLarge)
        );
    }

    #[test]
    fn w1_touching_is_seen_at_both_edges_and_across_a_wrap() {
        let window = window();
        assert!(!window.touches(at(0x2FFF_F000), 0x1000));
        assert!(window.touches(at(0x2FFF_F000), 0x1001));
        assert!(window.touches(at(0x307F_F000), 0x1000));
        assert!(!window.touches(at(0x3080_0000), 0x1000));
        assert!(window.touches(at(0), u64::MAX));
        assert!(window.touches(at(u64::MAX), 2));
        assert!(!window.touches(at(0x3000_0000), 0));
    }

    #[test]
    fn containing_is_for_the_whole_range() {
        let window = window();
        assert!(window.contains(at(0x3000_0000), 8 * MIB));
        assert!(!window.contains(at(0x3000_0000), 8 * MIB + 1));
        assert!(!window.contains(at(0x2FFF_FFFF), 1));
        assert!(!window.contains(at(0x3000_1000), u64::MAX));
    }

    #[test]
    fn chunks_and_addresses_correspond() {
        let window = window();
        assert_eq!(window.chunk_address(3), Some(at(0x3060_0000)));
        assert_eq!(window.chunk_address(4), None);
        assert_eq!(window.chunk_address(usize::MAX), None);
        assert_eq!(window.chunk_range(at(0x3020_0000), 4 * MIB), Some(1..3));
        assert_eq!(window.chunk_range(at(0x3060_0000), 4 * MIB), None);
        assert_eq!(window.chunk_range(at(0x3020_1000), 2 * MIB), None);
        assert_eq!(window.chunk_range(at(0x3020_0000), 0), None);
    }
}
