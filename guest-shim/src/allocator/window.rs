// SPDX-License-Identifier: MIT OR Apache-2.0
//! Search, take and give back over all chunks; chunks that come from the service and go back to it.

use core::ops::Range;

use super::chunk::{ChunkRecords, ChunkState};
use super::ledger::{Contents, Ticket};
use super::placement::Placement;
use super::reserved::Reservations;
use crate::geometry::{CHUNK_BYTES, CHUNK_SLOT_SHIFT, SLOTS_PER_CHUNK, Window};

/// Consecutive chunks of one grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Chunk numbers, counted from the window's base.
    pub chunks: Range<usize>,
    /// Generation the service gave with the grant.
    pub grant: u32,
}

impl Run {
    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK_BYTES
    }

    /// Splits off the chunks behind the first `bytes` bytes.
    pub fn split_at(&self, bytes: u64) -> (Self, Self) {
        let length = usize::try_from(bytes / CHUNK_BYTES).unwrap_or(usize::MAX);
        let middle = self.chunks.start + length.min(self.chunks.len());
        let part = |chunks| Self {
            chunks,
            grant: self.grant,
        };
        (
            part(self.chunks.start..middle),
            part(middle..self.chunks.end),
        )
    }
}

/// How full the granted chunks are; all in units of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Occupancy {
    /// Chunks held.
    pub granted_chunks: usize,
    /// Chunks with something handed out in them.
    pub occupied_chunks: usize,
    /// The most of them since [`Allocator::restart_peak`].
    pub peak_occupied_chunks: usize,
    /// Slots handed out, reserved ones included.
    pub used_slots: usize,
    /// Chunks lost to answers that leave their owner open.
    pub lost_chunks: usize,
}

/// All private state of the pool.
#[derive(Debug)]
pub(crate) struct Allocator<'a> {
    pub(super) window: Window,
    chunks: &'a mut [ChunkRecords],
    /// No chunk below this one has a free slot.
    first_with_space: usize,
    /// No run of this many slots exists anywhere: a map that must fail fails without a search.
    full_from: usize,
    occupancy: Occupancy,
    pub(super) reservations: Reservations,
}

impl<'a> Allocator<'a> {
    /// An allocator over a window of which nothing is granted. Chunks without records are never used.
    pub fn new(window: Window, chunks: &'a mut [ChunkRecords]) -> Self {
        let covered = chunks.len().min(window.chunks());
        let (chunks, _surplus) = chunks.split_at_mut(covered);
        chunks
            .iter_mut()
            .for_each(|chunk| chunk.close(ChunkState::NotGranted));
        Self {
            window,
            chunks,
            first_with_space: 0,
            full_from: usize::MAX,
            occupancy: Occupancy::default(),
            reservations: Reservations::default(),
        }
    }

    /// Hands out an extent for `contents`, or says that no granted chunk has one.
    pub fn allocate(&mut self, placement: &Placement, contents: &Contents) -> Option<Ticket> {
        let start = self.take(placement)?;
        self.write_record(start, placement, contents, None)
    }

    /// Finds and takes an extent; returns its first slot.
    pub(super) fn take(&mut self, placement: &Placement) -> Option<usize> {
        if placement.slots >= self.full_from {
            return None;
        }
        let found = self
            .find_in_chunk(placement)
            .or_else(|| self.find_across_chunks(placement));
        match found {
            Some(start) => self.mark_taken(start, placement.slots),
            None if placement.is_unconstrained(&self.window) => self.full_from = placement.slots,
            None => {}
        }
        found
    }

    fn find_in_chunk(&mut self, placement: &Placement) -> Option<usize> {
        if placement.slots > SLOTS_PER_CHUNK {
            return None;
        }
        let mut all_full = true;
        for (number, chunk) in self
            .chunks
            .iter_mut()
            .enumerate()
            .skip(self.first_with_space)
        {
            all_full &= chunk.free_slots() == 0;
            if all_full {
                self.first_with_space = number + 1;
                continue;
            }
            let Some(rule) = placement.rule_in_chunk(&self.window, number) else {
                continue;
            };
            if let Some(start) = chunk.find(placement.slots, rule) {
                return Some((number << CHUNK_SLOT_SHIFT) + start);
            }
        }
        None
    }

