// SPDX-License-Identifier: MIT OR Apache-2.0
//! Slabs: runs of units divided into slots of one class.
//!
//! A slab with both used and free slots is on its class's list. One whose slots are all free is dissolved at once: its
//! units may be what a long run waits for. Slots that wait in a CPU's cache count as used here.

use super::cache::Slot;
use super::central::Central;
use super::class::{CLASSES, Class, ClassIndex, size_at};
use super::placement::{Placement, Room};
use super::slab_header::{Header, give_block, keep_generations};
use super::start::{Side, Start};
use super::tables::{NIL, RecordNumber, Tables};
use super::tag::{Tag, UnitKind};
use crate::geometry::unit_offset;

/// The lists of slabs with free slots.
#[derive(Debug)]
pub(super) struct Slabs {
    heads: [u32; CLASSES],
    /// Classes whose list is not empty.
    not_empty: u64,
}

impl Slabs {
    pub const fn new() -> Self {
        Self {
            heads: [NIL; CLASSES],
            not_empty: 0,
        }
    }

    fn head(&self, class: ClassIndex) -> Option<u32> {
        self.heads
            .get(class.index())
            .copied()
            .filter(|head| *head != NIL)
    }

    fn set_head(&mut self, class: ClassIndex, head: u32) {
        if let Some(entry) = self.heads.get_mut(class.index()) {
            *entry = head;
        }
        let bit = 1 << class.index();
        if head == NIL {
            self.not_empty &= !bit;
        } else {
            self.not_empty |= bit;
        }
    }

    /// The smallest class above this one with a free slot in a slab and the given alignment, as a power of two.
    fn next_above(&self, class: ClassIndex, alignment: u8) -> Option<ClassIndex> {
        let above = self.not_empty & aligned_classes(alignment) & (u64::MAX << 1 << class.index());
        u8::try_from(above.trailing_zeros())
            .ok()
            .and_then(ClassIndex::from_number)
    }
}

