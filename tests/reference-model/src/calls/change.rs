// SPDX-License-Identifier: MIT OR Apache-2.0
//! GROW and RELEASE.

use std::ops::Range;

use protocol::{Refusal, result};
use snp::address::PageSize;
use snp::svsm::ResultCode;

use super::{Answer, refused, results};
use crate::host::{Batch, Change, Verdict, next_batch};
use crate::state::{Chunk, Model, bytes};
use crate::{Event, Violation, events::kind, require};

/// Chunks of a batch (clause P-6.4).
const BATCH: usize = 253;
const PRIVATE: u8 = 1;
const SHARED: u8 = 2;

impl Model {
    pub(super) fn grow(
        &mut self,
        window: u64,
        contiguous: bool,
        least: u64,
        most: u64,
        events: &mut &[Event],
    ) -> Answer {
        let least = usize::try_from(least).unwrap_or(usize::MAX);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if contiguous && least > BATCH {
            return Ok(Err(Refusal::too_large(bytes(BATCH)))); // P-5.7.4
        }
        let needed = if contiguous { least } else { 1 };
        let granted = self.granted_of(window);
        let headroom = self.cap_of(window).saturating_sub(granted);
        let limit = most.min(BATCH).min(headroom);
        if limit < needed {
            return refused(result::CAP_REACHED);
        }
        if self.longest_free_run(window) < needed {
            return refused(result::NO_CONTIGUOUS_RUN);
        }
        let batch = self.next_change(events)?;
        let run = self.run_of(&batch)?;
        require!(batch.operation == SHARED, "P-5.7.5: asked for {batch:?}");
        let numbers = self.shape.numbers(window).unwrap_or_default();
        require!(
            numbers.start <= run.start && run.end <= numbers.end,
            "P-3.2: {run:?} is not in window {window}"
        );
        let free = self.chunks.get(run.clone()).unwrap_or(&[]);
        require!(
            free.iter().all(|chunk| *chunk == Chunk::Free),
            "W2: {run:?} is not all free: {free:?}"
        );
        let wished = least.min(limit);
        let satisfiable = self.longest_free_run(window) >= wished;
        require!(
            (needed..=limit).contains(&run.len()) && (!satisfiable || run.len() >= wished),
            "P-5.7.3: a run of {} for {least} to {most}, at most {limit}",
            run.len()
        );
        let peak = match window {
            0 => &mut self.counters.peak_granted_bytes,
            _ => &mut self.counters.second.peak_granted_bytes,
        };
        *peak = bytes(granted + run.len()).max(*peak); // P-8.3: reached by a refused growth, too
        let done = match batch.verdict {
            Verdict::Complete => run.len(),
            Verdict::Declined(done, _) => done,
            Verdict::Broken(_) => {
                let (base, bytes) = (batch.chunks[0], bytes(run.len()));
                self.set(run, Chunk::Quarantined); // P-5.7.7
                self.note_quarantined_chunks(base, bytes);
                return refused(result::HOST_MISBEHAVED);
            }
        };
        if done < needed {
            return self.take_back(&run, done, events);
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1); // P-3.6
        self.used_generations.insert(self.generation);
        let (epoch, generation) = (self.epoch, self.generation);
        self.set(
            run.start..run.start + done,
            Chunk::Held { epoch, generation },
        );
        let base = batch.chunks[0];
        self.note(kind::GRANTED, 0, generation, base, bytes(done));
        Ok(Ok(results(base, bytes(done), generation.into())))
    }

    /// P-5.7.6: what was shared goes back.
    fn take_back(&mut self, run: &Range<usize>, done: usize, events: &mut &[Event]) -> Answer {
        if done > 0 {
            let back = self.next_change(events)?;
            let covered = self.run_of(&back)?;
            require!(
                back.operation == PRIVATE
                    && covered.start == run.start
                    && covered.end >= run.start + done
                    && covered.end <= run.end,
                "P-5.7.6: {back:?} gives {done} chunks of {run:?} back"
            );
            if matches!(back.verdict, Verdict::Broken(_)) {
                self.set(run.clone(), Chunk::Quarantined);
                let base = self.shape.chunk_address(run.start);
                self.note_quarantined_chunks(base, bytes(run.len()));
                return refused(result::HOST_MISBEHAVED);
            }
        }
        refused(result::HOST_REFUSED)
    }

