// SPDX-License-Identifier: MIT OR Apache-2.0
//! `classic`: the algorithm that guests run today, as its documentation describes it (Linux `swiotlb`, without growth).
//!
//! The pool is an array of 2 KiB slots, grouped in sets of 128; every CPU has an area, a range of sets, with a lock and
//! a position. A slot's record counts the free slots from it to the end of its set. A map searches its area slot by slot
//! from the position on for a count that suffices, then the other areas; taking and freeing slots writes the record of
//! each of them and renumbers the free slots before them. No mapping crosses the end of a set.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::spin_lock::SpinLock;

mod operations;

pub use operations::OPERATIONS;

const SLOT: usize = 2 << 10;
const SET_SLOTS: usize = 128;
const PAGE: usize = 4 << 10;

/// What is kept per slot.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// What the slot's first byte stands for in the driver's memory.
    original: *mut u8,
    /// Bytes from the slot's first byte to the end of the mapping, padding included.
    extent: usize,
    /// Free slots from this one to the end of the set; 0 if it is in use.
    free_run: u16,
    /// Slots before this one that only align the mapping; kept with the slot that its address lies in.
    padding: u16,
}

/// A range of sets. As in the kernel, several of them share a cache line.
#[derive(Debug)]
struct Area {
    used: AtomicUsize,
    position: AtomicUsize,
    lock: SpinLock,
}

/// A request in slots.
#[derive(Clone, Copy, Debug)]
struct Wish {
    slots: usize,
    /// Candidates are multiples of this many slots.
    stride: usize,
    /// Slots between the extent's first one and the one that the address lies in.
    padding: usize,
    /// Bytes between the extent's first one and the address.
    offset: usize,
    original: *mut u8,
}

/// The slots of a pool.
#[derive(Debug)]
pub struct Slots {
    records: Vec<UnsafeCell<Record>>,
    areas: Vec<Area>,
    area_slots: usize,
}

// SAFETY: A record is only written under the lock of the area it lies in, or by the mapping that owns it.
unsafe impl Sync for Slots {}
// SAFETY: The driver's memory that records point to is lent to every thread.
unsafe impl Send for Slots {}

impl Slots {
    /// All free. As many areas as CPUs, rounded up to a power of two, as far as each has a set of its own.
    fn new(bytes: usize, cpus: usize) -> Self {
        let slots = bytes / SLOT;
        let sets = slots / SET_SLOTS;
        let mut areas = cpus.next_power_of_two();
        while areas > 1 && (areas > sets || !sets.is_multiple_of(areas)) {
            areas /= 2;
        }
        let record = |slot: usize| Record {
            original: std::ptr::null_mut(),
            extent: 0,
            free_run: run_length(SET_SLOTS - slot % SET_SLOTS),
            padding: 0,
        };
        Self {
            records: (0..slots)
                .map(|slot| UnsafeCell::new(record(slot)))
                .collect(),
            areas: std::iter::repeat_with(|| Area {
                used: AtomicUsize::new(0),
                position: AtomicUsize::new(0),
                lock: SpinLock::new(),
            })
            .take(areas)
            .collect(),
            area_slots: slots / areas,
        }
    }

    /// Bytes of everything that is kept.
    fn metadata_bytes(&self) -> usize {
        self.records.len() * size_of::<Record>() + self.areas.len() * size_of::<Area>()
    }

    /// Slots in use.
    fn used(&self) -> usize {
        let areas = self.areas.iter();
        areas.map(|area| area.used.load(Ordering::Relaxed)).sum()
    }

    /// Takes slots for a buffer; the offset of the mapping in the pool.
    fn take(
        &self,
        original: *mut u8,
        length: usize,
        min_align_mask: usize,
        align_mask: usize,
        cpu: usize,
    ) -> Option<usize> {
        // Pages stay pages where nobody asks for anything else.
        let align_mask = match (min_align_mask, align_mask) {
            (0, 0) if length >= PAGE => PAGE - 1,
            (_, mask) => mask,
        };
        let low_bits = original.addr() & min_align_mask;
        // Low bits below the allocation's alignment become padding, those above it choose the slot.
        let offset = low_bits & (align_mask | (SLOT - 1));
        let extent = (offset + length).next_multiple_of((align_mask + 1).max(SLOT));
        let wish = Wish {
            slots: extent / SLOT,
            stride: ((align_mask + 1) / SLOT).max(1),
            padding: offset / SLOT,
            offset,
            original,
        };
        if wish.slots > SET_SLOTS {
            return None;
        }
        let chosen_bits = (min_align_mask & !(align_mask | (SLOT - 1)), low_bits);
        let home = cpu % self.areas.len();
        (0..self.areas.len()).find_map(|step| {
            let area = (home + step) % self.areas.len();
            self.areas[area]
                .lock
                .with(|| self.search(area, &wish, chosen_bits))
        })
    }

