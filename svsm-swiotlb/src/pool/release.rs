// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking a run out of its holder's hands (invariant W2).

use core::ops::Range;

use protocol::Holder;

use super::{ChunkState, Pool, TransitRun};

/// Why a run cannot be released; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseRefusal {
    /// A chunk is not held by this holder.
    NotHeld,
    /// A chunk is in transition.
    Busy,
}

impl Pool<'_> {
    /// Moves the first chunks of `chunks`, at most as many as one call moves, from Held by exactly this holder to Releasing.
    ///
    /// # Errors
    /// See [`ReleaseRefusal`]; all chunks of the batch are looked at before the first is changed.
    pub fn claim_held(
        &self,
        chunks: Range<usize>,
        holder: Holder,
    ) -> Result<TransitRun<'_>, ReleaseRefusal> {
        let first = chunks.start;
        let end = chunks.end.min(first.saturating_add(self.call_chunks));
        let held = ChunkState::Held(holder);
        for chunk in first..end {
            match self.records.state(chunk) {
                state if state == held => {}
                state if state.in_transition() => return Err(ReleaseRefusal::Busy),
                _ => return Err(ReleaseRefusal::NotHeld),
            }
        }
        for chunk in first..end {
            // Another processor released it since: the holder is at odds with itself, and is told to look again.
            if !self
                .records
                .exchange(chunk, held, ChunkState::Releasing(holder))
            {
                for taken in first..chunk {
                    self.records.set(taken, held);
                }
                return Err(ReleaseRefusal::Busy);
            }
        }
        Ok(TransitRun::new(self, first, end.saturating_sub(first)))
    }
}
