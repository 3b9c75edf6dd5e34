// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page-state-change descriptor of the NAE event 0x8000_0010 (GHCB specification, 4.1.6).

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize};

/// Entries of a descriptor that fills the GHCB's shared buffer: (2032 - 8) / 8.
pub const MAX_ENTRIES: usize = 253;

/// What an entry asks the host to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PscOperation {
    /// Assign the page to the guest.
    Private = 1,
    /// Take the page back: it becomes shared.
    Shared = 2,
    /// Hint: split a large RMP entry.
    Smash = 3,
    /// Hint: join small RMP entries.
    Unsmash = 4,
}

impl TryFrom<u8> for PscOperation {
    type Error = u8;

    fn try_from(number: u8) -> Result<Self, u8> {
        Ok(match number {
            1 => Self::Private,
            2 => Self::Shared,
            3 => Self::Smash,
            4 => Self::Unsmash,
            _ => return Err(number),
        })
    }
}

/// One entry: a page and an operation.
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PscEntry {
    /// 4 KiB pages of this entry already done; written by the host, 0 when submitted.
    #[bits(12)]
    pub current_page: u16,
    /// Guest frame number.
    #[bits(40)]
    pub frame: u64,
    /// [`PscOperation`] as a number.
    #[bits(4)]
    pub operation: u8,
    /// 2 MiB instead of 4 KiB; the frame is then a multiple of 512.
    pub large: bool,
    /// Zero.
    #[bits(7)]
    pub reserved: u8,
}

impl PscEntry {
    /// An entry as a guest submits it. An address beyond 52 bits is cut; the owner of the memory map
    /// has refused it before.
    pub const fn request(
        page: GuestPhysicalAddress,
        size: PageSize,
        operation: PscOperation,
    ) -> Self {
        Self::new()
            .with_frame(page.frame() & ((1 << 40) - 1))
            .with_operation(operation as u8)
            .with_large(matches!(size, PageSize::Size2M))
    }

    /// The page.
    pub const fn page(&self) -> GuestPhysicalAddress {
        GuestPhysicalAddress::new(self.frame() * PAGE_SIZE)
    }

    /// The page's size.
    pub const fn size(&self) -> PageSize {
        if self.large() {
            PageSize::Size2M
        } else {
            PageSize::Size4K
        }
    }
}

/// The descriptor's header.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PscHeader {
    /// First entry not completed; the host moves it on.
    pub cur_entry: u16,
    /// Index of the last entry, inclusive.
    pub end_entry: u16,
    /// Zero.
    pub reserved: u32,
}

/// A descriptor of the largest size; unused entries are zero and not read.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PscDescriptor {
    /// Which entries are meant.
    pub header: PscHeader,
    /// The entries.
    pub entries: [PscEntry; MAX_ENTRIES],
}

impl PscDescriptor {
    /// A descriptor without entries; set the header when they are filled in.
    pub const fn new() -> Self {
        Self {
            header: PscHeader {
                cur_entry: 0,
                end_entry: 0,
                reserved: 0,
            },
            entries: [PscEntry::new(); MAX_ENTRIES],
        }
    }
}

impl Default for PscDescriptor {
    fn default() -> Self {
        Self::new()
    }
}

/// Errors in SW_EXITINFO2 (SW_EXITINFO1 stays 0 on KVM).
pub mod error {
    /// The header is malformed.
    pub const INVALID_HEADER: u64 = 0x0000_0001_0000_0001;
    /// The entry at `cur_entry` is malformed.
    pub const INVALID_ENTRY: u64 = 0x0000_0001_0000_0002;
    /// The host could not do it; the low word says why and is the host's own.
    pub const GENERIC: u64 = 0x0000_0100_0000_0000;
}

const _: () = assert!(size_of::<PscHeader>() == 8);
const _: () = assert!(size_of::<PscEntry>() == 8);
const _: () = assert!(size_of::<PscDescriptor>() == 2032);
const _: () = assert!(core::mem::offset_of!(PscHeader, end_entry) == 2);
const _: () = assert!(core::mem::offset_of!(PscDescriptor, entries) == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_entry() {
        let page = GuestPhysicalAddress::new(0x4020_0000);
        let entry = PscEntry::request(page, PageSize::Size2M, PscOperation::Shared);
        assert_eq!(entry.into_bits(), 0x0120_0000_4020_0000);
        assert_eq!((entry.page(), entry.size()), (page, PageSize::Size2M));
        let small = PscEntry::request(page, PageSize::Size4K, PscOperation::Private);
        assert_eq!(small.into_bits(), 0x0010_0000_4020_0000);
    }

    #[test]
    fn golden_descriptor() {
        let mut descriptor = PscDescriptor::new();
        descriptor.header = PscHeader {
            cur_entry: 1,
            end_entry: 0x0203,
            reserved: 0,
        };
        assert_eq!(descriptor.as_bytes()[..8], [1, 0, 3, 2, 0, 0, 0, 0]);
    }

    #[test]
    fn operations_are_four() {
        assert_eq!(PscOperation::try_from(2), Ok(PscOperation::Shared));
        assert_eq!(PscOperation::try_from(0), Err(0));
        assert_eq!(PscOperation::try_from(5), Err(5));
    }
}