    /// The record of a slot whose area is locked, or that the caller's mapping owns.
    #[inline]
    #[expect(
        clippy::mut_from_ref,
        reason = "the area's lock or the mapping makes it exclusive"
    )]
    fn record(&self, slot: usize) -> &mut Record {
        // SAFETY: Only called under the lock of the slot's area or by the one mapping that owns the slot, and no two
        // results are alive at a time.
        unsafe { &mut *self.records[slot].get() }
    }

    /// Searches one area, under its lock.
    fn search(&self, area: usize, wish: &Wish, (bits, wanted): (usize, usize)) -> Option<usize> {
        let Area { used, position, .. } = &self.areas[area];
        let free = self.area_slots - used.load(Ordering::Relaxed);
        if wish.slots > free {
            return None;
        }
        let base = area * self.area_slots;
        let begin = position
            .load(Ordering::Relaxed)
            .next_multiple_of(wish.stride);
        let mut index = begin % self.area_slots;
        let mut looked = 0;
        while looked < self.area_slots {
            let slot = base + index;
            let bits_match = (slot * SLOT) & bits == wanted & bits;
            if bits_match && usize::from(self.record(slot).free_run) >= wish.slots {
                self.mark_used(slot, wish);
                let next = index + wish.slots;
                position.store(
                    if next < self.area_slots { next } else { 0 },
                    Ordering::Relaxed,
                );
                used.fetch_add(wish.slots, Ordering::Relaxed);
                return Some(slot * SLOT + wish.offset);
            }
            index += wish.stride;
            if index >= self.area_slots {
                index = 0;
            }
            looked += wish.stride;
        }
        None
    }

    fn mark_used(&self, first: usize, wish: &Wish) {
        let start = wish.original.wrapping_sub(wish.offset);
        for step in 0..wish.slots {
            let record = self.record(first + step);
            record.free_run = 0;
            record.original = start.wrapping_add(step * SLOT);
            record.extent = (wish.slots - step) * SLOT;
        }
        self.record(first + wish.padding).padding = run_length(wish.padding);
        self.renumber_before(first, 0);
    }

    /// Counts of the free slots right before a slot, in its set; `count` free slots begin at the slot itself.
    fn renumber_before(&self, slot: usize, mut count: usize) {
        let set = slot - slot % SET_SLOTS;
        for before in (set..slot).rev() {
            let record = self.record(before);
            if record.free_run == 0 {
                break;
            }
            count += 1;
            record.free_run = run_length(count);
        }
    }

    /// What a byte of a mapping stands for in the driver's memory.
    fn original_of(&self, offset: usize) -> *mut u8 {
        let record = self.record(offset / SLOT);
        record.original.wrapping_add(offset % SLOT)
    }

    /// Frees the slots of the mapping at an offset. The length is believed, as in the kernel.
    fn free(&self, offset: usize) {
        let slot = offset / SLOT;
        let padding = usize::from(self.record(slot).padding);
        let first = slot - padding;
        let area = first / self.area_slots;
        self.areas[area].lock.with(|| {
            let slots = self.record(first).extent / SLOT;
            let end = first + slots;
            let mut count = if end.is_multiple_of(SET_SLOTS) {
                0
            } else {
                usize::from(self.record(end).free_run)
            };
            for slot in (first..end).rev() {
                count += 1;
                *self.record(slot) = Record {
                    original: std::ptr::null_mut(),
                    extent: 0,
                    free_run: run_length(count),
                    padding: 0,
                };
            }
            self.renumber_before(first, count);
            self.areas[area].used.fetch_sub(slots, Ordering::Relaxed);
        });
    }
}

/// Runs end with their set.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "at most the 128 slots of a set"
)]
const fn run_length(slots: usize) -> u16 {
    slots as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(slots: &Slots, length: usize, cpu: usize) -> Option<usize> {
        slots.take(std::ptr::null_mut(), length, 0, 0, cpu)
    }

    #[test]
    fn the_search_goes_on_where_the_last_one_ended() {
        let slots = Slots::new(1 << 20, 1);
        assert_eq!(take(&slots, 64, 0), Some(0));
        slots.free(0);
        assert_eq!(take(&slots, 64, 0), Some(SLOT));
        assert_eq!(take(&slots, 4096, 0), Some(2 * SLOT));
        assert_eq!(take(&slots, 2049, 0), Some(4 * SLOT));
    }

    #[test]
    fn no_mapping_crosses_a_set_and_none_is_longer() {
        let slots = Slots::new(1 << 20, 1);
        assert_eq!(take(&slots, 64, 0), Some(0));
        assert_eq!(take(&slots, 256 << 10, 0), Some(SET_SLOTS * SLOT));
        assert_eq!(take(&slots, (256 << 10) + 1, 0), None);
    }

    #[test]
    fn a_full_area_sends_its_cpu_to_the_next() {
        let slots = Slots::new(1 << 20, 2);
        for set in 0..2 {
            assert_eq!(take(&slots, 256 << 10, 0), Some(set * SET_SLOTS * SLOT));
        }
        assert_eq!(take(&slots, 64, 0), Some(2 * SET_SLOTS * SLOT));
        assert_eq!(slots.used(), 2 * SET_SLOTS + 1);
    }

    #[test]
    fn freeing_joins_runs_within_the_set() {
        let slots = Slots::new(512 << 10, 1);
        let taken: Vec<_> = (0..256).map(|_| take(&slots, SLOT, 0)).collect();
        assert_eq!(taken.iter().flatten().count(), 256);
        assert_eq!(take(&slots, 1, 0), None);
        for offset in taken
            .into_iter()
            .flatten()
            .filter(|offset| offset / SLOT != 7)
        {
            slots.free(offset);
        }
        assert_eq!(slots.record(0).free_run, 7);
        assert_eq!(slots.record(7).free_run, 0);
        assert_eq!(slots.record(8).free_run, 120);
        assert_eq!(slots.record(128).free_run, 128);
        slots.free(7 * SLOT);
        assert_eq!(slots.record(0).free_run, 128);
        assert_eq!(slots.used(), 0);
    }

    #[test]
    fn metadata_is_24_bytes_per_slot() {
        let slots = Slots::new(64 << 20, 2);
        assert_eq!(size_of::<Record>(), 24);
        let share = slots.metadata_bytes() as f64 / f64::from(64 << 20);
        assert!((0.0117..0.0118).contains(&share), "{share}");
    }
}
