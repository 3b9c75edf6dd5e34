// SPDX-License-Identifier: MIT OR Apache-2.0
//! The list of CONVERT in a guest's page (clauses P-5.9.1 to P-5.9.11).
//!
//! The header is the core protocol's, [`snp::svsm::ListHeader`]: entries, cursor, a reserved word.

use bitfield_struct::bitfield;
use snp::address::{GuestPhysicalAddress, PageSize};
use snp::svsm::ListHeader;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the header.
pub const HEADER_BYTES: u64 = size_of::<ListHeader>() as u64;
/// Bytes of an entry.
pub const ENTRY_BYTES: u64 = size_of::<ConvertEntry>() as u64;
/// Entries of a list that fills its page.
pub const MAX_ENTRIES: u16 = 511;

/// An entry of the list.
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ConvertEntry {
    /// 0 is 4 KiB, 1 is 2 MiB.
    #[bits(2)]
    pub size_code: u8,
    /// Shared rather than private.
    pub to_shared: bool,
    /// Zero.
    #[bits(5)]
    pub reserved: u8,
    /// In: zero. Out: [`Outcome`] of an entry that was not converted.
    #[bits(4)]
    pub outcome_code: u8,
    /// Guest frame number.
    #[bits(52)]
    pub frame: u64,
}

/// What became of an entry whose turn has been (clause P-5.9.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Converted. Such entries are not written.
    Converted = 0,
    /// As it was before the call.
    Unchanged = 1,
    /// Private and the guest's, as before the call, but its contents are gone: it is zero.
    Zeroed = 2,
    /// Neither shared nor private: not validated, its contents gone. It can be converted to private.
    Unvalidated = 3,
    /// In no known state; the service will never touch it again.
    Quarantined = 4,
}

impl Outcome {
    const ALL: [Self; 5] = [
        Self::Converted,
        Self::Unchanged,
        Self::Zeroed,
        Self::Unvalidated,
        Self::Quarantined,
    ];
}

impl TryFrom<u8> for Outcome {
    /// The code that stands for nothing.
    type Error = u8;

    fn try_from(code: u8) -> Result<Self, u8> {
        Self::ALL.get(usize::from(code)).copied().ok_or(code)
    }
}

impl ConvertEntry {
    /// An entry as a guest writes it.
    pub const fn request(page: GuestPhysicalAddress, size: PageSize, to_shared: bool) -> Self {
        Self::new()
            .with_size_code(size.code())
            .with_to_shared(to_shared)
            .with_frame(page.frame())
    }

    /// The page: bits 63:12 of the entry, which may lie beyond any memory.
    pub const fn page(&self) -> GuestPhysicalAddress {
        GuestPhysicalAddress::new(self.into_bits()).page_base()
    }

    /// The size, unless its code is reserved.
    pub const fn size(&self) -> Option<PageSize> {
        PageSize::from_code(self.size_code())
    }

    /// What the service wrote.
    ///
    /// # Errors
    /// The code, if this version does not define it.
    pub fn outcome(&self) -> Result<Outcome, u8> {
        Outcome::try_from(self.outcome_code())
    }

    /// The entry as the service writes it back.
    pub const fn with_outcome(self, outcome: Outcome) -> Self {
        self.with_outcome_code(outcome as u8)
    }
}

const _: () = assert!(HEADER_BYTES == 8 && ENTRY_BYTES == 8);
const _: () =
    assert!(ListHeader::capacity(GuestPhysicalAddress::new(0), ENTRY_BYTES) == MAX_ENTRIES as u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_5_9_1_golden_entries() {
        let page = GuestPhysicalAddress::new(0x4020_0000);
        let large = ConvertEntry::request(page, PageSize::Size2M, true);
        assert_eq!(large.into_bits(), 0x4020_0005);
        assert_eq!((large.page(), large.size()), (page, Some(PageSize::Size2M)));
        let small = ConvertEntry::request(page, PageSize::Size4K, false);
        assert_eq!(small.into_bits(), 0x4020_0000);
        assert_eq!(small.with_size_code(2).size(), None);
    }

    #[test]
    fn p_5_9_8_golden_outcomes() {
        let entry = ConvertEntry::from_bits(0x4020_0004);
        for (outcome, bits) in [
            (Outcome::Converted, 0x4020_0004),
            (Outcome::Unchanged, 0x4020_0104),
            (Outcome::Zeroed, 0x4020_0204),
            (Outcome::Unvalidated, 0x4020_0304),
            (Outcome::Quarantined, 0x4020_0404),
        ] {
            assert_eq!(entry.with_outcome(outcome).into_bits(), bits);
            assert_eq!(ConvertEntry::from_bits(bits).outcome(), Ok(outcome));
        }
        assert_eq!(entry.with_outcome_code(5).outcome(), Err(5));
    }
}
