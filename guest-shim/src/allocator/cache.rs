// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a CPU freed last, ready to be handed out next: a stack of slots for each class, and a few extents.
//!
//! A cache is held by a try: whoever finds it held uses the next one, and the central store if that is held too. So a
//! map in an interrupt handler never waits for the one it interrupted, and a wrong CPU number costs speed only. Each
//! cache has cache lines of its own; nothing in it is written by others but to hold it.

#[cfg(not(loom))]
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use super::class::{CLASSES, ClassIndex, MOST_CACHED};
use super::start::Start;
use super::tables::RecordNumber;
use crate::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::geometry::SMALLEST_SLOT_BYTES;

/// Extents in one cache.
const EXTENTS: usize = 8;

/// A slot that is handed out, or ready to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Offset of its first byte in the window.
    pub offset: u64,
    /// Its record.
    pub record: RecordNumber,
}

impl Slot {
    /// As one word: the offset in granules of 64 bytes has 31 bits.
    #[inline]
    pub const fn into_word(self) -> u64 {
        (self.offset / SMALLEST_SLOT_BYTES) << 32 | self.record.0 as u64
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    pub const fn from_word(word: u64) -> Self {
        Self {
            offset: (word >> 32) * SMALLEST_SLOT_BYTES,
            record: RecordNumber(word as u32),
        }
    }
}

/// A run of units that is handed out, or ready to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// First unit.
    pub first: u32,
    /// Number of units.
    pub units: u32,
}

impl Extent {
    #[inline]
    const fn into_word(self) -> u64 {
        (self.first as u64) << 32 | self.units as u64
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the halves")]
    const fn from_word(word: u64) -> Self {
        Self {
            first: (word >> 32) as u32,
            units: word as u32,
        }
    }
}

/// Counters of what went through a cache. Written by its holder only, read by anybody.
#[cfg_attr(not(loom), derive(FromBytes, IntoBytes, KnownLayout))]
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct CacheCounters {
    pub maps: AtomicU64,
    pub unmaps: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    /// Bytes of slots and extents handed out, less those given back, wherever they were handed out: only the sum over
    /// all caches means something.
    pub used: AtomicU64,
    /// Shared buffers handed out, less those given back; as `used`.
    pub shared_buffers: AtomicU64,
    pub syncs: AtomicU64,
}

/// The cache of one CPU.
#[cfg_attr(not(loom), derive(FromBytes, IntoBytes, KnownLayout))]
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct CpuCache {
    held: AtomicU32,
    /// How many of `extents` are in use.
    extent_count: AtomicU32,
    pub counters: CacheCounters,
    /// How many of a class's `slots` are in use.
    counts: [AtomicU8; CLASSES],
    _reserved_too: [u8; 16],
    slots: [[AtomicU64; MOST_CACHED as usize]; CLASSES],
    extents: [AtomicU64; EXTENTS],
    /// Their units.
    extent_units: AtomicU32,
    _to_whole_lines: [u8; 60],
}

impl CpuCache {
    /// Takes the cache for the caller, unless somebody has it.
    #[inline]
    pub fn hold(&self) -> Option<Held<'_>> {
        // Acquire: what the holder before wrote is seen.
        if self.held.swap(1, Ordering::Acquire) == 0 {
            Some(Held(self))
        } else {
            None
        }
    }

    /// Divides off this many caches.
    #[cfg(not(loom))]
    pub fn carve(area: &mut [u8], count: usize) -> Option<(&[Self], &mut [u8])> {
        let (caches, rest) = <[Self]>::mut_from_prefix_with_elems(area, count).ok()?;
        Some((caches, rest))
    }

    /// An empty cache.
    #[cfg(any(test, loom))]
    pub fn empty() -> Self {
        use core::array::from_fn;
        Self {
            held: AtomicU32::new(0),
            extent_count: AtomicU32::new(0),
            counters: CacheCounters::default(),
            counts: from_fn(|_| AtomicU8::new(0)),
            _reserved_too: [0; 16],
            slots: from_fn(|_| from_fn(|_| AtomicU64::new(0))),
            extents: from_fn(|_| AtomicU64::new(0)),
            extent_units: AtomicU32::new(0),
            _to_whole_lines: [0; 60],
        }
    }
}

