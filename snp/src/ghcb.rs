// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest-hypervisor communication block (GHCB specification, 2.6 and section 4).
//!
//! A GHCB is shared with the host, so code that runs never holds a reference to one: it uses the
//! [`offset`]s with volatile accesses, or a private copy of the page as [`Ghcb`].

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub mod exit_code;

/// The protocol version this crate speaks.
pub const PROTOCOL_VERSION: u16 = 2;
/// Bytes of the shared buffer at [`offset::SHARED_BUFFER`].
pub const SHARED_BUFFER_SIZE: usize = 2032;

/// Byte offsets of the fields in the page.
pub mod offset {
    /// RAX.
    pub const RAX: usize = 0x1F8;
    /// RCX.
    pub const RCX: usize = 0x308;
    /// RDX.
    pub const RDX: usize = 0x310;
    /// RBX.
    pub const RBX: usize = 0x318;
    /// SW_EXITCODE.
    pub const SW_EXIT_CODE: usize = 0x390;
    /// SW_EXITINFO1.
    pub const SW_EXIT_INFO_1: usize = 0x398;
    /// SW_EXITINFO2.
    pub const SW_EXIT_INFO_2: usize = 0x3A0;
    /// SW_SCRATCH.
    pub const SW_SCRATCH: usize = 0x3A8;
    /// XCR0.
    pub const XCR0: usize = 0x3E8;
    /// VALID_BITMAP, 16 bytes, one bit for each 8-byte word below 0x400.
    pub const VALID_BITMAP: usize = 0x3F0;
    /// The shared buffer.
    pub const SHARED_BUFFER: usize = 0x800;
    /// Protocol version, 16 bit.
    pub const PROTOCOL_VERSION: usize = 0xFFA;
    /// Usage, 32 bit; 0 is the layout of this module.
    pub const USAGE: usize = 0xFFC;

    /// Index of a field's bit in the valid bitmap.
    pub const fn valid_bit(field: usize) -> usize {
        field / 8
    }
}

/// Reasons in SW_EXITINFO2 when [`ExitStatus::Malformed`] (GHCB specification, table 6).
pub mod malformed {
    /// The GHCB is not registered.
    pub const NOT_REGISTERED: u64 = 1;
    /// The usage field is invalid.
    pub const INVALID_USAGE: u64 = 2;
    /// The scratch area is invalid.
    pub const INVALID_SCRATCH: u64 = 3;
    /// A field the exit needs is not marked valid.
    pub const MISSING_INPUT: u64 = 4;
    /// A field has an invalid value.
    pub const INVALID_INPUT: u64 = 5;
    /// No such exit.
    pub const INVALID_EVENT: u64 = 6;
}

/// SW_EXITINFO1 of an IOIO exit (APM volume 2, 15.10.2).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IoExitInformation {
    /// IN rather than OUT.
    pub input: bool,
    __: bool,
    /// INS or OUTS: the data are at SW_SCRATCH, the count is information 2.
    pub string: bool,
    /// REP prefix.
    pub repeat: bool,
    /// Operand size of 1 byte.
    pub size_8: bool,
    /// Operand size of 2 bytes.
    pub size_16: bool,
    /// Operand size of 4 bytes.
    pub size_32: bool,
    /// Address size of 16 bits.
    pub address_16: bool,
    /// Address size of 32 bits.
    pub address_32: bool,
    /// Address size of 64 bits.
    pub address_64: bool,
    /// Effective segment.
    #[bits(3)]
    pub segment: u8,
    #[bits(3)]
    __: u8,
    /// The port.
    pub port: u16,
    __: u32,
}

impl IoExitInformation {
    /// Operand size in bytes; 0 when the guest set not exactly one size bit.
    pub const fn operand_bytes(&self) -> u8 {
        match (self.size_8(), self.size_16(), self.size_32()) {
            (true, false, false) => 1,
            (false, true, false) => 2,
            (false, false, true) => 4,
            _ => 0,
        }
    }

