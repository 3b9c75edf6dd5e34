// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sizes of slots: multiples of 64 bytes up to 512, then eight steps for each doubling up to 16 KiB.
//!
//! A slot is therefore at most 1/8 larger than what it was asked for, once that is rounded to 64 bytes. Slots of one
//! class come from slabs: the fewest whole units that slots fill without a rest. A class that is a multiple of the unit
//! has slabs of one slot, so nothing of it is ever stuck in a slab that is partly used.
//!
//! Every class is a multiple of the alignment its index implies: rounding a length up to a multiple of 64, 512 or 4096
//! before asking for the class gives slots with that alignment (`placement.rs` relies on it; a test below proves it).

use crate::geometry::{SMALLEST_SLOT_BYTES, UNIT_BYTES};

/// Number of classes.
pub(super) const CLASSES: usize = 48;
/// The largest slot.
pub(super) const LARGEST_SLOT_BYTES: u64 = 16 << 10;
/// Slots of a slab whose slots are smaller than a unit.
pub(super) const SMALL_SLOTS: u32 = 32;

/// One class of slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Class {
    /// Bytes of a slot.
    pub size: u32,
    /// Units of a slab.
    pub units: u32,
    /// Slots of a slab.
    pub slots: u32,
    /// Slabs begin at a multiple of this many units.
    pub align: u32,
    /// Slots that a CPU's cache holds at most.
    pub cached: u32,
    /// 2^32 / size, rounded up: division by a multiplication.
    reciprocal: u64,
}

/// Index of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClassIndex(u8);

#[expect(clippy::cast_possible_truncation, reason = "2048")]
const UNIT: u32 = UNIT_BYTES as u32;

/// Most slots of a class in one cache. Few where a model checker follows every one.
pub(super) const MOST_CACHED: u32 = if cfg!(loom) { 2 } else { 16 };
/// Most bytes of a class in one cache, two slots apart from that.
const CACHED_BYTES: u32 = 32 << 10;

static TABLE: [Class; CLASSES] = {
    let mut table = [Class::of_size(64); CLASSES];
    let mut index = 1;
    while index < CLASSES {
        table[index] = Class::of_size(size_at(index));
        index += 1;
    }
    table
};

/// Granules of 64 bytes of the largest slot.
const GRANULES: usize = (LARGEST_SLOT_BYTES / SMALLEST_SLOT_BYTES) as usize;

/// The class for each number of granules, less 1.
static BY_GRANULES: [u8; GRANULES] = {
    let mut classes = [0; GRANULES];
    let (mut granule, mut class) = (0, 0);
    while granule < GRANULES {
        if size_at(class as usize) as usize / 64 <= granule {
            class += 1;
        }
        classes[granule] = class;
        granule += 1;
    }
    classes
};

/// Bytes of a slot of the class with this index.
#[expect(clippy::cast_possible_truncation, reason = "an index below 48")]
pub(super) const fn size_at(index: usize) -> u32 {
    if index < 8 {
        64 * (index as u32 + 1)
    } else {
        let step = index as u32 - 8;
        (9 + step % 8) << (6 + step / 8)
    }
}

impl Class {
    const fn of_size(size: u32) -> Self {
        let unit = UNIT;
        let mut slots = if size < unit { SMALL_SLOTS } else { 1 };
        while !(size * slots).is_multiple_of(unit) {
            slots *= 2;
        }
        let mut cached = CACHED_BYTES / size;
        if cached < 2 {
            cached = 2;
        }
        if cached > MOST_CACHED {
            cached = MOST_CACHED;
        }
        Self {
            size,
            units: size * slots / unit,
            slots,
            align: if size.is_multiple_of(4096) { 2 } else { 1 },
            cached,
            reciprocal: (1 << 32) / size as u64 + 1,
        }
    }

    /// Whether slots are smaller than a unit: their records lie in a block of their own.
    #[inline]
    pub const fn is_small(&self) -> bool {
        self.size < UNIT
    }

    /// Whether a slab is one slot.
    #[inline]
    pub const fn is_whole(&self) -> bool {
        self.slots == 1
    }

