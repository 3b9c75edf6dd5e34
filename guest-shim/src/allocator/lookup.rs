// SPDX-License-Identifier: MIT OR Apache-2.0
//! From an address to what lies there, by arithmetic and the tables, without a lock.
//!
//! A slot is found by its slab's tag: two loads and a multiplication. An extent is found at once by its first unit. From
//! a unit inside it the way back is logarithmic in its length: marking an extent writes its first unit's number into the
//! word of the first unit inside it that is a multiple of 2, the first that is a multiple of 4, and so on; from any unit,
//! rounding down to ever higher powers of two meets the last such unit that is still inside.
//!
//! What is found here is only a hint until the record there has been claimed: the central store may change tables at the
//! same time for a caller that has no business with the address.

use super::cache::{Extent, Slot};
use super::class::{Class, ClassIndex};
use super::record::{Record, State};
use super::tables::{RecordNumber, Tables};
use super::tag::UnitKind;
use crate::geometry::{UNIT_BYTES, UNIT_SHIFT, unit_of, unit_offset};

/// Bits of a unit number.
const UNIT_BITS: u32 = 26;

/// Room that may be handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A slot.
    Slot(ClassIndex, Slot),
    /// An extent.
    Extent(Extent),
}

impl Taken {
    /// Offset of its first byte in the window.
    #[inline]
    pub const fn offset(&self) -> u64 {
        match self {
            Self::Slot(_, slot) => slot.offset,
            Self::Extent(extent) => unit_offset(extent.first),
        }
    }

    /// Its length in bytes.
    #[inline]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Slot(class, _) => u64::from(class.class().size),
            Self::Extent(extent) => unit_offset(extent.units),
        }
    }

    /// Whether its record is one of a block, which is no unit's.
    #[inline]
    pub fn is_small(&self) -> bool {
        matches!(self, Self::Slot(class, _) if class.class().is_small())
    }

    /// The number of its record.
    #[inline]
    pub const fn record(&self) -> RecordNumber {
        match self {
            Self::Slot(_, slot) => slot.record,
            Self::Extent(extent) => RecordNumber::of_unit(extent.first),
        }
    }
}

/// Where a byte of the window lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// What it is part of.
    pub taken: Taken,
    /// The record of that.
    pub record: &'a Record,
    /// The reservation it belongs to; 0 for none.
    pub reservation: u8,
}