    /// The same with the size bit for `bytes` (1, 2 or 4) set.
    pub const fn with_operand_bytes(self, bytes: u8) -> Self {
        self.with_size_8(bytes == 1)
            .with_size_16(bytes == 2)
            .with_size_32(bytes == 4)
    }
}

/// SW_EXITINFO1 of an AP creation (GHCB specification, 4.1.9).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ApCreation {
    /// 0 create on INIT, 1 create now, 2 destroy.
    pub operation: u16,
    /// The new context's VMPL.
    #[bits(4)]
    pub vmpl: u8,
    #[bits(12)]
    __: u16,
    /// The vCPU.
    pub apic_id: u32,
}

/// Operations of the #HV doorbell event (GHCB specification, 4.1.12).
pub mod doorbell {
    /// Which page the host would like; all ones is no preference.
    pub const GET_PREFERRED: u64 = 0;
    /// Use this page.
    pub const SET: u64 = 1;
    /// Which page is in use.
    pub const QUERY: u64 = 2;
    /// Use none.
    pub const CLEAR: u64 = 3;
}

/// How the host answered an exit (GHCB specification, table 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// Done.
    Done,
    /// The guest shall raise this exception; only #GP and #UD are legal.
    Exception {
        /// 13 or 6.
        vector: u8,
        /// The error code, where there is one.
        error_code: Option<u32>,
    },
    /// The request was malformed; the reason is information 2.
    Malformed(u64),
    /// Anything else: the host breaks the rules.
    Unexpected(u64),
}

impl ExitStatus {
    /// Classifies SW_EXITINFO1 and SW_EXITINFO2, each read once.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "fields are cut out by masks"
    )]
    pub const fn new(info_1: u64, info_2: u64) -> Self {
        match info_1 & 0xFFFF_FFFF {
            0 => Self::Done,
            1 => {
                let vector = info_2 as u8;
                let (exception, valid) = ((info_2 >> 8) & 7 == 3, info_2 & (1 << 31) != 0);
                if exception && valid && (vector == 6 || vector == 13) {
                    let code = info_2 & (1 << 11) != 0;
                    let error_code = if code {
                        Some((info_2 >> 32) as u32)
                    } else {
                        None
                    };
                    Self::Exception { vector, error_code }
                } else {
                    Self::Unexpected(info_2)
                }
            }
            2 => Self::Malformed(info_2),
            _ => Self::Unexpected(info_1),
        }
    }
}

/// A private copy of the page.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ghcb {
    reserved_000: [u8; 0xCB],
    /// Current privilege level.
    pub cpl: u8,
    reserved_0cc: [u8; 0x74],
    /// XSS.
    pub xss: u64,
    reserved_148: [u8; 0x18],
    /// DR7.
    pub dr7: u64,
    reserved_168: [u8; 0x10],
    /// RIP.
    pub rip: u64,
    reserved_180: [u8; 0x58],
    /// RSP.
    pub rsp: u64,
    reserved_1e0: [u8; 0x18],
    /// RAX.
    pub rax: u64,
    reserved_200: [u8; 0x108],
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    /// RBX.
    pub rbx: u64,
    reserved_320: u64,
    /// RBP.
    pub rbp: u64,
    /// RSI.
    pub rsi: u64,
    /// RDI.
    pub rdi: u64,
    /// R8 to R15.
    pub r8_to_r15: [u64; 8],
    reserved_380: [u8; 0x10],
    /// SW_EXITCODE.
    pub sw_exit_code: u64,
    /// SW_EXITINFO1.
    pub sw_exit_info_1: u64,
    /// SW_EXITINFO2.
    pub sw_exit_info_2: u64,
    /// SW_SCRATCH.
    pub sw_scratch: u64,
    reserved_3b0: [u8; 0x38],
    /// XCR0.
    pub xcr0: u64,
    /// One bit for each 8-byte word below 0x400.
    pub valid_bitmap: [u8; 16],
    /// X87_STATE_GPA.
    pub x87_state_gpa: u64,
    reserved_408: [u8; 0x3F8],
    /// Buffer of an exit's data.
    pub shared_buffer: [u8; SHARED_BUFFER_SIZE],
    reserved_ff0: [u8; 10],
    /// [`PROTOCOL_VERSION`].
    pub protocol_version: u16,
    /// 0.
    pub usage: u32,
}