    /// The slot of a slab in which the byte at this offset lies.
    #[inline]
    pub const fn slot_at(&self, offset_in_slab: u64) -> u32 {
        ((offset_in_slab * self.reciprocal) >> 32) as u32
    }
}

impl ClassIndex {
    /// The smallest class for a length of 1 to [`LARGEST_SLOT_BYTES`] bytes; `None` beyond.
    #[inline]
    pub const fn for_length(length: u64) -> Option<Self> {
        // A table and no branches: lengths are as good as random.
        let granule = length.wrapping_sub(1) / SMALLEST_SLOT_BYTES;
        if granule < GRANULES as u64 {
            Some(Self(BY_GRANULES[granule as usize % GRANULES]))
        } else {
            None
        }
    }

    /// The smallest class from this one on whose slots are slabs of their own.
    pub const fn whole(self) -> Option<Self> {
        Self::for_length((size_at(self.0 as usize) as u64).next_multiple_of(UNIT_BYTES))
    }

    /// The class with this number, if there is one.
    #[inline]
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < CLASSES {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its number, below [`CLASSES`].
    #[inline]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// As an index into tables of [`CLASSES`] elements.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// What the class is.
    #[inline]
    pub fn class(self) -> &'static Class {
        // There is no other index.
        TABLE.get(self.index()).unwrap_or(&TABLE[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value, but for an interpreter.
    const STEP: usize = if cfg!(miri) { 61 } else { 1 };

    fn class(length: u64) -> &'static Class {
        ClassIndex::for_length(length).unwrap().class()
    }

    fn all() -> impl Iterator<Item = &'static Class> {
        (0..48).map(|number| ClassIndex::from_number(number).unwrap().class())
    }

    #[test]
    fn every_length_gets_the_smallest_slot_that_holds_it() {
        for length in (1..=LARGEST_SLOT_BYTES).step_by(STEP) {
            let index = ClassIndex::for_length(length).unwrap();
            let size = u64::from(index.class().size);
            assert!(size >= length, "{length} in {size}");
            if let Some(below) = index.0.checked_sub(1) {
                assert!(u64::from(ClassIndex(below).class().size) < length);
            }
            let rounded = length.next_multiple_of(SMALLEST_SLOT_BYTES);
            assert!(size - rounded <= rounded / 8, "waste of {length} in {size}");
        }
        assert_eq!(ClassIndex::for_length(0), None);
        assert_eq!(ClassIndex::for_length(LARGEST_SLOT_BYTES + 1), None);
        assert_eq!(
            ClassIndex::for_length(LARGEST_SLOT_BYTES).unwrap().0 as usize,
            CLASSES - 1
        );
    }

    #[test]
    fn slabs_are_whole_units_without_a_rest() {
        for class in all() {
            assert_eq!(
                u64::from(class.size * class.slots),
                u64::from(class.units) * UNIT_BYTES
            );
            assert!(
                class.units <= 31,
                "a tag has five bits for the distance to the slab's start"
            );
            assert!(class.slots <= 32, "a free map has 32 bits");
            if !class.is_small() && !class.is_whole() {
                assert!(
                    class.slots <= 8,
                    "a header in a record has eight bits for the free map"
                );
            }
        }
        assert!(class(2048).is_whole() && class(4096).is_whole() && class(16384).is_whole());
    }

    #[test]
    fn division_by_multiplication_is_exact() {
        for class in all() {
            for offset in (0..u64::from(class.units) * UNIT_BYTES).step_by(STEP) {
                assert_eq!(
                    u64::from(class.slot_at(offset)),
                    offset / u64::from(class.size)
                );
            }
        }
    }

    #[test]
    fn a_length_rounded_to_an_alignment_gets_slots_of_that_alignment() {
        for align in [64, 512, 4096_u64] {
            for length in (1..=LARGEST_SLOT_BYTES / align).map(|count| count * align) {
                let class = class(length);
                assert_eq!(u64::from(class.size) % align, 0, "{length} at {align}");
                assert_eq!(
                    u64::from(class.align) * UNIT_BYTES % align.min(4096),
                    0,
                    "{length} at {align}"
                );
            }
        }
    }
}
