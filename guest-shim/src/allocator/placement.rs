// SPDX-License-Identifier: MIT OR Apache-2.0
//! A request worked out once: how many slots, where they may begin, and where in them the mapping lies.

use super::bitmap::StartRule;
use crate::constraints::Constraints;
use crate::error::MapError;
use crate::geometry::{
    CHUNK_BYTES, CHUNK_SLOT_SHIFT, SLOT_BYTES, SLOT_SHIFT, SLOTS_PER_CHUNK, Window, to_index,
};

/// The extent a mapping needs.
///
/// An extent begins and ends at a multiple of its granule (the slot, or the allocation alignment if that is larger),
/// so the first and last slot follow from the mapping's address, length and granule alone: no list of padding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement {
    /// Length of the mapping in bytes.
    pub length: u64,
    /// Length of the extent in slots.
    pub slots: usize,
    /// Offset of the mapping in the extent in bytes.
    pub offset: u64,
    /// log2 of the granule, less log2 of the slot.
    pub granule_shift: u8,
    /// Bits of the absolute slot number of the extent that matter, and their value.
    pub(super) stride_mask: u64,
    pub(super) phase: u64,
    /// Highest first slot, counted from the window's base.
    pub(super) last_start: usize,
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
        let Constraints {
            min_align_mask: mask,
            alignment,
            highest_address,
        } = *constraints;
        let length = length as u64;
        if length == 0 || !alignment.is_power_of_two() || mask & mask.wrapping_add(1) != 0 {
            return Err(MapError::InvalidRequest);
        }
        if length > window.bytes() {
            return Err(MapError::TooLarge);
        }
        // Beyond the window's size an alignment leaves at most one address; nobody needs that.
        if alignment > window.bytes() || mask >= window.bytes() {
            return Err(MapError::OutOfReach);
        }
        let granule = alignment.max(SLOT_BYTES);
        let offset = origin & mask & (granule - 1);
        let extent = (offset + length).next_multiple_of(granule);
        if extent > window.bytes() {
            return Err(MapError::TooLarge);
        }
        let stride = granule.max(mask + 1);
        let last_address = highest_address
            .checked_sub(offset + length - 1)
            .and_then(|address| address.checked_sub(window.base()))
            .ok_or(MapError::OutOfReach)?;
        Ok(Self {
            length,
            slots: to_index(extent >> SLOT_SHIFT),
            offset,
            granule_shift: granule_shift(granule),
            stride_mask: (stride - 1) >> SLOT_SHIFT,
            phase: (origin & mask & !(granule - 1)) >> SLOT_SHIFT,
            last_start: to_index(last_address.min(window.bytes() - extent) >> SLOT_SHIFT),
        })
    }

    /// Bytes of chunks that hold the extent for certain, wherever a contiguous run of them lies.
    pub fn growth_bytes(&self) -> u64 {
        let extent = ((self.lead() + self.slots) as u64) << SLOT_SHIFT;
        let stride = (self.stride_mask + 1) << SLOT_SHIFT;
        (extent + stride.saturating_sub(CHUNK_BYTES)).next_multiple_of(CHUNK_BYTES)
    }

    /// The lowest slot of a chunk that the extent may begin at, where the chunk itself is an allowed one.
    pub fn lead(&self) -> usize {
        to_index(self.phase) & (SLOTS_PER_CHUNK - 1)
    }

    /// Whether any start is as good as any other, so that a failed search says that the pool is full.
    pub fn is_unconstrained(&self, window: &Window) -> bool {
        self.stride_mask == 0
            && self.last_start == to_index(window.bytes() >> SLOT_SHIFT) - self.slots
    }

    /// Whether the extent may begin at this slot of the window.
    pub fn allows(&self, window: &Window, slot: usize) -> bool {
        slot <= self.last_start && window.absolute_slot(slot) & self.stride_mask == self.phase
    }

    /// Which slots of a chunk the extent may begin at; `None` if not one of them.
    pub(super) fn rule_in_chunk(&self, window: &Window, chunk: usize) -> Option<StartRule> {
        let first = chunk << CHUNK_SLOT_SHIFT;
        let in_chunk = SLOTS_PER_CHUNK as u64 - 1;
        let chunk_bits = window.absolute_slot(first) & self.stride_mask & !in_chunk;
        if chunk_bits != self.phase & !in_chunk {
            return None;
        }
        Some(StartRule {
            mask: to_index(self.stride_mask & in_chunk),
            phase: to_index(self.phase & in_chunk),
            last: self.last_start.checked_sub(first)?,
        })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a number of bits below 64")]
const fn granule_shift(granule: u64) -> u8 {
    (granule.trailing_zeros() - SLOT_SHIFT) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x4000_0000;

    fn place(origin: u64, length: usize, constraints: Constraints) -> Result<Placement, MapError> {
        let window = Window::new(BASE, 8 * CHUNK_BYTES).unwrap();
        Placement::new(&window, origin, length, &constraints)
    }

    #[test]
    fn low_bits_cost_an_offset_and_not_an_alignment_of_the_extent() {
        let nvme = Constraints {
            min_align_mask: 4095,
            ..Constraints::NONE
        };
        let placement = place(0x1234_5e10, 400, nvme).unwrap();
        assert_eq!((placement.offset, placement.slots), (0x610, 1));
        assert_eq!((placement.stride_mask, placement.phase), (1, 1));
    }

    #[test]
    fn granules_are_whole() {
        let placement = place(0x1234_5e10, 512, Constraints::aligned(65536)).unwrap();
        assert_eq!(
            (placement.offset, placement.slots, placement.granule_shift),
            (0, 32, 5)
        );
        let both = Constraints {
            min_align_mask: 4095,
            ..Constraints::aligned(65536)
        };
        assert_eq!(place(0x1234_5e10, 512, both).unwrap().offset, 0xe10);
    }

    #[test]
    fn requests_that_no_growth_cures_name_their_cause() {
        let cases = [
            (0, Constraints::NONE, MapError::InvalidRequest),
            (1, Constraints::aligned(0), MapError::InvalidRequest),
            (1, Constraints::aligned(48), MapError::InvalidRequest),
            (
                1,
                Constraints {
                    min_align_mask: 0xff0,
                    ..Constraints::NONE
                },
                MapError::InvalidRequest,
            ),
            (8 * (2 << 20) + 1, Constraints::NONE, MapError::TooLarge),
            (usize::MAX, Constraints::NONE, MapError::TooLarge),
            (1, Constraints::aligned(1 << 40), MapError::OutOfReach),
            (
                1,
                Constraints {
                    min_align_mask: u64::MAX,
                    ..Constraints::NONE
                },
                MapError::OutOfReach,
            ),
            (
                2,
                Constraints {
                    highest_address: BASE,
                    ..Constraints::NONE
                },
                MapError::OutOfReach,
            ),
        ];
        for (length, constraints, cause) in cases {
            assert_eq!(
                place(0, length, constraints).map(|_| ()),
                Err(cause),
                "{length} {constraints:?}"
            );
        }
        assert!(
            place(
                0,
                1,
                Constraints {
                    highest_address: BASE,
                    ..Constraints::NONE
                }
            )
            .is_ok()
        );
    }
}