impl<'a> Tables<'a> {
    /// What the byte at this offset of the window is part of.
    #[inline]
    pub fn place_at(&self, offset: u64) -> Option<Place<'a>> {
        let unit = unit_of(offset);
        let tag = self.tag(unit);
        let (taken, reservation) = match tag.kind() {
            UnitKind::Slab(index) => {
                let class = index.class();
                let first = unit.checked_sub(tag.distance())?;
                let number = class.slot_at(offset.wrapping_sub(unit_offset(first)));
                let offset = unit_offset(first) + u64::from(number.wrapping_mul(class.size));
                let record = self.record_number(class, number, offset);
                (
                    Taken::Slot(index, Slot { offset, record }),
                    tag.reservation(),
                )
            }
            UnitKind::ExtentHead | UnitKind::Body => {
                let first = self.extent_around(unit)?;
                let units = self.extent_units(first);
                let reservation = self.tag(first).reservation();
                (Taken::Extent(Extent { first, units }), reservation)
            }
            UnitKind::FreeHead | UnitKind::FreeTail | UnitKind::FreeSingle => return None,
        };
        Some(Place {
            taken,
            record: self.record(taken.record())?,
            reservation,
        })
    }

    /// The slot that the byte at this offset is part of, and its state, if it is one that belongs to no reservation: what
    /// [`Tables::place_at`] and [`Tables::is_current`] find, with less to decide.
    #[inline(always)]
    pub fn slot_at(&self, offset: u64) -> Option<(ClassIndex, Slot, &'a Record, State)> {
        let unit = unit_of(offset);
        let tag = self.tag(unit);
        let UnitKind::Slab(index) = tag.kind() else {
            return None;
        };
        let class = index.class();
        let first = unit.checked_sub(tag.distance())?;
        let in_slab = class.slot_at(offset.wrapping_sub(unit_offset(first)));
        let offset = unit_offset(first) + u64::from(in_slab.wrapping_mul(class.size));
        if tag.reservation() != 0 {
            return None;
        }
        // Whether slots are small is as good as random, so nothing from here on branches on it: the word of a unit that has
        // no block is read in vain.
        let small = class.is_small();
        let block = self.block_number(unit);
        let in_block = self.in_block(block, in_slab);
        let in_unit = RecordNumber::of_unit(unit_of(offset));
        let number = if small { in_block } else { in_unit };
        let record = self.record(number)?;
        let state = record.state();
        // Read after the state, as `is_current` says.
        let is_current = (self.tag(unit) == tag) & (!small | (self.block_number(unit) == block));
        let slot = Slot {
            offset,
            record: number,
        };
        is_current.then_some((index, slot, record, state))
    }

    /// The extent whose first unit the byte at this offset lies in, its reservation, its record and the record's state.
    #[inline(always)]
    pub fn extent_at(&self, offset: u64) -> Option<(Extent, u8, &'a Record, State)> {
        let first = unit_of(offset);
        let tag = self.tag(first);
        if tag.kind() != UnitKind::ExtentHead {
            return None;
        }
        let record = self.record(RecordNumber::of_unit(first))?;
        let state = record.state();
        let units = self.extent_units(first);
        // Read after the state, as `is_current` says.
        let is_current = self.tag(first) == tag;
        is_current.then_some((Extent { first, units }, tag.reservation(), record, state))
    }

    /// Whether a place found for an offset is still there. Asked after the record's state was read.
    ///
    /// Between the look at the tag and the look at the record, what lay there may have been freed, and the record may
    /// serve something else by now. Whoever published that state had its tags written before, so a second look at the
    /// tags tells. If all is as it was, the state belongs to this place; if the place has come back meanwhile, the
    /// generation has changed, and no claim of the old state succeeds.
    pub fn is_current(&self, place: &Place<'_>, offset: u64) -> bool {
        self.place_at(offset).is_some_and(|again| {
            again.taken == place.taken && again.reservation == place.reservation
        })
    }

    /// The state of the record of a byte's unit, whatever the unit is part of.
    pub fn last_here(&self, offset: u64) -> Option<State> {
        self.record(RecordNumber::of_unit(unit_of(offset)))
            .map(Record::state)
    }

    /// Makes the record of a place newer than everything that was handed out in the unit in which a mapping there begins,
    /// where that is not the place's first one. A handle names an address, so its generation has to be new for the
    /// address, whichever record serves it. The place is the caller's, and nothing is handed out there.
    pub fn renew(&self, taken: &Taken, begins_in: u32) {
        if let (Some(record), Some(other)) = (
            self.record(taken.record()),
            self.record(RecordNumber::of_unit(begins_in)),
        ) {
            record.raise(other.state().generation());
        }
    }

    /// The reverse, when the mapping has ended: what begins in that unit later is newer still.
    pub fn keep_generation(&self, taken: Taken, begins_in: u32) {
        if let (Some(record), Some(other)) = (
            self.record(taken.record()),
            self.record(RecordNumber::of_unit(begins_in)),
        ) {
            other.raise(record.state().generation());
        }
    }

    /// The slab a byte lies in: its class and first unit.
    pub fn slab_at(&self, offset: u64) -> Option<(ClassIndex, u32)> {
        let unit = unit_of(offset);
        let tag = self.tag(unit);
        match tag.kind() {
            UnitKind::Slab(class) => Some((class, unit.checked_sub(tag.distance())?)),
            _ => None,
        }
    }

    /// The record of a slot.
    #[inline]
    pub fn record_number(&self, class: &Class, slot: u32, offset: u64) -> RecordNumber {
        if class.is_small() {
            self.in_block(self.block_number(unit_of(offset)), slot)
        } else {
            RecordNumber::of_unit(unit_of(offset))
        }
    }

    /// The block of records of a slab of small slots, by any of its units.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a block number was written there"
    )]
    pub fn block_number(&self, unit: u32) -> u32 {
        self.word(unit) as u32
    }

    /// Writes what leads from inside an extent to its first unit, and its length in units.
    pub fn mark_extent(&self, first: u32, units: u32) {
        self.set_word(first + 1, u64::from(units - 1));
        for bits in 1..UNIT_BITS {
            let unit = (first | ((1 << bits) - 1)) + 1;
            if unit - first >= units {
                break;
            }
            if unit > first + 1 {
                self.set_word(unit, u64::from(first));
            }
        }
    }

    /// Length of an extent in units.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "masked to 26 bits")]
    pub fn extent_units(&self, first: u32) -> u32 {
        (self.word(first + 1) as u32 & ((1 << UNIT_BITS) - 1)) + 1
    }

    /// Length of what is mapped in an extent, in bytes.
    #[inline]
    pub fn extent_length(&self, first: u32) -> u64 {
        self.word(first + 1) >> UNIT_BITS
    }

    /// Sets the length of what is mapped in an extent; it has 38 bits.
    #[inline]
    pub fn set_extent_length(&self, extent: Extent, length: u64) {
        self.set_word(
            extent.first + 1,
            length << UNIT_BITS | u64::from(extent.units - 1),
        );
    }

    /// The first unit of the extent that a unit lies in.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a unit number, or refused by the check"
    )]
    fn extent_around(&self, unit: u32) -> Option<u32> {
        let covers = |first: u32| {
            first <= unit
                && self.tag(first).kind() == UnitKind::ExtentHead
                && unit - first < self.extent_units(first)
        };
        for bits in 0..UNIT_BITS {
            let rounded = unit & !((1 << bits) - 1);
            let marked = self.word(rounded) as u32;
            // The second unit keeps the length, so the first is tried there too.
            for first in [rounded, rounded.wrapping_sub(1), marked] {
                if covers(first) {
                    return Some(first);
                }
            }
            if rounded == 0 {
                break;
            }
        }
        None
    }

    /// Offset in the window at which the mapping in a place begins, and its length.
    #[inline]
    pub fn mapped(&self, place: &Place<'_>, state: State) -> (u64, u64) {
        let low = place.record.origin().low_bits();
        match place.taken {
            Taken::Slot(_, slot) => (slot.offset + low, state.extra() + 1),
            Taken::Extent(extent) => {
                let begin = unit_offset(extent.first) + (state.extra() << UNIT_SHIFT);
                (begin + low % UNIT_BYTES, self.extent_length(extent.first))
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::atomic::AtomicU16;
    use std::vec::Vec;

    #[test]
    fn an_extent_can_be_the_largest_window() {
        let tags: Vec<_> = (0..4).map(|_| AtomicU16::new(0)).collect();
        let records: Vec<_> = (0..4).map(|_| Record::unused()).collect();
        let tables = Tables::new(&tags, &records, &[]);
        let units = unit_of(crate::MAX_WINDOW_BYTES);
        tables.mark_extent(0, units);
        assert_eq!(tables.extent_units(0), units);
        tables.set_extent_length(Extent { first: 0, units }, crate::MAX_WINDOW_BYTES);
        assert_eq!(tables.extent_length(0), crate::MAX_WINDOW_BYTES);
        assert_eq!(tables.extent_units(0), units);
    }
}
