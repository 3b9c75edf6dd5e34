// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all CPUs use without the central lock: the tables, the caches, and whether memory is scarce.

use super::cache::{CacheCounters, CpuCache, Held};
use super::class::ClassIndex;
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
    /// Give-backs that still bypass the caches. Written under the central lock; zero, and therefore in every CPU's cache,
    /// while nothing has failed lately.
    scarce: AtomicU32,
    /// 1 if the caches were all emptied since. Only requests that fail read it.
    swept: AtomicU32,
    /// A bit for each class of small slots of which there are none, nor records for more. Written under the central lock.
    exhausted: AtomicU64,
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
            scarce: AtomicU32::new(0),
            swept: AtomicU32::new(0),
            exhausted: AtomicU64::new(0),
            cached_units: AtomicU32::new(LEAST_CACHED_UNITS),
        }
    }

    /// Holds the cache of a CPU, or the next one; `None` if both are held. The CPU number may be any.
    #[inline(always)]
    pub fn hold(&self, cpu: usize) -> Option<Held<'a>> {
        match self.caches.get(cpu).and_then(CpuCache::hold) {
            Some(held) => Some(held),
            None => self.hold_another(cpu),
        }
    }

    #[cold]
    fn hold_another(&self, cpu: usize) -> Option<Held<'a>> {
        let count = self.caches.len();
        let next = |index: usize| if index + 1 < count { index + 1 } else { 0 };
        let index = if cpu < count {
            next(cpu)
        } else {
            cpu.checked_rem(count)?
        };
        let tried = self.caches.get(index)?.hold();
        tried.or_else(|| self.caches.get(next(index))?.hold())
    }

    /// Whether what is given back has to bypass the caches. Asked by whoever holds a cache: an emptying of that cache
    /// either comes later, or came before the hold, and then this is seen.
    #[inline]
    pub fn is_scarce(&self) -> bool {
        self.scarce.load(Ordering::Relaxed) != 0
    }

    /// The central store could not serve a request. Whether memory was scarce already, so that the caches hold nothing
    /// that would help.
    pub fn note_scarcity(&self) -> bool {
        let before = self.is_scarce();
        self.scarce.store(SCARCE_FOR, Ordering::Relaxed);
        before
    }

    /// Whether the caches were empty, all of them, after memory had become scarce.
    pub fn is_swept(&self) -> bool {
        self.swept.load(Ordering::Relaxed) != 0
    }

    /// The caches were emptied; `all` if nobody held one meanwhile.
    pub fn note_sweep(&self, all: bool) {
        self.swept.store(all.into(), Ordering::Relaxed);
    }

    /// Something came back to the central store.
    pub fn note_return(&self) {
        let left = self.scarce.load(Ordering::Relaxed);
        if left != 0 {
            self.scarce.store(left - 1, Ordering::Relaxed);
        }
    }

    /// Whether a class of small slots has none and can get none for want of records, so that larger ones have to do.
    #[inline]
    pub fn is_exhausted(&self, class: ClassIndex) -> bool {
        self.exhausted.load(Ordering::Relaxed) >> class.index() & 1 != 0
    }

    /// That is so.
    pub fn note_exhausted(&self, class: ClassIndex) {
        let classes = self.exhausted.load(Ordering::Relaxed);
        self.exhausted
            .store(classes | 1 << class.index(), Ordering::Relaxed);
    }

    /// That is so no longer: for one class, or for all.
    pub fn note_supply(&self, class: Option<ClassIndex>) {
        let classes = self.exhausted.load(Ordering::Relaxed);
        if classes != 0 {
            let left = class.map_or(0, |class| classes & !(1 << class.index()));
            self.exhausted.store(left, Ordering::Relaxed);
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
        self.scarce.store(0, Ordering::Relaxed);
    }

    /// Most units of extents in one cache.
    #[inline]
    pub fn cached_units(&self) -> u32 {
        self.cached_units.load(Ordering::Relaxed)
    }

    /// The sum over all caches of a counter that goes up and down. While CPUs are counting, what went up in a cache that was
    /// read already may go down in one that was not: less than nothing is nothing.
    pub fn balance(&self, counter: impl Fn(&CacheCounters) -> &AtomicU64) -> u64 {
        self.sum(counter).cast_signed().max(0).cast_unsigned()
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
