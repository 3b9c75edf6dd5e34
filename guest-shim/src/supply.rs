// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where extents come from: the granted chunks, and the service when those have none.
//!
//! Growing is synchronous. It takes no guest memory, does not sleep and changes no page table, so it is legal wherever a
//! mapping is. The lock is dropped for the call; the grant is taken over and the waiting request served under one lock,
//! so that no other CPU can take the memory a request has grown the pool for.

use crate::allocator::{Placement, Room, Run, Shared, Taken};
use crate::client::Wish;
use crate::error::MapError;
use crate::geometry::CHUNK_BYTES;
use crate::platform::Platform;
use crate::pool::{Pool, State};

/// Growths of one request, beyond those that a run longer than one call grants is put together from. One suffices unless
/// the device cannot reach what was granted.
const GROWTHS_PER_REQUEST: u32 = 8;

impl<'a, P: Platform> Pool<'a, P> {
    /// Takes what a request needs out of the central store: after the caches were emptied into it if need be, and after
    /// the pool has grown if that was not enough.
    ///
    /// # Errors
    /// The named cause for which the pool cannot grow.
    #[cold]
    pub(crate) fn obtain(&self, placement: &Placement) -> Result<Taken, MapError> {
        self.obtain_with(placement, |state| state.take(placement))
    }

    /// The same for anything that is taken for a placement.
    pub(crate) fn obtain_with<T>(
        &self,
        placement: &Placement,
        take: impl Fn(&mut State<'a>) -> Option<T>,
    ) -> Result<T, MapError> {
        if let Some(taken) = self.with_state(&take) {
            return Ok(taken);
        }
        let is_extent = matches!(placement.room, Room::Extent { .. });
        if is_extent
            && self.empty_own_extents()
            && let Some(taken) = self.with_state(&take)
        {
            return Ok(taken);
        }
        let needed = placement.growth_bytes();
        let limit = self.with_state(|state| state.growth.service_limit());
        let pieces = needed.checked_div(limit).unwrap_or(0);
        let mut lacked = u64::MAX;
        for _ in 0..u64::from(GROWTHS_PER_REQUEST).saturating_add(pieces) {
            let (admitted, was_scarce) =
                self.with_state(|state| (state.growth.admit(needed), self.shared.note_scarcity()));
            // What sits in the caches may be what is missing. Nothing does while memory is scarce, so a request that
            // fails again and again fails at once.
            if !was_scarce || !self.shared.is_swept() {
                let all = self.empty_caches();
                let taken = self.with_state(|state| {
                    // The emptying itself has counted against the time of scarcity.
                    self.shared.note_scarcity();
                    self.shared.note_sweep(all);
                    take(state)
                });
                if let Some(taken) = taken {
                    return Ok(taken);
                }
            }
            admitted?;
            let step = self.with_state(|state| match take(state) {
                Some(taken) => Ok(Ok(taken)),
                None => {
                    let wish = state.begin_growth(placement, &mut lacked, self.window.chunks());
                    wish.map(Err)
                }
            });
            let wish = match step {
                Ok(Ok(taken)) => return Ok(taken),
                Ok(Err(wish)) => wish,
                Err(cause) => return Err(cause),
            };
            let outcome = self.request_run(&wish);
            let served = self.with_state(|state| {
                state.take_over(&self.shared, &wish, outcome)?;
                Ok(take(state))
            });
            match served {
                Ok(Some(taken)) => return Ok(taken),
                Ok(None) => {}
                Err(cause) => return Err(cause),
            }
        }
        Err(MapError::NoContiguousRun)
    }

    /// The growth of attach. A refusal is remembered like any other.
    pub(crate) fn grow_initially(&self) {
        let target = self
            .config
            .initial_bytes
            .min(self.window.bytes())
            .next_multiple_of(CHUNK_BYTES);
        // Every growth grants a chunk at least, or ends this.
        for _ in 0..self.window.chunks() {
            let wish = self.with_state(|state| {
                let missing = target.saturating_sub(state.granted_bytes());
                (missing > 0).then(|| state.growth.begin_initial(missing))
            });
            let Some(wish) = wish else { return };
            let outcome = self.request_run(&wish);
            if self
                .with_state(|state| state.take_over(&self.shared, &wish, outcome))
                .is_err()
            {
                return;
            }
        }
    }

    /// One growth ahead of need: as much as is missing for `free` bytes to be free, as far as one growth goes.
    ///
    /// # Errors
    /// Why there is no more, or that it is too early to ask again.
    pub(crate) fn grow_ahead(&self, free: u64) -> Result<(), MapError> {
        let wish = self.with_state(|state| -> Result<_, MapError> {
            let missing = free.saturating_sub(state.central.free_bytes());
            if missing == 0 {
                return Ok(None);
            }
            state.growth.admit(CHUNK_BYTES)?;
            let missing = missing.min(self.config.growth_limit_bytes.max(CHUNK_BYTES));
            let missing = missing.next_multiple_of(CHUNK_BYTES);
            Ok(Some(state.growth.begin_initial(missing)))
        })?;
        let Some(wish) = wish else { return Ok(()) };
        let outcome = self.request_run(&wish);
        self.with_state(|state| state.take_over(&self.shared, &wish, outcome))
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
        let covered = self.with_state(|state| state.central.covered_chunks());
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
        self.central.occupancy().granted_chunks as u64 * CHUNK_BYTES
    }

    /// The pool holds more than before.
    pub fn note_granted(&mut self) {
        self.counters.peak_granted = self.counters.peak_granted.max(self.granted_bytes());
    }

    /// What to ask for so that there is room. A long run is completed where the service grants from, with the free units
    /// that lie there already. As long as that makes less be `lacked`, it goes on; where it does not help, the next attempt
    /// asks for the whole run.
    ///
    /// # Errors
    /// Why no growth can help. Unless it is the device that cannot be served, it is remembered like a refusal of the
    /// service.
    fn begin_growth(
        &mut self,
        placement: &Placement,
        lacked: &mut u64,
        window_chunks: usize,
    ) -> Result<Wish, MapError> {
        let needed = placement.growth_bytes();
        if let Some(limit) = placement.end_limit
            && !self.central.has_grantable_below(limit)
        {
            // Not remembered: for other devices the pool may still grow.
            return Err(MapError::NoContiguousRun);
        }
        if let Some(cause) = self.central.why_complete(placement.room, window_chunks) {
            self.growth.refuse(needed, cause);
            return Err(cause);
        }
        if needed == CHUNK_BYTES {
            return Ok(self.growth.begin(needed, false));
        }
        match self.central.missing_bytes(placement.room) {
            Some(missing) if 0 < missing && missing < *lacked => {
                *lacked = missing;
                Ok(self.growth.begin(missing, false))
            }
            _ => Ok(self.growth.begin(needed, true)),
        }
    }

    /// Ends a growth: takes the run over, or remembers why there is none.
    fn take_over(
        &mut self,
        shared: &Shared<'_>,
        wish: &Wish,
        outcome: Result<Run, MapError>,
    ) -> Result<(), MapError> {
        let outcome = outcome.and_then(|run| {
            if self.central.accepts(&run) {
                Ok(run)
            } else {
                Err(MapError::ServiceFault)
            }
        });
        match outcome {
            Ok(run) => {
                self.central.open(&run);
                self.growth.succeeded();
                shared.note_growth();
                shared.note_size(self.central.occupancy().granted_chunks);
                self.counters.growths += 1;
                self.note_granted();
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