    pub(super) fn release(
        &mut self,
        base: u64,
        chunks: u64,
        epoch: u32,
        generation: u32,
        events: &mut &[Event],
    ) -> Answer {
        // P-5.8.1: in the window, then held by exactly this holder.
        let Some(range) = self.shape.chunks_at(base, chunks) else {
            return refused(ResultCode::INVALID_ADDRESS);
        };
        let range = range.start..range.end.min(range.start + BATCH); // P-5.8.2
        let held = Chunk::Held { epoch, generation };
        let ours = self.chunks.get(range.clone()).unwrap_or(&[]);
        if !ours.iter().all(|chunk| *chunk == held) {
            return refused(result::NOT_HELD);
        }
        let batch = self.next_change(events)?;
        let run = self.run_of(&batch)?;
        require!(
            run == range && batch.operation == PRIVATE,
            "P-5.8.2: {batch:?} for {range:?}"
        );
        let acknowledged = self.settle_release(&run.collect::<Vec<_>>(), &batch);
        self.note(kind::RELEASED, 0, generation, base, bytes(range.len()));
        Ok(Ok(results(bytes(range.len()), acknowledged, 0)))
    }

    /// P-5.8.4: what becomes of a batch on its way back; the bytes that the host acknowledged.
    pub(super) fn settle_release(&mut self, chunks: &[usize], batch: &Batch) -> u64 {
        let (state, acknowledged) = match batch.verdict {
            Verdict::Complete => (Chunk::Free, chunks.len()),
            Verdict::Declined(done, _) => (Chunk::Free, done),
            Verdict::Broken(_) => (Chunk::Quarantined, 0),
        };
        self.counters.released_bytes += bytes(chunks.len());
        self.counters.acknowledged_bytes += bytes(acknowledged);
        self.set(chunks.iter().copied(), state);
        if state == Chunk::Quarantined {
            self.note_quarantined_chunks(batch.chunks[0], bytes(chunks.len()));
        }
        bytes(acknowledged)
    }

    /// The next batch in the transcript, counted.
    pub(super) fn next_change(&mut self, events: &mut &[Event]) -> Result<Batch, Violation> {
        let batch = next_batch(events)?;
        self.count_change(&Change {
            pages: batch
                .chunks
                .iter()
                .map(|chunk| (*chunk, PageSize::Size2M))
                .collect(),
            operation: batch.operation,
            verdict: batch.verdict,
            exits: batch.exits,
        });
        Ok(batch)
    }

    /// A page-state change in the counters and, if the host did something wrong, in the trace.
    pub(super) fn count_change(&mut self, change: &Change) {
        let counters = &mut self.counters;
        counters.psc_exits += change.exits;
        counters.psc_reissues += change.exits - 1;
        let (done, anomaly) = change.done();
        let entries = match change.operation {
            SHARED => &mut counters.psc_entries_shared,
            _ => &mut counters.psc_entries_private,
        };
        *entries += u64::try_from(done).unwrap_or(u64::MAX);
        if let Some(anomaly) = anomaly {
            let (first, _) = change.pages[0];
            self.note_anomaly(anomaly, change.operation, first, change.bytes());
        }
    }

    /// The chunks of a batch, in its order.
    pub(super) fn chunks_of(&self, batch: &Batch) -> Result<Vec<usize>, Violation> {
        let chunk = |base: &u64| self.shape.chunks_at(*base, 1).map(|range| range.start);
        let chunks: Option<Vec<usize>> = batch.chunks.iter().map(chunk).collect();
        chunks.ok_or_else(|| format!("W1: {batch:?} leaves the window"))
    }

    /// The chunks of a batch that is one run.
    fn run_of(&self, batch: &Batch) -> Result<Range<usize>, Violation> {
        let chunks = self.chunks_of(batch)?;
        let run = chunks[0]..chunks[0] + chunks.len();
        require!(run.clone().eq(chunks), "P-5.7.2: {batch:?} is no run");
        Ok(run)
    }

    fn set(&mut self, chunks: impl IntoIterator<Item = usize>, to: Chunk) {
        for chunk in chunks {
            // P-3.10: nothing leaves quarantine.
            assert_ne!(self.chunks[chunk], Chunk::Quarantined, "the model itself");
            self.chunks[chunk] = to;
        }
    }
}
