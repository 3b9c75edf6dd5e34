// SPDX-License-Identifier: MIT OR Apache-2.0
//! The list that LIST_GRANTED fills in a guest's page (clauses P-7.1 to P-7.6).

use snp::address::PAGE_SIZE;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The list's header, at the address the call names; that address is 8-byte aligned.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ListHeader {
    /// In: entries there is room for; at least 1, and the list must end in the page it begins in.
    pub capacity: u16,
    /// Out: entries written by this call. Ignored on input.
    pub written: u16,
    /// In: chunk index to begin at, 0 at first. Out: where to go on after INCOMPLETE.
    pub cursor: u32,
}

/// A run of chunks of one grant.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct GrantedRun {
    /// Guest physical address of the first byte, without the C-bit.
    pub base: u64,
    /// Bytes, a multiple of the chunk size.
    pub bytes: u64,
    /// Epoch of the holder; an older one than the caller's marks an orphan.
    pub epoch: u32,
    /// Generation of the grant.
    pub generation: u32,
}

/// Bytes of [`ListHeader`].
pub const HEADER_BYTES: u64 = size_of::<ListHeader>() as u64;
/// Bytes of one [`GrantedRun`].
pub const ENTRY_BYTES: u64 = size_of::<GrantedRun>() as u64;
/// Entries that fit into a page behind the header.
pub const MAX_ENTRIES: u16 = 170;

/// Bytes of a list with this capacity.
pub const fn list_bytes(capacity: u16) -> u64 {
    HEADER_BYTES + ENTRY_BYTES * capacity as u64
}

const _: () = assert!(size_of::<ListHeader>() == 8 && size_of::<GrantedRun>() == 24);
const _: () = assert!(core::mem::offset_of!(ListHeader, written) == 2);
const _: () = assert!(core::mem::offset_of!(ListHeader, cursor) == 4);
const _: () = assert!(core::mem::offset_of!(GrantedRun, epoch) == 16);
const _: () = assert!(core::mem::offset_of!(GrantedRun, generation) == 20);
const _: () = assert!(list_bytes(MAX_ENTRIES) <= PAGE_SIZE);
const _: () = assert!(list_bytes(MAX_ENTRIES + 1) > PAGE_SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_7_1_golden_bytes() {
        let header = ListHeader {
            capacity: 170,
            written: 3,
            cursor: 0x0102_0304,
        };
        assert_eq!(header.as_bytes(), [0xAA, 0, 3, 0, 4, 3, 2, 1]);
        let run = GrantedRun {
            base: 0x4020_0000,
            bytes: 0x40_0000,
            epoch: 2,
            generation: 9,
        };
        let golden: [u8; 24] = [
            0, 0, 0x20, 0x40, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0,
        ];
        assert_eq!(run.as_bytes(), golden);
        assert_eq!(GrantedRun::read_from_bytes(&golden).ok(), Some(run));
    }
}
