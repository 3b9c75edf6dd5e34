// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest physical addresses, page sizes and privilege levels.

use core::fmt;

/// Bytes of a small page.
pub const PAGE_SIZE: u64 = 4096;
/// Bytes of a large page.
pub const LARGE_PAGE_SIZE: u64 = 2 << 20;
/// First bit above the physical address width that page-state entries and GHCB requests carry.
const ADDRESS_BITS: u32 = 52;

/// A page size the RMP knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageSize {
    /// 4 KiB.
    Size4K,
    /// 2 MiB.
    Size2M,
}

impl PageSize {
    /// Bytes of a page of this size.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Size4K => PAGE_SIZE,
            Self::Size2M => LARGE_PAGE_SIZE,
        }
    }

    /// 4 KiB pages in a page of this size.
    pub const fn pages(self) -> u64 {
        self.bytes() / PAGE_SIZE
    }

    /// The number that stands for it in RCX of PVALIDATE and RMPADJUST (APM volume 3) and in the lists of SVSM calls (SVSM
    /// specification, section 6): 0 for 4 KiB, 1 for 2 MiB.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The size that a number stands for; none for those that are reserved.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Size4K),
            1 => Some(Self::Size2M),
            _ => None,
        }
    }
}

/// A guest physical address, without the C-bit.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct GuestPhysicalAddress(u64);

impl GuestPhysicalAddress {
    /// Any 64-bit value; nothing is checked, the owner of the memory map does that.
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// The address as a number.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The 4 KiB page the address lies in.
    pub const fn page_base(self) -> Self {
        Self(self.0 & !(PAGE_SIZE - 1))
    }

    /// The guest frame number.
    pub const fn frame(self) -> u64 {
        self.0 / PAGE_SIZE
    }

    /// Bytes from the start of the 4 KiB page.
    pub const fn page_offset(self) -> u64 {
        self.0 & (PAGE_SIZE - 1)
    }

    /// Whether the address is a multiple of `align`, which must be a power of two.
    pub const fn is_aligned(self, align: u64) -> bool {
        self.0 & align.wrapping_sub(1) == 0
    }

    /// The address `bytes` further on, unless that leaves the 52-bit physical address space.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) if sum <= 1 << ADDRESS_BITS => Some(Self(sum)),
            _ => None,
        }
    }
}

impl From<GuestPhysicalAddress> for u64 {
    fn from(address: GuestPhysicalAddress) -> Self {
        address.0
    }
}

impl fmt::LowerHex for GuestPhysicalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::Display for GuestPhysicalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for GuestPhysicalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A virtual machine privilege level; 0 is the most privileged (APM volume 2, 15.36.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Vmpl {
    /// The paravisor.
    Vmpl0 = 0,
    /// Unused here.
    Vmpl1 = 1,
    /// The guest kernel.
    Vmpl2 = 2,
    /// Unused here.
    Vmpl3 = 3,
}

impl Vmpl {
    /// All levels, most privileged first.
    pub const ALL: [Self; 4] = [Self::Vmpl0, Self::Vmpl1, Self::Vmpl2, Self::Vmpl3];

    /// The level as the number that registers carry.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Index for arrays with one element per level.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl TryFrom<u8> for Vmpl {
    type Error = u8;

    fn try_from(number: u8) -> Result<Self, u8> {
        Self::ALL.get(usize::from(number)).copied().ok_or(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addition_stops_at_the_physical_address_space() {
        let top = GuestPhysicalAddress::new((1 << 52) - PAGE_SIZE);
        assert_eq!(
            top.checked_add(PAGE_SIZE).map(|end| end.bits()),
            Some(1 << 52)
        );
        assert_eq!(top.checked_add(PAGE_SIZE + 1), None);
        assert_eq!(GuestPhysicalAddress::new(u64::MAX).checked_add(1), None);
    }

    #[test]
    fn parts_of_an_address() {
        let address = GuestPhysicalAddress::new(0x20_3456);
        assert_eq!(address.page_base().bits(), 0x20_3000);
        assert_eq!(address.page_offset(), 0x456);
        assert_eq!(address.frame(), 0x203);
        assert!(!address.is_aligned(8) && address.is_aligned(2));
    }

    #[test]
    fn there_are_four_levels() {
        assert_eq!(Vmpl::try_from(3), Ok(Vmpl::Vmpl3));
        assert_eq!(Vmpl::try_from(4), Err(4));
    }
}
