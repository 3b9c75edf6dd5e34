// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a unit of the window is part of: 16 bits of private metadata for each.
//!
//! Written by the holder of the central lock, read by every unmap. A unit inside an extent or a free block has the tag
//! zero, so an extent costs the same to hand out whatever its length.

use super::class::ClassIndex;

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnitKind {
    /// Inside an extent or a free block, or not granted.
    Body,
    /// Part of a slab of this class.
    Slab(ClassIndex),
    /// First of an extent.
    ExtentHead,
    /// First of a free block of two or more units.
    FreeHead,
    /// Last of a free block of two or more units.
    FreeTail,
    /// A free block of one unit.
    FreeSingle,
}

const EXTENT_HEAD: u8 = 60;
const FREE_HEAD: u8 = 61;
const FREE_TAIL: u8 = 62;
const FREE_SINGLE: u8 = 63;

impl UnitKind {
    #[inline]
    const fn into_bits(self) -> u8 {
        match self {
            Self::Body => 0,
            Self::Slab(class) => class.number() + 1,
            Self::ExtentHead => EXTENT_HEAD,
            Self::FreeHead => FREE_HEAD,
            Self::FreeTail => FREE_TAIL,
            Self::FreeSingle => FREE_SINGLE,
        }
    }

    #[inline]
    const fn from_bits(bits: u8) -> Self {
        match bits {
            EXTENT_HEAD => Self::ExtentHead,
            FREE_HEAD => Self::FreeHead,
            FREE_TAIL => Self::FreeTail,
            FREE_SINGLE => Self::FreeSingle,
            0 => Self::Body,
            number => match ClassIndex::from_number(number - 1) {
                Some(class) => Self::Slab(class),
                None => Self::Body,
            },
        }
    }
}

/// The tag of a unit.
///
/// ```text
///   15  14        11 10      6 5    0
/// | 0  | reservation | distance | kind |
/// ```
///
/// * `distance` is the number of units between the slab's first one and this one.
/// * `reservation` is the one that the slab or extent belongs to; 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u16);

impl Tag {
    /// The tag zero.
    pub const BODY: Self = Self(0);

    /// A tag that needs no more than its kind.
    pub const fn of(kind: UnitKind) -> Self {
        Self(kind.into_bits() as u16)
    }

    /// The tag with another distance, at most 31.
    pub const fn with_distance(self, distance: u8) -> Self {
        Self(self.0 & !(31 << 6) | (distance as u16 & 31) << 6)
    }

    /// The tag with another reservation, at most 15.
    pub const fn with_reservation(self, reservation: u8) -> Self {
        Self(self.0 & !(15 << 11) | (reservation as u16 & 15) << 11)
    }

    /// What the unit is.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "six bits")]
    pub const fn kind(self) -> UnitKind {
        UnitKind::from_bits(self.0 as u8 & 63)
    }

    /// Units between the slab's first one and this one.
    #[inline]
    pub const fn distance(self) -> u32 {
        self.0 as u32 >> 6 & 31
    }

    /// The reservation; 0 for none.
    #[inline]
    pub const fn reservation(self) -> u8 {
        (self.0 >> 11) as u8 & 15
    }

    /// As it is stored.
    #[inline]
    pub const fn into_bits(self) -> u16 {
        self.0
    }

    /// From what is stored.
    #[inline]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_its_encoding() {
        let slabs = (0..48).map(|number| UnitKind::Slab(ClassIndex::from_number(number).unwrap()));
        let others = [
            UnitKind::Body,
            UnitKind::ExtentHead,
            UnitKind::FreeHead,
            UnitKind::FreeTail,
            UnitKind::FreeSingle,
        ];
        for kind in slabs.chain(others) {
            let tag = Tag::of(kind).with_distance(31).with_reservation(15);
            let tag = Tag::from_bits(tag.into_bits());
            assert_eq!(
                (tag.kind(), tag.distance(), tag.reservation()),
                (kind, 31, 15)
            );
        }
        assert_eq!(Tag::BODY.into_bits(), 0);
    }
}
