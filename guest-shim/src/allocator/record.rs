// SPDX-License-Identifier: MIT OR Apache-2.0
//! The private record of a slot: what was handed out there, to whom its bytes belong, how often it was reused.
//!
//! Records live in memory that only the guest sees. Neither an unmap nor a sync ever asks the pool what is true.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::constraints::Direction;

/// What a slot's record stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing begins here.
    Free,
    /// A mapping's first byte lies here.
    Mapping,
    /// A shared buffer's first byte lies here.
    SharedBuffer,
    /// A reserved extent that waits for a mapping begins here.
    Reserved,
    /// A mapping that a context is copying or freeing.
    Claimed,
}

impl Kind {
    const fn into_bits(self) -> u8 {
        self as u8
    }

    const fn from_bits(bits: u8) -> Self {
        match bits {
            1 => Self::Mapping,
            2 => Self::SharedBuffer,
            3 => Self::Reserved,
            4 => Self::Claimed,
            _ => Self::Free,
        }
    }
}

impl Direction {
    const fn into_bits(self) -> u8 {
        self as u8
    }

    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::ToDevice,
            1 => Self::FromDevice,
            _ => Self::Bidirectional,
        }
    }
}

/// The small fields of a record.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub(crate) struct Shape {
    /// Length in bytes, bits 37:32.
    #[bits(6)]
    pub length_high: u8,
    /// Offset of the first byte in its slot.
    #[bits(11)]
    pub offset: u16,
    /// log2 of the unit the extent is rounded to on both sides, less log2 of the slot.
    #[bits(5)]
    pub granule_shift: u8,
    /// Meaningful for mappings.
    #[bits(2)]
    pub direction: Direction,
    /// What the record stands for.
    #[bits(3)]
    pub kind: Kind,
    /// The reservation the extent goes back to; 0 for none.
    #[bits(4)]
    pub reservation: u8,
    /// Nothing was copied in, and nothing is copied out without a length.
    pub device_written: bool,
}

/// One record: 20 bytes for 2 KiB, which leaves room for the chunk headers below 1 % of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Record {
    origin_low: u32,
    origin_high: u32,
    length_low: u32,
    /// Counts how often something here was given back; the generation of a handle equals it.
    pub(crate) generation: u32,
    shape: u32,
}

const _: () = assert!(size_of::<Record>() == 20);

impl Record {
    /// A record nothing was ever handed out at; all bytes zero.
    pub(crate) const UNUSED: Self = Self {
        origin_low: 0,
        origin_high: 0,
        length_low: 0,
        generation: 0,
        shape: 0,
    };

    /// Fills everything but the generation, which survives.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "halves of the two quantities; a length has 38 bits"
    )]
    pub(crate) const fn fill(&mut self, origin: u64, length: u64, shape: Shape) {
        self.origin_low = origin as u32;
        self.origin_high = (origin >> 32) as u32;
        self.length_low = length as u32;
        self.shape = shape
            .with_length_high((length >> 32) as u8 & 0x3f)
            .into_bits();
    }

    /// Address of the driver's buffer; the next extent of a reservation's list for [`Kind::Reserved`].
    pub(crate) fn origin(&self) -> u64 {
        u64::from(self.origin_high) << 32 | u64::from(self.origin_low)
    }

    /// Length in bytes.
    pub(crate) fn length(&self) -> u64 {
        u64::from(self.shape().length_high()) << 32 | u64::from(self.length_low)
    }

    /// The small fields.
    pub(crate) const fn shape(&self) -> Shape {
        Shape::from_bits(self.shape)
    }

    /// What the record stands for.
    pub(crate) const fn kind(&self) -> Kind {
        self.shape().kind()
    }

    /// Changes what the record stands for and nothing else.
    pub(crate) const fn set_kind(&mut self, kind: Kind) {
        self.shape = self.shape().with_kind(kind).into_bits();
    }

    /// Frees the record: handles that were given out for it are stale from now on. The other fields stay, which is how
    /// a second unmap is told from an address that was never mapped.
    pub(crate) const fn retire(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.set_kind(Kind::Free);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_every_field_at_its_limits() {
        let mut record = Record::UNUSED;
        record.generation = 7;
        let shape = Shape::new()
            .with_offset(2047)
            .with_granule_shift(31)
            .with_direction(Direction::Bidirectional)
            .with_kind(Kind::Claimed)
            .with_reservation(15)
            .with_device_written(true);
        record.fill(u64::MAX, (1 << 38) - 1, shape);
        assert_eq!(record.origin(), u64::MAX);
        assert_eq!(record.length(), (1 << 38) - 1);
        assert_eq!(record.generation, 7);
        assert_eq!(record.shape().with_length_high(0), shape);
        record.retire();
        assert_eq!((record.generation, record.kind()), (8, Kind::Free));
        assert_eq!(record.length(), (1 << 38) - 1);
    }

    #[test]
    fn zero_bytes_are_an_unused_record() {
        assert_eq!(Record::read_from_bytes(&[0; 20]).unwrap(), Record::UNUSED);
        assert_eq!(Record::UNUSED.kind(), Kind::Free);
    }
}
