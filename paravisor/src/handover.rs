// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest is told at its start: one page, whose address is in RSI.
//!
//! The guest enters at the payload's entry point in 64-bit mode with interrupts off, flat segments,
//! the start page tables in CR3 and RSP = 0. Everything here came from VMPL0 and lies in private
//! memory, so the guest may trust it.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::boot_block::CMDLINE_BYTES;
use crate::layout::HANDOVER_MAP_BYTES;

/// First bytes of the page.
pub const MAGIC: [u8; 8] = *b"SVSMHAND";
/// Layout version of the structure.
pub const VERSION: u32 = 2;
/// Most entries of the memory map.
pub const MAX_MAP_ENTRIES: usize = HANDOVER_MAP_BYTES / size_of::<MapEntry>();

/// [`Handover::flags`]: usable RAM is validated, zeroed and granted already.
pub const FLAG_RAM_ACCEPTED: u32 = 1 << 0;

/// [`MapEntry::kind`]: the guest may use the range (after validating it, unless
/// [`FLAG_RAM_ACCEPTED`] is set).
pub const KIND_USABLE: u32 = 1;
/// [`MapEntry::kind`]: not for general use: the paravisor, its storage, the pool window, the
/// hand-over area.
pub const KIND_RESERVED: u32 = 2;

/// A range of the memory map.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct MapEntry {
    /// First byte, page aligned.
    pub base: u64,
    /// Bytes, a multiple of the page size.
    pub bytes: u64,
    /// [`KIND_USABLE`] or [`KIND_RESERVED`].
    pub kind: u32,
    /// 0.
    pub reserved: u32,
}

/// Contents of the page at [`crate::layout::HANDOVER_PAGE`]; the rest of the page is zero.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Handover {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: u32,
    /// [`FLAG_RAM_ACCEPTED`].
    pub flags: u32,
    /// GPA of the guest's secrets page copy.
    pub secrets_gpa: u64,
    /// GPA of the guest's CPUID page copy.
    pub cpuid_gpa: u64,
    /// GPA of the boot vCPU's calling area.
    pub calling_area_gpa: u64,
    /// First byte of the payload as launched.
    pub payload_start: u64,
    /// One past the last byte of the payload.
    pub payload_end: u64,
    /// GPA of the memory map: [`MapEntry`] in a row, sorted by address, not overlapping.
    pub map_gpa: u64,
    /// Number of its entries.
    pub map_count: u64,
    /// The guest's command line, padded with zeros.
    pub cmdline: [u8; CMDLINE_BYTES],
}

const _: () = assert!(size_of::<Handover>() == 72 + CMDLINE_BYTES);
const _: () = assert!(size_of::<Handover>() <= 4096);

impl Handover {
    /// A page with magic and version, everything else zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            ..Self::new_zeroed()
        }
    }

    /// The command line up to its first zero byte.
    #[must_use]
    pub fn command_line(&self) -> &[u8] {
        self.cmdline.split(|byte| *byte == 0).next().unwrap_or(&[])
    }
}

impl Default for Handover {
    fn default() -> Self {
        Self::new()
    }
}
