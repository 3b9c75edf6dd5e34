// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding and reserving a run of free chunks.
//!
//! A search reads each record at most twice, and a window has at most [`super::MAX_WINDOW_CHUNKS`]. What it finds is
//! claimed record by record; when another processor was quicker, the claim is undone and the search repeated a few times,
//! then the answer is BUSY.

use core::sync::atomic::Ordering;

use super::{ChunkState, Pool, TransitRun};

/// Searches of one call before it answers BUSY.
const ATTEMPTS: usize = 4;

/// What a GROW wishes for, in chunks; `least` is at least 1 and at most `most`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrowWish {
    /// Preferred lower bound; binding only with `contiguous`.
    pub least: usize,
    /// Upper bound; what one call moves bounds it as well.
    pub most: usize,
    /// Refuse rather than grant fewer than `least`.
    pub contiguous: bool,
}

impl GrowWish {
    /// Fewest chunks that are worth granting.
    pub const fn needed(&self) -> usize {
        if self.contiguous { self.least } else { 1 }
    }
}

/// Why no run was reserved; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveRefusal {
    /// The cap leaves less than is needed.
    CapReached,
    /// No free run is long enough.
    NoContiguousRun,
    /// It may be possible once other calls have settled.
    Busy,
}

/// A run of free chunks, as a search saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FreeRun {
    first: usize,
    count: usize,
}

impl Pool<'_> {
    /// Reserves one run: of `least` to `most` chunks if there is one, else the longest that satisfies the wish.
    ///
    /// # Errors
    /// See [`ReserveRefusal`].
    pub fn reserve(&self, wish: GrowWish) -> Result<TransitRun<'_>, ReserveRefusal> {
        for _ in 0..ATTEMPTS {
            let limit = wish
                .most
                .min(self.call_chunks)
                .min(self.accounts.headroom());
            if limit < wish.needed() {
                return Err(ReserveRefusal::CapReached);
            }
            let (run, unsettled) = self.search(wish.least.min(limit), limit);
            if run.count < wish.needed() {
                let reason = if unsettled {
                    ReserveRefusal::Busy
                } else {
                    ReserveRefusal::NoContiguousRun
                };
                return Err(reason);
            }
            if let Some(run) = self.claim_free(run) {
                return Ok(run);
            }
        }
        Err(ReserveRefusal::Busy)
    }

    /// Tells later searches where to begin: behind what was just granted, or at what was just freed.
    pub(super) fn search_again_from(&self, chunk: usize) {
        let end = self.window.chunks();
        let chunk = if chunk < end { chunk } else { 0 };
        self.search_from.store(chunk, Ordering::Relaxed);
    }

    /// The first run of at least `preferred` free chunks, cut at `limit`, else the longest run; and whether a chunk in
    /// transition was met on the way.
    fn search(&self, preferred: usize, limit: usize) -> (FreeRun, bool) {
        let end = self.window.chunks();
        let hint = self.search_from.load(Ordering::Relaxed);
        let (near, unsettled) = self.search_range(hint, end, preferred, limit);
        if near.count >= preferred || hint == 0 {
            return (near, unsettled);
        }
        // From the very start, not only up to the hint: a run may lie across it.
        self.search_range(0, end, preferred, limit)
    }

    fn search_range(
        &self,
        start: usize,
        end: usize,
        preferred: usize,
        limit: usize,
    ) -> (FreeRun, bool) {
        let mut longest = FreeRun::default();
        let mut current = FreeRun::default();
        let mut unsettled = false;
        for chunk in start..end {
            let state = self.records.state(chunk);
            if state == ChunkState::Free {
                if current.count == 0 {
                    current.first = chunk;
                }
                current.count = current.count.saturating_add(1);
                if current.count > longest.count {
                    longest = current;
                }
                if current.count >= limit {
                    break;
                }
            } else {
                unsettled |= state.in_transition();
                if current.count >= preferred {
                    return (current, unsettled);
                }
                current.count = 0;
            }
        }
        (longest, unsettled)
    }

    /// Moves every chunk of the run from Free to Granting and counts them, or changes nothing.
    fn claim_free(&self, run: FreeRun) -> Option<TransitRun<'_>> {
        let end = run.first.saturating_add(run.count);
        let undo = |end| {
            for chunk in run.first..end {
                self.records.set(chunk, ChunkState::Free);
            }
        };
        // Counted first: at no moment may more chunks be in somebody's hands than the cap allows.
        if !self.accounts.admit(run.count) {
            return None;
        }
        for chunk in run.first..end {
            if !self
                .records
                .exchange(chunk, ChunkState::Free, ChunkState::Granting)
            {
                undo(chunk);
                self.accounts.give_up(run.count);
                return None;
            }
        }
        Some(TransitRun::new(self, run.first, run.count))
    }
}
