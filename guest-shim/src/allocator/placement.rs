// SPDX-License-Identifier: MIT OR Apache-2.0
//! A request worked out once: a slot of which class, or how many units from where, and where in it the mapping lies.

use super::class::ClassIndex;
use super::start::{Boundary, Start};
use crate::constraints::Constraints;
use crate::error::MapError;
use crate::geometry::{
    CHUNK_BYTES, MAX_WINDOW_BYTES, SMALLEST_SLOT_BYTES, UNIT_BYTES, UNIT_SHIFT, UNITS_PER_CHUNK,
    Window, to_index, unit_of, unit_offset,
};

/// Slots of this size and its multiples lie at multiples of it.
const PAGE_BYTES: u64 = 4096;
/// Alignments that slots have; what lies between is rounded up.
const SLOT_ALIGNMENTS: [u64; 3] = [SMALLEST_SLOT_BYTES, 512, 4096];

/// Whether a request may lie anywhere in the window.
#[inline]
pub(crate) fn is_plain(window: &Window, constraints: &Constraints) -> bool {
    let Constraints {
        min_align_mask: mask,
        boundary,
        ..
    } = *constraints;
    // One test for what nearly every request is.
    let without = mask | boundary == 0;
    (without || mask == 0 && is_boundary(boundary) && window.lies_within(boundary))
        && constraints.alignment == 1
        && window.ends_at_or_below(constraints.highest_address)
}

/// Whether a number is a boundary: 0 for none, or a power of two.
#[inline]
const fn is_boundary(number: u64) -> bool {
    number & number.wrapping_sub(1) == 0
}

/// What is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// A slot of a class.
    Slot(ClassIndex),
    /// A run of units.
    Extent { units: u32, start: Start },
}

impl Room {
    /// Its length.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Slot(class) => class.class().size.into(),
            Self::Extent { units, .. } => unit_offset(units),
        }
    }
}

/// A request, worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Length of the mapping in bytes.
    pub length: u64,
    /// What it needs.
    pub room: Room,
    /// Offset of the mapping in it, in bytes.
    pub offset: u64,
    /// log2 of the granule whose low address bits the mapping shares with its buffer; 0 for none.
    pub shift: u8,
    /// log2 of what a slot for it is a multiple of.
    pub slot_alignment: u8,
    /// Offset in the window before which the mapping has to end; `None` if anywhere will do.
    pub end_limit: Option<u64>,
}

impl Placement {
    /// Works out a request.
    ///
    /// # Errors
    /// The named causes that no growth can cure.
    pub fn new(
        window: &Window,
        origin: u64,
        length: usize,
        constraints: &Constraints,
    ) -> Result<Self, MapError> {
        let length = length as u64;
        let Constraints {
            min_align_mask: mask,
            alignment,
            highest_address,
            boundary,
        } = *constraints;
        let powers = alignment.is_power_of_two() && is_boundary(boundary);
        if length == 0 || !powers || mask & mask.wrapping_add(1) != 0 {
            return Err(MapError::InvalidRequest);
        }
        if length > window.bytes() {
            return Err(MapError::TooLarge);
        }
        // Beyond the window's size an alignment leaves at most one address; nobody needs that.
        if alignment > window.bytes() || mask >= window.bytes() {
            return Err(MapError::OutOfReach);
        }
        let boundary = (!window.lies_within(boundary)).then_some(boundary);
        let placement = Self::in_slot(origin, length, mask, alignment, boundary).map_or_else(
            || Self::in_extent(window, origin, length, mask, alignment, boundary),
            Ok,
        )?;
        if window.ends_at_or_below(highest_address) {
            return Ok(placement);
        }
        // The last byte that counts is the mapping's, not its room's.
        let reachable = highest_address
            .checked_sub(window.base())
            .filter(|last| *last >= length - 1)
            .ok_or(MapError::OutOfReach)?;
        Ok(Self {
            end_limit: Some(reachable + 1),
            ..placement
        })
    }

    /// Slots have the alignments of [`SLOT_ALIGNMENTS`] once the length is a multiple of it.
    /// With a boundary they are of a size that is a power of two up to a page, and multiples of it: what lies in one of
    /// them crosses no multiple of the same or a larger one.
    fn in_slot(
        origin: u64,
        length: u64,
        mask: u64,
        alignment: u64,
        boundary: Option<u64>,
    ) -> Option<Self> {
        let granule = SLOT_ALIGNMENTS.into_iter().find(|align| mask < *align)?;
        let align = SLOT_ALIGNMENTS
            .into_iter()
            .find(|align| alignment <= *align)?;
        let (offset, shift) = if mask == 0 {
            (0, 0)
        } else {
            (origin & (granule - 1), log2(granule))
        };
        let mut align = granule.max(align);
        let mut bytes = (offset + length).next_multiple_of(align);
        if let Some(boundary) = boundary {
            bytes = bytes.next_power_of_two();
            align = align.max(bytes);
            if bytes > boundary || bytes > PAGE_BYTES {
                return None;
            }
        }
        Some(Self {
            length,
            room: Room::Slot(ClassIndex::for_length(bytes)?),
            offset,
            shift,
            slot_alignment: log2(align),
            end_limit: None,
        })
    }