impl Ghcb {
    /// Whether the field at `field` (an [`offset`] below 0x400) is marked valid.
    pub fn is_valid(&self, field: usize) -> bool {
        let bit = offset::valid_bit(field);
        self.valid_bitmap
            .get(bit / 8)
            .is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
    }
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Ghcb>() == 4096);
    assert!(offset_of!(Ghcb, cpl) == 0xCB);
    assert!(offset_of!(Ghcb, xss) == 0x140);
    assert!(offset_of!(Ghcb, dr7) == 0x160);
    assert!(offset_of!(Ghcb, rip) == 0x178);
    assert!(offset_of!(Ghcb, rsp) == 0x1D8);
    assert!(offset_of!(Ghcb, rax) == offset::RAX);
    assert!(offset_of!(Ghcb, rcx) == offset::RCX);
    assert!(offset_of!(Ghcb, rdx) == offset::RDX);
    assert!(offset_of!(Ghcb, rbx) == offset::RBX);
    assert!(offset_of!(Ghcb, rbp) == 0x328);
    assert!(offset_of!(Ghcb, rsi) == 0x330);
    assert!(offset_of!(Ghcb, rdi) == 0x338);
    assert!(offset_of!(Ghcb, r8_to_r15) == 0x340);
    assert!(offset_of!(Ghcb, sw_exit_code) == offset::SW_EXIT_CODE);
    assert!(offset_of!(Ghcb, sw_exit_info_1) == offset::SW_EXIT_INFO_1);
    assert!(offset_of!(Ghcb, sw_exit_info_2) == offset::SW_EXIT_INFO_2);
    assert!(offset_of!(Ghcb, sw_scratch) == offset::SW_SCRATCH);
    assert!(offset_of!(Ghcb, xcr0) == offset::XCR0);
    assert!(offset_of!(Ghcb, valid_bitmap) == offset::VALID_BITMAP);
    assert!(offset_of!(Ghcb, x87_state_gpa) == 0x400);
    assert!(offset_of!(Ghcb, shared_buffer) == offset::SHARED_BUFFER);
    assert!(offset_of!(Ghcb, protocol_version) == offset::PROTOCOL_VERSION);
    assert!(offset_of!(Ghcb, usage) == offset::USAGE);
};

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn golden_valid_bits() {
        let fields = [
            offset::RAX,
            offset::RCX,
            offset::RBX,
            offset::SW_EXIT_CODE,
            offset::SW_SCRATCH,
        ];
        assert_eq!(fields.map(offset::valid_bit), [63, 97, 99, 114, 117]);
        let mut ghcb = Ghcb::new_zeroed();
        ghcb.valid_bitmap[14] = 0b100;
        assert!(ghcb.is_valid(offset::SW_EXIT_CODE) && !ghcb.is_valid(offset::SW_EXIT_INFO_1));
        assert!(!ghcb.is_valid(0x1000));
    }

    #[test]
    fn golden_io_information() {
        let out = IoExitInformation::new()
            .with_port(0x3F8)
            .with_operand_bytes(1);
        assert_eq!(out.into_bits(), 0x03F8_0010);
        assert_eq!(out.with_size_16(true).operand_bytes(), 0);
        assert_eq!(
            ApCreation::new().with_operation(1).with_vmpl(2).into_bits(),
            0x2_0001
        );
    }

    #[test]
    fn only_two_exceptions_may_be_asked_for() {
        let fault = |vector: u64| ExitStatus::new(1, (1 << 31) | (3 << 8) | vector);
        assert_eq!(
            fault(6),
            ExitStatus::Exception {
                vector: 6,
                error_code: None
            }
        );
        assert!(matches!(fault(14), ExitStatus::Unexpected(_)));
        assert_eq!(ExitStatus::new(0, 7), ExitStatus::Done);
        assert_eq!(ExitStatus::new(2, 5), ExitStatus::Malformed(5));
        assert_eq!(ExitStatus::new(9, 0), ExitStatus::Unexpected(9));
    }
}
