// SPDX-License-Identifier: MIT OR Apache-2.0
//! SVSM calls (SVSM specification, sections 4 to 6): registers, result codes, calling area, lists.

use core::fmt;

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize};

/// The calling area: one private page for each vCPU, named by its guest physical address.
pub mod calling_area {
    /// 1 byte: the guest sets it before the exit, the SVSM clears it when it has seen the call.
    pub const CALL_PENDING: u64 = 0;
    /// 1 byte: the SVSM has memory it could give back.
    pub const MEMORY_AVAILABLE: u64 = 1;
    /// First byte the guest may use for lists.
    pub const BUFFER: u64 = 8;
}

/// The core protocol (SVSM specification, section 6).
pub mod core_protocol {
    /// Protocol number.
    pub const NUMBER: u32 = 0;
    /// The only version.
    pub const VERSION: u32 = 1;
    /// Move the calling area.
    pub const REMAP_CA: u32 = 0;
    /// Validate or rescind a list of pages.
    pub const PVALIDATE: u32 = 1;
    /// Make a page a VMSA.
    pub const CREATE_VCPU: u32 = 2;
    /// Undo that.
    pub const DELETE_VCPU: u32 = 3;
    /// Give the SVSM memory.
    pub const DEPOSIT_MEM: u32 = 4;
    /// Take it back.
    pub const WITHDRAW_MEM: u32 = 5;
    /// Which versions of a protocol there are.
    pub const QUERY_PROTOCOL: u32 = 6;
    /// Configure vTOM.
    pub const CONFIGURE_VTOM: u32 = 7;
    /// PVALIDATE answered with CF set: nothing changed.
    pub const ERROR_NO_CHANGE: u32 = 0x8000_1010;
}

/// The registers of a call (SVSM specification, section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CallRegisters {
    /// Protocol and call in, result code out.
    pub rax: u64,
    /// First argument and result.
    pub rcx: u64,
    /// Second argument and result.
    pub rdx: u64,
    /// Third argument and result.
    pub r8: u64,
    /// Fourth argument and result, where a call has one; most have not, and leave it alone.
    pub r9: u64,
}

impl CallRegisters {
    /// A call with three arguments; R9, which takes no part in it, is 0.
    pub const fn new(rax: u64, [rcx, rdx, r8]: [u64; 3]) -> Self {
        Self {
            rax,
            rcx,
            rdx,
            r8,
            r9: 0,
        }
    }
}

/// Which call of which protocol: RAX on the way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId {
    /// Protocol number.
    pub protocol: u32,
    /// Call number in the protocol.
    pub call: u32,
}

impl CallId {
    /// Splits RAX.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of a register"
    )]
    pub const fn from_rax(rax: u64) -> Self {
        Self {
            protocol: (rax >> 32) as u32,
            call: rax as u32,
        }
    }

    /// Joins RAX.
    pub const fn to_rax(self) -> u64 {
        ((self.protocol as u64) << 32) | self.call as u64
    }
}

/// A result code: RAX on the way out (SVSM specification, 5.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct ResultCode(pub u32);

impl ResultCode {
    /// Done.
    pub const SUCCESS: Self = Self(0);
    /// Partly done: issue the same call again.
    pub const INCOMPLETE: Self = Self(0x8000_0000);
    /// No such protocol.
    pub const UNSUPPORTED_PROTOCOL: Self = Self(0x8000_0001);
    /// No such call.
    pub const UNSUPPORTED_CALL: Self = Self(0x8000_0002);
    /// Not memory of the guest, or not usable now.
    pub const INVALID_ADDRESS: Self = Self(0x8000_0003);
    /// A structure in memory is malformed.
    pub const INVALID_FORMAT: Self = Self(0x8000_0004);
    /// An argument is misaligned, out of range or has a reserved bit.
    pub const INVALID_PARAMETER: Self = Self(0x8000_0005);
    /// Well-formed, but not allowed now.
    pub const INVALID_REQUEST: Self = Self(0x8000_0006);
    /// Something is in transition; nothing changed; try again.
    pub const BUSY: Self = Self(0x8000_0007);
    /// First error a protocol defines itself.
    pub const PROTOCOL_ERROR_BASE: u32 = 0x8000_1000;

    /// The protocol-defined error `number`.
    pub const fn protocol_error(number: u32) -> Self {
        Self(Self::PROTOCOL_ERROR_BASE.wrapping_add(number))
    }