    /// An extent begins and ends at a multiple of its granule, which is the unit or the alignment. Low bits beyond the
    /// granule cost no room: they say where the extent may begin. So does a boundary.
    fn in_extent(
        window: &Window,
        origin: u64,
        length: u64,
        mask: u64,
        alignment: u64,
        boundary: Option<u64>,
    ) -> Result<Self, MapError> {
        let granule = alignment.max(UNIT_BYTES);
        let offset = origin & mask & (granule - 1);
        // An extent's record keeps the whole units of the offset in 14 bits.
        if offset >> UNIT_SHIFT >= 1 << 14 {
            return Err(MapError::OutOfReach);
        }
        // Two units at least: the word of the second keeps the length.
        let bytes = (offset + length)
            .next_multiple_of(granule)
            .max(2 * UNIT_BYTES);
        if bytes > window.bytes() {
            return Err(MapError::TooLarge);
        }
        let stride = granule.max(mask + 1);
        let mut across = Boundary::NONE;
        if let Some(boundary) = boundary {
            // Where a mapping begins is known under the stride. If that is no less than the boundary, so is whether the
            // mapping crosses one. Otherwise it does not if it begins as early behind one as it may.
            let begins = origin & mask & (boundary - 1);
            if begins + length > boundary {
                return Err(MapError::OutOfReach);
            }
            if stride < boundary {
                across = boundary_in(window, boundary, offset + length);
            }
        }
        let address = origin & mask & !(granule - 1);
        let phase = address.wrapping_sub(window.base()) & (stride - 1);
        Ok(Self {
            length,
            room: Room::Extent {
                units: unit_of(bytes),
                start: Start {
                    mask: unit_of(stride) - 1,
                    phase: unit_of(phase),
                    boundary: across,
                },
            },
            offset,
            shift: log2((mask + 1).min(UNIT_BYTES)),
            slot_alignment: 0,
            end_limit: None,
        })
    }

    /// Bytes that the low address bits of any buffer cost at most, for masks below `align`.
    pub fn slack(align: u64) -> usize {
        let rounded = SLOT_ALIGNMENTS.into_iter().find(|slots| align <= *slots);
        match (align, rounded) {
            (1, _) => 0,
            (_, rounded) => to_index(rounded.unwrap_or(align) - 1),
        }
    }

    /// The same request in room that a reservation holds: slots and extents that begin at multiples of its alignment.
    pub fn reserved(self, room: Room, origin: u64, mask: u64) -> Self {
        match room {
            Room::Slot(_) => Self { room, ..self },
            Room::Extent { .. } => Self {
                room,
                offset: origin & mask,
                shift: log2((mask + 1).min(UNIT_BYTES)),
                ..self
            },
        }
    }

    /// Bytes of chunks that hold the room for certain, wherever a contiguous run of them lies.
    pub fn growth_bytes(&self) -> u64 {
        match self.room {
            Room::Slot(_) => CHUNK_BYTES,
            Room::Extent { units, start } => {
                // The start that is lowest behind the beginning of a chunk. Boundaries lie at such beginnings if they are
                // longer, and in all of them if not: what is behind the lowest start comes in whole chunks.
                let lead = start.phase & (UNITS_PER_CHUNK - 1) & start.mask;
                let further = start.slack() & !(UNITS_PER_CHUNK - 1);
                unit_offset(lead + units + further).next_multiple_of(CHUNK_BYTES)
            }
        }
    }

    /// Whether room that begins at this offset of the window ends the mapping in reach of the device.
    #[inline]
    pub fn reaches(&self, room_offset: u64) -> bool {
        self.end_limit
            .is_none_or(|limit| room_offset + self.offset + self.length <= limit)
    }
}

/// A boundary of at least two units that the window crosses, for runs whose first bytes count. What lies before a mapping in
/// its room is part of a granule, and no boundary lies in one.
fn boundary_in(window: &Window, boundary: u64, counted: u64) -> Boundary {
    // The window crosses one of more than its length once, and that of twice the longest window's is the same one there.
    let units = unit_of(boundary.min(2 * MAX_WINDOW_BYTES));
    let first = unit_of(window.base().wrapping_neg() & (boundary - 1));
    Boundary::new(units, first, unit_of(counted - 1))
}

#[expect(clippy::cast_possible_truncation, reason = "a number of bits below 64")]
const fn log2(value: u64) -> u8 {
    63_u32.saturating_sub(value.leading_zeros()) as u8
}

#[cfg(all(test, not(loom)))]
mod tests;