/// A cache that the caller holds until this goes.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a CpuCache);

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: the next holder sees what this one wrote.
        self.0.held.store(0, Ordering::Release);
    }
}

impl Held<'_> {
    /// The counters; their `add` is the holder's.
    #[inline]
    pub fn counters(&self) -> &CacheCounters {
        &self.0.counters
    }

    /// The classes of which the cache has slots.
    pub fn classes(&self) -> impl Iterator<Item = ClassIndex> {
        (0_u8..)
            .zip(&self.0.counts)
            .filter(|(_, count)| count.load(Ordering::Relaxed) > 0)
            .filter_map(|(number, _)| ClassIndex::from_number(number))
    }

    /// Takes out the slot that was put in last.
    #[inline]
    pub fn pop(&self, class: ClassIndex) -> Option<Slot> {
        let count = self.0.counts.get(class.index())?;
        let top = count.load(Ordering::Relaxed).checked_sub(1)?;
        let slot = self.0.slots.get(class.index())?.get(usize::from(top))?;
        count.store(top, Ordering::Relaxed);
        Some(Slot::from_word(slot.load(Ordering::Relaxed)))
    }

    /// Puts a slot in; `false` if there is no room.
    #[inline]
    pub fn push(&self, class: ClassIndex, slot: Slot) -> bool {
        let limit = class.class().cached;
        if let Some(count) = self.0.counts.get(class.index())
            && let top = count.load(Ordering::Relaxed)
            && u32::from(top) < limit
            && let Some(slots) = self.0.slots.get(class.index())
            && let Some(entry) = slots.get(usize::from(top))
        {
            entry.store(slot.into_word(), Ordering::Relaxed);
            count.store(top + 1, Ordering::Relaxed);
            true
        } else {
            false
        }
    }

    /// Takes out the older half of a class's slots, or all of them; `spill` gets them.
    pub fn spill(&self, class: ClassIndex, all: bool, mut spill: impl FnMut(Slot)) {
        let (Some(slots), Some(count)) = (
            self.0.slots.get(class.index()),
            self.0.counts.get(class.index()),
        ) else {
            return;
        };
        let used = usize::from(count.load(Ordering::Relaxed));
        let gone = if all { used } else { used.div_ceil(2) };
        for entry in slots.iter().take(gone) {
            spill(Slot::from_word(entry.load(Ordering::Relaxed)));
        }
        for (to, from) in slots.iter().zip(slots.iter().skip(gone)).take(used - gone) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        if let Ok(left) = u8::try_from(used - gone) {
            count.store(left, Ordering::Relaxed);
        }
    }

    /// Takes out the extent put in last that has this many units, or at most 1/8 more, and begins where it may.
    #[inline(always)]
    pub fn pop_extent(&self, units: u32, start: Start) -> Option<Extent> {
        let used = self.extents();
        let newest_first = self.0.extents.iter().enumerate().take(used).rev();
        for (index, entry) in newest_first {
            let extent = Extent::from_word(entry.load(Ordering::Relaxed));
            let longer = extent.units.wrapping_sub(units);
            if longer <= units / 8 && start.allows(extent.first) {
                self.close_gap(index, used);
                self.set_extents(used - 1, self.extent_units() - extent.units);
                return Some(extent);
            }
        }
        None
    }

    /// Puts an extent in. For as long as there are too many of them, or more than `limit` units, the oldest goes to
    /// `spill`.
    #[inline(always)]
    pub fn push_extent(&self, extent: Extent, limit: u32, mut spill: impl FnMut(Extent)) {
        if extent.units > limit {
            return spill(extent);
        }
        while self.extents() >= EXTENTS || self.extent_units() > limit - extent.units {
            let Some(oldest) = self.0.extents.first() else {
                return;
            };
            let oldest = Extent::from_word(oldest.load(Ordering::Relaxed));
            let used = self.extents();
            self.close_gap(0, used);
            self.set_extents(used - 1, self.extent_units() - oldest.units);
            spill(oldest);
        }
        let used = self.extents();
        if let Some(entry) = self.0.extents.get(used) {
            entry.store(extent.into_word(), Ordering::Relaxed);
            self.set_extents(used + 1, self.extent_units() + extent.units);
        }
    }

    /// Takes out every extent; `spill` gets them. Whether there was one.
    pub fn spill_extents(&self, mut spill: impl FnMut(Extent)) -> bool {
        let used = self.extents();
        for entry in self.0.extents.iter().take(used) {
            spill(Extent::from_word(entry.load(Ordering::Relaxed)));
        }
        self.set_extents(0, 0);
        used > 0
    }

    #[inline]
    fn close_gap(&self, gap: usize, used: usize) {
        let entries = self.0.extents.iter();
        let shifted = entries.clone().skip(gap).zip(entries.skip(gap + 1));
        for (to, from) in shifted.take(used - 1 - gap) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    #[inline]
    fn extents(&self) -> usize {
        (self.0.extent_count.load(Ordering::Relaxed) as usize).min(EXTENTS)
    }

    #[inline]
    fn extent_units(&self) -> u32 {
        self.0.extent_units.load(Ordering::Relaxed)
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "at most EXTENTS")]
    fn set_extents(&self, count: usize, units: u32) {
        self.0.extent_count.store(count as u32, Ordering::Relaxed);
        self.0.extent_units.store(units, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn slot(number: u32) -> Slot {
        Slot {
            offset: u64::from(number) * 64,
            record: RecordNumber::of_unit(number + 3),
        }
    }

    #[test]
    fn the_slot_put_in_last_comes_out_first() {
        let cache = CpuCache::empty();
        let held = cache.hold().unwrap();
        let class = ClassIndex::for_length(64).unwrap();
        for number in 0..16 {
            assert!(held.push(class, slot(number)));
        }
        assert!(!held.push(class, slot(99)));
        let mut gone = Vec::new();
        held.spill(class, false, |slot| gone.push(slot));
        assert_eq!(gone, (0..8).map(slot).collect::<Vec<_>>(), "the older half");
        for number in (8..16).rev() {
            assert_eq!(held.pop(class), Some(slot(number)));
        }
        assert_eq!(held.pop(class), None);
    }

    #[test]
    fn a_held_cache_is_nobody_elses() {
        let cache = CpuCache::empty();
        let held = cache.hold().unwrap();
        for _ in 0..2 {
            assert!(cache.hold().is_none(), "a try that fails changes nothing");
        }
        drop(held);
        assert!(cache.hold().is_some());
    }

    #[test]
    fn extents_come_back_by_length_and_place_and_the_oldest_spills() {
        let cache = CpuCache::empty();
        let held = cache.hold().unwrap();
        let none = |_| panic!("nothing has to go");
        for first in [100, 201, 300] {
            held.push_extent(Extent { first, units: 32 }, 200, none);
        }
        assert_eq!(
            held.pop_extent(28, Start::ANY),
            None,
            "more than 1/8 too long"
        );
        assert_eq!(held.pop_extent(33, Start::ANY), None, "too short");
        assert_eq!(
            held.pop_extent(30, Start::multiple_of(2)).unwrap().first,
            300
        );
        assert_eq!(
            held.pop_extent(32, Start::multiple_of(2)).unwrap().first,
            100
        );
        let mut gone = Vec::new();
        held.push_extent(
            Extent {
                first: 400,
                units: 190,
            },
            200,
            |extent| gone.push(extent.first),
        );
        held.push_extent(
            Extent {
                first: 700,
                units: 201,
            },
            200,
            |extent| gone.push(extent.first),
        );
        assert_eq!(gone, [201, 700]);
        assert!(held.spill_extents(|extent| gone.push(extent.first)));
        assert!(!held.spill_extents(|_| ()));
        assert_eq!(gone, [201, 700, 400]);
    }
}