impl Central<'_> {
    /// Hands out one slot of a class, or of a larger one where the class has none. The class it is of comes with it.
    pub fn take_slot(&mut self, placement: &Placement) -> Option<(ClassIndex, Slot)> {
        let Room::Slot(class) = placement.room else {
            return None;
        };
        if placement.end_limit.is_some() {
            return self.take_slot_in_reach(class, placement);
        }
        let mut taken = None;
        self.take_slots(class, 1, |slot| taken = Some(slot));
        if let Some(slot) = taken {
            return Some((class, slot));
        }
        // The class has no slab and none can be made. A slot that is its own slab may still find room, and a larger class
        // may have a slab that is not full. Only where neither is so the pool is full for this length.
        let whole = class.whole();
        let partial = self.slabs.next_above(class, placement.slot_alignment);
        let in_order = match (partial, whole) {
            (Some(partial), Some(whole)) if partial < whole => [Some(partial), None],
            _ => [whole, partial],
        };
        for other in in_order.into_iter().flatten() {
            self.take_slots(other, 1, |slot| taken = Some(slot));
            if let Some(slot) = taken {
                return Some((other, slot));
            }
        }
        None
    }

    /// Hands out up to `most` slots of a class, all of one slab or one run.
    pub fn take_slots(&mut self, class: ClassIndex, most: u32, give: impl FnMut(Slot)) {
        if class.class().is_whole() {
            self.take_whole_slots(class, most, give);
        } else if let Some(first) = self.slabs.head(class).or_else(|| self.make_slab(class)) {
            self.take_from_slab(class, first, most, give);
        }
    }

    /// Slots that are slabs of their own: cut from one run where there is one.
    fn take_whole_slots(&mut self, index: ClassIndex, most: u32, mut give: impl FnMut(Slot)) {
        let class = index.class();
        let count = if self.is_tight() { 1 } else { most };
        let start = Start::multiple_of(class.align);
        let units = class.units;
        for count in [count, 1] {
            if let Some(first) = self
                .free
                .take(&self.tables, units * count, start, Side::High)
            {
                for unit in (0..count).map(|number| first + number * units) {
                    self.tag_slab(index, unit, 0);
                    give(whole_slot(unit));
                }
                self.note_peak();
                return;
            }
        }
    }

    fn take_from_slab(
        &mut self,
        index: ClassIndex,
        first: u32,
        most: u32,
        mut give: impl FnMut(Slot),
    ) {
        let class = index.class();
        let mut header = Header::read(&self.tables, class, first);
        for _ in 0..most {
            let slot = header.free_map.trailing_zeros();
            if slot >= class.slots {
                break;
            }
            header.free_map &= header.free_map - 1;
            give(slot_of(&self.tables, class, first, slot));
        }
        header.write(&self.tables, class, first);
        if header.free_map == 0 {
            self.unlink(index, first, header);
        }
    }

    /// Makes a slab and puts it on its class's list.
    fn make_slab(&mut self, index: ClassIndex) -> Option<u32> {
        let class = index.class();
        let start = Start::multiple_of(class.align);
        if class.is_small() && self.blocks.is_empty() {
            return None;
        }
        let first = self
            .free
            .take(&self.tables, class.units, start, Side::High)?;
        self.furnish_slab(index, first, 0);
        let header = Header {
            free_map: all_free(class),
            next: NIL,
            previous: NIL,
        };
        self.link(index, first, header);
        Some(first)
    }

    /// Gives a run of units what a slab needs: records, for small slots, and tags.
    pub(super) fn furnish_slab(&mut self, index: ClassIndex, first: u32, reservation: u8) {
        let class = index.class();
        if class.is_small()
            && let Some(number) = self.blocks.take(&self.tables)
        {
            give_block(&self.tables, class, first, number);
        }
        self.tag_slab(index, first, reservation);
        self.note_peak();
    }

    fn tag_slab(&self, index: ClassIndex, first: u32, reservation: u8) {
        let tag = Tag::of(UnitKind::Slab(index)).with_reservation(reservation);
        for (distance, unit) in (0_u8..).zip(first..first + index.class().units) {
            self.tables.set_tag(unit, tag.with_distance(distance));
        }
    }

    /// Takes a slot back. A slab whose slots are all free is dissolved.
    pub fn put_slot(&mut self, slot: Slot) {
        self.put_slot_of_slab(slot, true);
    }

    /// The same; `listed` is false for slabs that no list has.
    pub(super) fn put_slot_of_slab(&mut self, slot: Slot, listed: bool) {
        let Some((index, first)) = self.tables.slab_at(slot.offset) else {
            return;
        };
        let class = index.class();
        if class.is_whole() {
            return self.dissolve(class, first);
        }
        let mut header = Header::read(&self.tables, class, first);
        let was_full = header.free_map == 0;
        header.free_map |= 1 << class.slot_at(slot.offset - unit_offset(first));
        if header.free_map == all_free(class) {
            if listed && !was_full {
                self.unlink(index, first, header);
            }
            self.dissolve(class, first);
        } else if listed && was_full {
            self.link(index, first, header);
        } else {
            header.write(&self.tables, class, first);
        }
    }

    fn dissolve(&mut self, class: &Class, first: u32) {
        if class.is_small() {
            let number = self.tables.block_number(first);
            keep_generations(&self.tables, class, first, number);
            self.blocks.put(&self.tables, number);
        }
        for unit in first..first + class.units {
            self.tables.set_tag(unit, Tag::BODY);
        }
        self.put_units(first, class.units);
    }

    fn link(&mut self, index: ClassIndex, first: u32, header: Header) {
        let class = index.class();
        let next = self.slabs.head(index).unwrap_or(NIL);
        if next != NIL {
            let behind = Header {
                previous: first,
                ..Header::read(&self.tables, class, next)
            };
            behind.write(&self.tables, class, next);
        }
        let header = Header {
            next,
            previous: NIL,
            ..header
        };
        header.write(&self.tables, class, first);
        self.slabs.set_head(index, first);
    }

    fn unlink(&mut self, index: ClassIndex, first: u32, header: Header) {
        let class = index.class();
        let Header { next, previous, .. } = header;
        if next != NIL {
            let behind = Header {
                previous,
                ..Header::read(&self.tables, class, next)
            };
            behind.write(&self.tables, class, next);
        }
        if previous == NIL {
            self.slabs.set_head(index, next);
        } else {
            let before = Header {
                next,
                ..Header::read(&self.tables, class, previous)
            };
            before.write(&self.tables, class, previous);
        }
        let alone = Header {
            next: NIL,
            previous: NIL,
            ..header
        };
        alone.write(&self.tables, class, first);
    }

    /// A slot for a device that does not reach the whole window: one that is its own slab, in a block in reach.
    fn take_slot_in_reach(
        &mut self,
        class: ClassIndex,
        placement: &Placement,
    ) -> Option<(ClassIndex, Slot)> {
        let index = class.whole()?;
        let class = index.class();
        let start = Start::multiple_of(class.align);
        let first = self.take_in_reach(placement, class.units, |block, length| {
            start.fit(block, length, class.units, Side::Low)
        })?;
        self.tag_slab(index, first, 0);
        self.note_peak();
        Some((index, whole_slot(first)))
    }

    /// All slots of a new slab that no list has, for a reservation. Without records for small slots they are larger ones.
    pub(super) fn take_reserved_slab(
        &mut self,
        index: ClassIndex,
        reservation: u8,
        mut give: impl FnMut(Slot),
    ) -> bool {
        let without_block = index.class().is_small() && self.blocks.is_empty();
        let Some(index) = (if without_block {
            index.whole()
        } else {
            Some(index)
        }) else {
            return false;
        };
        let class = index.class();
        let start = Start::multiple_of(class.align);
        let Some(first) = self.free.take(&self.tables, class.units, start, Side::High) else {
            return false;
        };
        self.furnish_slab(index, first, reservation);
        if class.is_whole() {
            give(whole_slot(first));
        } else {
            let header = Header {
                free_map: 0,
                next: NIL,
                previous: NIL,
            };
            header.write(&self.tables, class, first);
            (0..class.slots).for_each(|slot| give(slot_of(&self.tables, class, first, slot)));
        }
        true
    }
}

const fn all_free(class: &Class) -> u32 {
    u32::MAX >> (32 - class.slots)
}

/// A bit for each class whose slots are multiples of a power of two.
fn aligned_classes(alignment: u8) -> u64 {
    static BY_ALIGNMENT: [u64; 16] = {
        let mut by_alignment = [0; 16];
        let mut alignment = 0;
        while alignment < by_alignment.len() {
            let mut class = 0;
            while class < CLASSES {
                if size_at(class).trailing_zeros() as usize >= alignment {
                    by_alignment[alignment] |= 1 << class;
                }
                class += 1;
            }
            alignment += 1;
        }
        by_alignment
    };
    BY_ALIGNMENT
        .get(usize::from(alignment))
        .copied()
        .unwrap_or(0)
}

const fn whole_slot(first: u32) -> Slot {
    Slot {
        offset: unit_offset(first),
        record: RecordNumber::of_unit(first),
    }
}

/// A slot of a slab, by its number.
fn slot_of(tables: &Tables<'_>, class: &Class, first: u32, slot: u32) -> Slot {
    let offset = unit_offset(first) + u64::from(slot * class.size);
    Slot {
        offset,
        record: tables.record_number(class, slot, offset),
    }
}
