// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all CPUs use without the central lock: the tables, the caches, and whether memory is scarce.

use super::cache::{CacheCounters, CpuCache, Held};
use super::placement::Room;
use super::tables::{Metadata, Tables};
use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::geometry::{CHUNK_BYTES, UNIT_BYTES};

/// How many give-backs after a failure go to the central store and not to caches, so that the next request finds them
/// wherever they were freed.
const SCARCE_FOR: u32 = 256;
/// Part of the granted units that extents in one cache may take.
const CACHED_SHARE: u64 = 64;
/// Units that extents in one cache may take in any case: two of 256 KiB.
const LEAST_CACHED_UNITS: u32 = 256;

/// The shared part.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    pub tables: Tables<'a>,
    pub caches: &'a [CpuCache],
    /// Counters of what found every cache held. Written under the central lock.
    pub stray: CacheCounters,
    /// Size of the metadata area.
    pub metadata_bytes: usize,
    /// Give-backs of slots, and of extents, that still bypass the caches. Written under the central lock; zero, and
    /// therefore in every CPU's cache, while nothing has failed lately.
    scarce_slots: AtomicU32,
    scarce_extents: AtomicU32,
    /// 1 while there are no records for more small slots. Written under the central lock.
    out_of_blocks: AtomicU32,
    /// Most units of extents in one cache. Written under the central lock, when the pool grows or shrinks.
    cached_units: AtomicU32,
}

impl<'a> Shared<'a> {
    /// The shared part of a metadata area.
    pub fn new(metadata: &Metadata<'a>) -> Self {
        Self {
            tables: metadata.tables,
            caches: metadata.caches,
            stray: CacheCounters::default(),
            metadata_bytes: metadata.bytes,
            scarce_slots: AtomicU32::new(0),
            scarce_extents: AtomicU32::new(0),
            out_of_blocks: AtomicU32::new(0),
            cached_units: AtomicU32::new(LEAST_CACHED_UNITS),
        }
    }

    /// Holds the cache of a CPU, or the next one; `None` if both are held. The CPU number may be any.
    #[inline]
    pub fn hold(&self, cpu: usize) -> Option<Held<'a>> {
        let count = self.caches.len();
        let mut index = if cpu < count {
            cpu
        } else {
            cpu.checked_rem(count)?
        };
        for _ in 0..2 {
            if let Some(held) = self.caches.get(index)?.hold() {
                return Some(held);
            }
            index = if index + 1 < count { index + 1 } else { 0 };
        }
        None
    }

    /// Whether what is given back has to bypass the caches.
    #[inline]
    pub fn is_scarce(&self, extent: bool) -> bool {
        let counter = if extent {
            &self.scarce_extents
        } else {
            &self.scarce_slots
        };
        counter.load(Ordering::Relaxed) != 0
    }

    /// A request has failed. A slot that is freed may be what an extent waits for only if a whole slab is, so slots go on
    /// being cached when an extent has failed.
    pub fn note_failure(&self, room: Room) {
        self.scarce_extents.store(SCARCE_FOR, Ordering::Relaxed);
        if matches!(room, Room::Slot(_)) {
            self.scarce_slots.store(SCARCE_FOR, Ordering::Relaxed);
        }
    }

    /// Something came back to the central store.
    pub fn note_return(&self) {
        for counter in [&self.scarce_slots, &self.scarce_extents] {
            let left = counter.load(Ordering::Relaxed);
            if left != 0 {
                counter.store(left - 1, Ordering::Relaxed);
            }
        }
    }

    /// Whether small slots have to be replaced by larger ones, for want of records.
    #[inline]
    pub fn is_out_of_blocks(&self) -> bool {
        self.out_of_blocks.load(Ordering::Relaxed) != 0
    }

    /// There are, or are not, records for more small slots.
    pub fn note_blocks(&self, none: bool) {
        if self.is_out_of_blocks() != none {
            self.out_of_blocks.store(none.into(), Ordering::Relaxed);
        }
    }

    /// The pool has grown or shrunk to this many chunks.
    pub fn note_size(&self, granted_chunks: usize) {
        let units = granted_chunks as u64 * (CHUNK_BYTES / UNIT_BYTES) / CACHED_SHARE;
        let units = u32::try_from(units)
            .unwrap_or(u32::MAX)
            .max(LEAST_CACHED_UNITS);
        self.cached_units.store(units, Ordering::Relaxed);
    }

    /// The pool has grown: nothing is scarce.
    pub fn note_growth(&self) {
        self.scarce_slots.store(0, Ordering::Relaxed);
        self.scarce_extents.store(0, Ordering::Relaxed);
    }

    /// Most units of extents in one cache.
    #[inline]
    pub fn cached_units(&self) -> u32 {
        self.cached_units.load(Ordering::Relaxed)
    }

    /// The sum of a counter over all caches.
    pub fn sum(&self, counter: impl Fn(&CacheCounters) -> &AtomicU64) -> u64 {
        self.caches
            .iter()
            .map(|cache| &cache.counters)
            .chain([&self.stray])
            .fold(0, |sum, counters| {
                sum.wrapping_add(counter(counters).load(Ordering::Relaxed))
            })
    }
}