    /// Runs that do not fit one chunk: empty chunks, and the free first slots of the one behind them.
    fn find_across_chunks(&self, placement: &Placement) -> Option<usize> {
        let total = placement.lead() + placement.slots;
        let (full, tail) = (total / SLOTS_PER_CHUNK, total % SLOTS_PER_CHUNK);
        if full == 0 || total == SLOTS_PER_CHUNK {
            return None;
        }
        let start_at = |chunk: usize| (chunk << CHUNK_SLOT_SHIFT) + placement.lead();
        let mut empty_before = 0;
        for (number, chunk) in self.chunks.iter().enumerate() {
            if tail != 0 && empty_before >= full && chunk.free_prefix() >= tail {
                let start = start_at(number - full);
                if placement.allows(&self.window, start) {
                    return Some(start);
                }
            }
            empty_before = if chunk.is_empty() {
                empty_before + 1
            } else {
                0
            };
            if tail == 0 && empty_before >= full {
                let start = start_at(number + 1 - full);
                if placement.allows(&self.window, start) {
                    return Some(start);
                }
            }
        }
        None
    }

    /// Bytes the service would have to grant, in the right place, for an extent that does not fit one chunk; the least
    /// over all places. `None` if there is no place at all, whatever the service grants.
    ///
    /// One pass: the count of chunks to be granted is kept for a frame of the extent's whole chunks that slides over the
    /// window.
    pub fn missing_bytes(&self, placement: &Placement) -> Option<u64> {
        let total = placement.lead() + placement.slots;
        let (full, tail) = (total / SLOTS_PER_CHUNK, total % SLOTS_PER_CHUNK);
        let open = |number: usize| {
            let state = self.chunks.get(number).map(ChunkRecords::state);
            usize::from(state == Some(ChunkState::NotGranted))
        };
        let (mut usable, mut missing, mut best) = (0, 0, None);
        for end in 0..=self.chunks.len() {
            let behind = match self.chunks.get(end) {
                _ if tail == 0 => Some(0),
                Some(chunk) if chunk.free_prefix() >= tail => Some(0),
                Some(chunk) if chunk.state() == ChunkState::NotGranted => Some(1),
                _ => None,
            };
            let start = (end.saturating_sub(full) << CHUNK_SLOT_SHIFT) + placement.lead();
            if let Some(behind) = behind
                && usable >= full
                && placement.allows(&self.window, start)
            {
                best =
                    Some(best.map_or(missing + behind, |least: usize| least.min(missing + behind)));
            }
            let fits = open(end) == 1 || self.chunks.get(end).is_some_and(ChunkRecords::is_empty);
            if !fits {
                (usable, missing) = (0, 0);
                continue;
            }
            if usable >= full && full > 0 {
                missing -= open(end - full);
            }
            if full > 0 {
                missing += open(end);
            }
            usable += 1;
        }
        best.map(|chunks| chunks as u64 * CHUNK_BYTES)
    }

    fn mark_taken(&mut self, start: usize, slots: usize) {
        self.for_each_part(start, slots, |chunk, occupancy, begin, length| {
            occupancy.occupied_chunks += usize::from(chunk.is_empty());
            chunk.take(begin, length);
        });
        let occupancy = &mut self.occupancy;
        occupancy.used_slots += slots;
        occupancy.peak_occupied_chunks = occupancy
            .peak_occupied_chunks
            .max(occupancy.occupied_chunks);
    }

    /// Makes an extent free again.
    pub(super) fn give(&mut self, start: usize, slots: usize) {
        self.for_each_part(start, slots, |chunk, occupancy, begin, length| {
            chunk.give(begin, length);
            occupancy.occupied_chunks -= usize::from(chunk.is_empty());
        });
        self.occupancy.used_slots -= slots;
        self.first_with_space = self.first_with_space.min(start >> CHUNK_SLOT_SHIFT);
        self.full_from = usize::MAX;
    }

