// SPDX-License-Identifier: MIT OR Apache-2.0
//! The records that TRACE copies into a guest's page (docs/PROTOCOL.md, chapter 12).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What happened (clause P-12.2). A reader skips kinds it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum TraceKind {
    /// A guest attached; detail: the epoch, bytes: what older epochs hold.
    Attached = 1,
    /// A guest detached; detail: the epoch, bytes: what nobody attached holds.
    Detached = 2,
    /// A run was granted; detail: the generation.
    Grown = 3,
    /// A run was given back; detail: the generation.
    Released = 4,
    /// Chunks were adopted; detail: the older epoch, address 0.
    Adopted = 5,
    /// Chunks of an older epoch were given back; detail: the older epoch, address: the first of them, bytes: of all.
    OrphansReleased = 6,
    /// Pages of the guest's own were converted; code: 1 to shared, 0 to private, detail: entries, address: the first of
    /// them, bytes: of all.
    Converted = 7,
    /// A call was refused; code: its number (at most 0xFFFF), detail: the result code, address and bytes: RCX and RDX as
    /// the caller passed them.
    Refused = 8,
    /// Memory is in a state nobody knows and is never used again; code: 0 chunks, 1 a page of the guest's own.
    Quarantined = 9,
    /// The host declined or broke a rule; code: the operation it was asked for, detail: the kind
    /// ([`crate::statistics::HostAnomaly`]), address: the first page of the batch, bytes: of the batch.
    HostAnomaly = 10,
    /// As [`TraceKind::Refused`], of a call that came by MEMORY_FORM: number, RCX and RDX are those of its block.
    RefusedInMemory = 11,
}

impl TraceKind {
    /// Every kind, in the order of the numbers, which begin at 1.
    pub const ALL: [Self; 11] = [
        Self::Attached,
        Self::Detached,
        Self::Grown,
        Self::Released,
        Self::Adopted,
        Self::OrphansReleased,
        Self::Converted,
        Self::Refused,
        Self::Quarantined,
        Self::HostAnomaly,
        Self::RefusedInMemory,
    ];

    /// The number in [`TraceRecord::kind`].
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The name that records and reports print.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Detached => "detached",
            Self::Grown => "grown",
            Self::Released => "released",
            Self::Adopted => "adopted",
            Self::OrphansReleased => "orphans-released",
            Self::Converted => "converted",
            Self::Refused => "refused",
            Self::Quarantined => "quarantined",
            Self::HostAnomaly => "host-anomaly",
            Self::RefusedInMemory => "refused-in-memory",
        }
    }
}

impl TryFrom<u16> for TraceKind {
    /// The number that names no kind.
    type Error = u16;

    fn try_from(number: u16) -> Result<Self, u16> {
        let index = usize::from(number).checked_sub(1).ok_or(number)?;
        Self::ALL.get(index).copied().ok_or(number)
    }
}

/// One event, little endian, naturally aligned, without padding.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TraceRecord {
    /// Number of the event since the start of the service, from 0 on. A number that is left out is an event whose record was
    /// being written, or was lost because another processor was slow to write its own.
    pub sequence: u64,
    /// [`TraceKind::number`].
    pub kind: u16,
    /// As the kind says.
    pub code: u16,
    /// As the kind says.
    pub detail: u32,
    /// First byte of what it concerns, as the kind says.
    pub address: u64,
    /// Bytes of what it concerns, as the kind says.
    pub bytes: u64,
}

/// [`TraceRecord::code`] of [`TraceKind::Quarantined`]: a page of the guest's own; chunks have 0.
pub const QUARANTINED_PAGE: u16 = 1;
/// Bytes of one [`TraceRecord`].
pub const RECORD_BYTES: u64 = size_of::<TraceRecord>() as u64;
/// Records that the service keeps: the newest.
pub const RECORDS_KEPT: u64 = 256;

const _: () = assert!(size_of::<TraceRecord>() == 32);
const _: () = assert!(core::mem::offset_of!(TraceRecord, kind) == 8);
const _: () = assert!(core::mem::offset_of!(TraceRecord, code) == 10);
const _: () = assert!(core::mem::offset_of!(TraceRecord, detail) == 12);
const _: () = assert!(core::mem::offset_of!(TraceRecord, address) == 16);
const _: () = assert!(core::mem::offset_of!(TraceRecord, bytes) == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_12_1_golden_bytes() {
        let record = TraceRecord {
            sequence: 0x0102,
            kind: TraceKind::Grown.number(),
            code: 7,
            detail: 9,
            address: 0x3020_0000,
            bytes: 0x40_0000,
        };
        let golden: [u8; 32] = [
            2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 7, 0, 9, 0, 0, 0, 0, 0, 0x20, 0x30, 0, 0, 0, 0, 0, 0,
            0x40, 0, 0, 0, 0, 0,
        ];
        assert_eq!(record.as_bytes(), golden);
    }

    #[test]
    fn p_12_2_numbers_name_kinds_and_nothing_else() {
        for (index, kind) in TraceKind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.number()), index + 1);
            assert_eq!(TraceKind::try_from(kind.number()), Ok(kind));
        }
        assert_eq!(TraceKind::try_from(0), Err(0));
        assert_eq!(TraceKind::try_from(12), Err(12));
    }
}