    /// The code in RAX. The upper half is not part of it.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the code is the lower half"
    )]
    pub const fn from_rax(rax: u64) -> Self {
        Self(rax as u32)
    }

    /// The code as RAX carries it.
    pub const fn to_rax(self) -> u64 {
        self.0 as u64
    }

    /// Whether the call succeeded.
    pub const fn is_success(self) -> bool {
        self.0 < 0x4000_0000
    }

    const fn name(self) -> &'static str {
        match self {
            Self::SUCCESS => "SUCCESS",
            Self::INCOMPLETE => "INCOMPLETE",
            Self::UNSUPPORTED_PROTOCOL => "UNSUPPORTED_PROTOCOL",
            Self::UNSUPPORTED_CALL => "UNSUPPORTED_CALL",
            Self::INVALID_ADDRESS => "INVALID_ADDRESS",
            Self::INVALID_FORMAT => "INVALID_FORMAT",
            Self::INVALID_PARAMETER => "INVALID_PARAMETER",
            Self::INVALID_REQUEST => "INVALID_REQUEST",
            Self::BUSY => "BUSY",
            Self(0x1000..=0x3FFF_FFFF) => "protocol-defined success",
            Self(0x4000_0000..=0x7FFF_FFFF) => "memory needed",
            Self(Self::PROTOCOL_ERROR_BASE..) => "protocol-defined error",
            Self(_) => "reserved",
        }
    }
}

impl fmt::Display for ResultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#x})", self.name(), self.0)
    }
}

impl fmt::Debug for ResultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Header of a list in guest memory.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ListHeader {
    /// Entries that follow.
    pub entries: u16,
    /// First entry not completed; the only field the SVSM writes back.
    pub next: u16,
    /// Zero.
    pub reserved: u32,
}

impl ListHeader {
    /// Entries of `entry_bytes` that fit between the header and the end of its page.
    pub const fn capacity(list: GuestPhysicalAddress, entry_bytes: u64) -> u64 {
        let room = PAGE_SIZE - list.page_offset();
        match room.checked_sub(size_of::<Self>() as u64) {
            Some(room) if entry_bytes != 0 => room / entry_bytes,
            _ => 0,
        }
    }
}

/// Header of a PVALIDATE list.
pub type PvalidateListHeader = ListHeader;

/// An entry of a PVALIDATE list (SVSM specification, 6.2).
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PvalidateListEntry {
    /// 0 is 4 KiB, 1 is 2 MiB.
    #[bits(2)]
    pub size_code: u8,
    /// Validate rather than rescind.
    pub validate: bool,
    /// Do not fail when nothing changed.
    pub ignore_no_change: bool,
    /// Zero.
    #[bits(8)]
    pub reserved: u8,
    /// Guest frame number.
    #[bits(52)]
    pub frame: u64,
}

impl PvalidateListEntry {
    /// An entry as a guest writes it.
    pub const fn request(page: GuestPhysicalAddress, size: PageSize, validate: bool) -> Self {
        Self::new()
            .with_size_code(size.code())
            .with_validate(validate)
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
}

const _: () = assert!(size_of::<ListHeader>() == 8);
const _: () = assert!(core::mem::offset_of!(ListHeader, next) == 2);
const _: () = assert!(core::mem::offset_of!(ListHeader, reserved) == 4);
const _: () = assert!(size_of::<PvalidateListEntry>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_two_halves_of_rax() {
        let id = CallId {
            protocol: 0x4000_0001,
            call: 7,
        };
        assert_eq!(id.to_rax(), 0x4000_0001_0000_0007);
        assert_eq!(CallId::from_rax(id.to_rax()), id);
    }

    #[test]
    fn golden_list() {
        let header = ListHeader {
            entries: 0x102,
            next: 1,
            reserved: 0,
        };
        assert_eq!(header.as_bytes(), [2, 1, 1, 0, 0, 0, 0, 0]);
        let page = GuestPhysicalAddress::new(0x20_0000);
        let entry = PvalidateListEntry::request(page, PageSize::Size2M, true);
        assert_eq!(entry.into_bits(), 0x20_0005);
        assert_eq!((entry.page(), entry.size()), (page, Some(PageSize::Size2M)));
        assert_eq!(entry.with_size_code(2).size(), None);
    }

    #[test]
    fn a_list_ends_with_its_page() {
        assert_eq!(
            ListHeader::capacity(GuestPhysicalAddress::new(0x1008), 8),
            510
        );
        assert_eq!(
            ListHeader::capacity(GuestPhysicalAddress::new(0x1FF8), 8),
            0
        );
        assert_eq!(
            ListHeader::capacity(GuestPhysicalAddress::new(0x1FFC), 8),
            0
        );
    }

    #[test]
    fn codes_have_names() {
        let name = |code| std::format!("{}", ResultCode(code));
        assert_eq!(name(0x8000_0007), "BUSY (0x80000007)");
        assert_eq!(name(0x4000_0010), "memory needed (0x40000010)");
        assert_eq!(name(0x8000_1003), "protocol-defined error (0x80001003)");
        assert_eq!(name(0x8000_0008), "reserved (0x80000008)");
        assert!(ResultCode(0x1000).is_success() && !ResultCode(0x4000_0001).is_success());
        assert_eq!(ResultCode::protocol_error(3).0, 0x8000_1003);
    }
}
