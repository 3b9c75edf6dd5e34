// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where extents come from: the granted chunks, and the service when those have none.
//!
//! Growing is synchronous. It takes no guest memory, does not sleep and changes no page table, so it is legal wherever a
//! mapping is. The lock is dropped for the call; the grant is taken over and the waiting request served under one lock,
//! so that no other CPU can take the memory a request has grown the pool for.

use crate::allocator::{Placement, Run};
use crate::client::Wish;
use crate::error::MapError;
use crate::geometry::CHUNK_BYTES;
use crate::platform::Platform;
use crate::pool::{Pool, State};

/// Growths of one request. One suffices unless the run is longer than one call grants, or the device cannot reach what
/// was granted.
const GROWTHS_PER_REQUEST: u32 = 8;

/// What a look at the granted chunks leads to.
enum Step<T> {
    Done(T),
    Grow(Wish),
}

impl<'a, P: Platform> Pool<'a, P> {
    /// Takes something that fits `placement` out of the allocator, growing the pool where that is needed.
    ///
    /// # Errors
    /// The named cause for which the pool cannot grow.
    pub(crate) fn obtain<T>(
        &self,
        placement: &Placement,
        mut take: impl FnMut(&mut State<'a>) -> Option<T>,
    ) -> Result<T, MapError> {
        for attempt in 0..GROWTHS_PER_REQUEST {
            let step = self.with_state(|state| -> Result<Step<T>, MapError> {
                match take(state) {
                    Some(taken) => Ok(Step::Done(taken)),
                    None => state.begin_growth(placement, attempt).map(Step::Grow),
                }
            })?;
            let wish = match step {
                Step::Done(taken) => return Ok(taken),
                Step::Grow(wish) => wish,
            };
            let outcome = self.request_run(&wish);
            let served = self.with_state(|state| -> Result<Option<T>, MapError> {
                state.take_over(&wish, outcome)?;
                Ok(take(state))
            })?;
            if let Some(taken) = served {
                return Ok(taken);
            }
        }
        Err(MapError::NoContiguousRun)
    }

    /// The growth of attach. A refusal is remembered like any other.
    pub(crate) fn grow_initially(&self) {
        let target = self
            .config
            .initial_bytes
            .next_multiple_of(CHUNK_BYTES)
            .min(self.window.bytes());
        for _ in 0..GROWTHS_PER_REQUEST {
            let wish = self.with_state(|state| {
                let missing = target.saturating_sub(state.granted_bytes());
                (missing > 0).then(|| state.growth.begin_initial(missing))
            });
            let Some(wish) = wish else { return };
            let outcome = self.request_run(&wish);
            if self
                .with_state(|state| state.take_over(&wish, outcome))
                .is_err()
            {
                return;
            }
        }
    }

    /// Asks the service for a run, and gives back at once what no record covers.
    fn request_run(&self, wish: &Wish) -> Result<Run, MapError> {
        let granted = self.client.grow(&self.platform, wish)?;
        let (base, bytes, grant) = (
            granted.base.bits(),
            granted.bytes,
            granted.generation.number(),
        );
        // The reply is checked against what was described and asked for. A run that fails this is left alone: neither
        // side can tell whose it is.
        let offset = self.window.offset_of(base).ok_or(MapError::ServiceFault)?;
        let fits = bytes <= self.window.bytes() - offset && bytes <= wish.most;
        let aligned = offset % CHUNK_BYTES == 0 && bytes % CHUNK_BYTES == 0;
        let enough = bytes > 0 && (!wish.contiguous || bytes >= wish.least);
        if !fits || !aligned || !enough {
            return Err(MapError::ServiceFault);
        }
        let chunk = |bytes: u64| usize::try_from(bytes / CHUNK_BYTES).unwrap_or(usize::MAX);
        let run = Run {
            chunks: chunk(offset)..chunk(offset + bytes),
            grant,
        };
        let covered = self.with_state(|state| state.allocator.covered_chunks());
        let usable = covered.saturating_sub(run.chunks.start) as u64 * CHUNK_BYTES;
        let (usable, surplus) = run.split_at(usable);
        if !surplus.chunks.is_empty() {
            // If this fails too, the surplus stays granted and unused; it is never handed out.
            let address = self.window.chunk_address(surplus.chunks.start);
            let _ = self
                .client
                .release(&self.platform, address, surplus.bytes(), grant);
        }
        if usable.chunks.is_empty() {
            Err(MapError::RecordsExhausted)
        } else {
            Ok(usable)
        }
    }
}

impl State<'_> {
    /// Bytes held now.
    pub fn granted_bytes(&self) -> u64 {
        self.allocator.occupancy().granted_chunks as u64 * CHUNK_BYTES
    }

    /// What to ask for so that an extent exists. A long run is first completed round the empty chunks that are held: the
    /// service grants from the lowest free chunk, so they are most likely neighbours. Where that did not help, the next
    /// attempt asks for the whole run.
    fn begin_growth(&mut self, placement: &Placement, attempt: u32) -> Result<Wish, MapError> {
        let needed = placement.growth_bytes();
        if needed == CHUNK_BYTES {
            return self.growth.begin(needed, false);
        }
        let missing = self
            .allocator
            .missing_bytes(placement)
            .ok_or(MapError::NoContiguousRun)?;
        if attempt == 0 && 0 < missing && missing < needed {
            self.growth.begin(missing, false)
        } else {
            self.growth.begin(needed, true)
        }
    }

    /// Ends a growth: takes the run over, or remembers why there is none.
    fn take_over(&mut self, wish: &Wish, outcome: Result<Run, MapError>) -> Result<(), MapError> {
        let outcome = outcome.and_then(|run| {
            if self.allocator.accepts(&run) {
                Ok(run)
            } else {
                Err(MapError::ServiceFault)
            }
        });
        match outcome {
            Ok(run) => {
                self.allocator.open(&run);
                self.growth.succeeded();
                self.counters.growths += 1;
                self.counters.peak_granted = self.counters.peak_granted.max(self.granted_bytes());
                Ok(())
            }
            Err(cause) => {
                self.growth.failed(wish, cause);
                self.counters.refused_growths += 1;
                Err(cause)
            }
        }
    }
}