    /// Calls `part` for the piece of an extent in each chunk it touches.
    fn for_each_part(
        &mut self,
        start: usize,
        slots: usize,
        mut part: impl FnMut(&mut ChunkRecords, &mut Occupancy, usize, usize),
    ) {
        let end = start + slots;
        let first = start >> CHUNK_SLOT_SHIFT;
        for (number, chunk) in self.chunks.iter_mut().enumerate().skip(first) {
            let base = number << CHUNK_SLOT_SHIFT;
            if base >= end {
                break;
            }
            let begin = start.max(base) - base;
            let stop = (end - base).min(SLOTS_PER_CHUNK);
            part(chunk, &mut self.occupancy, begin, stop - begin);
        }
    }

    /// Whether the service may grant this run: inside the covered part of the window, and not held already.
    pub fn accepts(&self, run: &Run) -> bool {
        self.chunks.get(run.chunks.clone()).is_some_and(|chunks| {
            chunks.iter().all(|chunk| {
                matches!(
                    chunk.state(),
                    ChunkState::NotGranted | ChunkState::Releasing
                )
            })
        })
    }

    /// Number of chunks that have records.
    pub fn covered_chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Takes over a run the service has granted. The caller has asked [`Allocator::accepts`].
    ///
    /// A chunk may still be marked as on its way back: the service had taken it, and another CPU was granted it before
    /// the one that released it came round to say so.
    pub fn open(&mut self, run: &Run) {
        let covered = self.chunks.len();
        for chunk in self
            .chunks
            .iter_mut()
            .take(run.chunks.end.min(covered))
            .skip(run.chunks.start)
        {
            chunk.open(run.grant);
            self.occupancy.granted_chunks += 1;
        }
        self.first_with_space = self.first_with_space.min(run.chunks.start);
        self.full_from = usize::MAX;
    }

    /// Takes the highest run of empty chunks of one grant out of use, at most `most` chunks of it.
    pub fn withdraw(&mut self, most: usize) -> Option<Run> {
        let top = self.chunks.iter().rposition(ChunkRecords::is_empty)?;
        let grant = self.chunks.get(top)?.grant();
        let below = self.chunks.iter().take(top + 1).rev();
        let length = below
            .take(most)
            .take_while(|chunk| chunk.is_empty() && chunk.grant() == grant)
            .count();
        let run = Run {
            chunks: top + 1 - length..top + 1,
            grant,
        };
        for chunk in self
            .chunks
            .iter_mut()
            .take(run.chunks.end)
            .skip(run.chunks.start)
        {
            chunk.close(ChunkState::Releasing);
            self.occupancy.granted_chunks -= 1;
        }
        (length > 0).then_some(run)
    }

    /// Ends a withdrawal: the run is the service's again.
    pub fn forget(&mut self, run: &Run) {
        self.settle(run, |chunk, _| chunk.close(ChunkState::NotGranted));
    }

    /// Ends a withdrawal that did not happen: the run is handed out again.
    pub fn restore(&mut self, run: &Run) {
        self.settle(run, |chunk, occupancy| {
            chunk.open(run.grant);
            occupancy.granted_chunks += 1;
        });
        self.first_with_space = self.first_with_space.min(run.chunks.start);
        self.full_from = usize::MAX;
    }

    /// Ends a withdrawal whose outcome nobody knows: the run is never used again.
    pub fn lose(&mut self, run: &Run) {
        self.settle(run, |chunk, occupancy| {
            chunk.close(ChunkState::Lost);
            occupancy.lost_chunks += 1;
        });
    }

    fn settle(&mut self, run: &Run, mut end: impl FnMut(&mut ChunkRecords, &mut Occupancy)) {
        for chunk in self
            .chunks
            .iter_mut()
            .take(run.chunks.end)
            .skip(run.chunks.start)
        {
            // A chunk that was granted anew meanwhile is no longer this withdrawal's business.
            if chunk.state() == ChunkState::Releasing {
                end(chunk, &mut self.occupancy);
            }
        }
    }

    /// How full the pool is.
    pub fn occupancy(&self) -> Occupancy {
        self.occupancy
    }

    /// Begins a new period for the peak of occupied chunks.
    pub fn restart_peak(&mut self) {
        self.occupancy.peak_occupied_chunks = self.occupancy.occupied_chunks;
    }

    pub(super) fn chunk(&self, number: usize) -> Option<&ChunkRecords> {
        self.chunks.get(number)
    }

    pub(super) fn chunk_mut(&mut self, number: usize) -> Option<&mut ChunkRecords> {
        self.chunks.get_mut(number)
    }
}
