// SPDX-License-Identifier: MIT OR Apache-2.0
//! Giving empty chunks back to the host.
//!
//! Nothing in the pool depends on any of this being called. A kernel calls [`Pool::maintain`] now and then from a
//! context that may take a few calls' time.

use crate::allocator::Run;
use crate::client::CallError;
use crate::error::MapError;
use crate::geometry::{CHUNK_BYTES, UNIT_BYTES, UNITS_PER_CHUNK};
use crate::platform::Platform;
use crate::pool::{Pool, State};
use protocol::response::Released;
use snp::svsm::ResultCode;

/// What a give-back achieved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenBack {
    /// Bytes the pool no longer holds.
    pub released_bytes: u64,
    /// Bytes of those that the host says it took back; on hosts without separate shared memory a hint at best.
    pub acknowledged_bytes: u64,
    /// Why not more, if the service stopped it.
    pub stopped_by: Option<MapError>,
}

impl<P: Platform> Pool<'_, P> {
    /// Gives back empty chunks that the load of the recent past did not need.
    ///
    /// Kept are the chunks in use, as many as what was in use at the same time since the last call would fill, and half of
    /// what the last call kept: a burst that comes back soon finds its memory, one that does not is forgotten after a few calls.
    /// Never less than [`Config::minimum_bytes`](crate::Config), and never more free than its high watermark says. If less is
    /// free than its low watermark says, the pool grows instead, by one call.
    pub fn maintain(&self) -> GivenBack {
        let minimum = self.config.minimum_bytes.div_ceil(CHUNK_BYTES);
        let minimum = usize::try_from(minimum).unwrap_or(usize::MAX);
        self.empty_caches();
        let surplus = self.with_state(|state| {
            state.growth.allow_attempt();
            let occupancy = state.central.occupancy();
            let needed = occupancy.peak_units.div_ceil(UNITS_PER_CHUNK) as usize;
            let retained = needed.max(state.counters.retained_chunks / 2);
            state.counters.retained_chunks = retained;
            state.central.restart_peak();
            // What is in use cannot go: the peak starts anew at it.
            let used = state.central.occupancy().peak_units;
            let with_free = |free: u64| {
                let used_bytes = u64::from(used) * UNIT_BYTES;
                let bytes = used_bytes.saturating_add(free).div_ceil(CHUNK_BYTES);
                usize::try_from(bytes).unwrap_or(usize::MAX)
            };
            let low = with_free(self.config.low_watermark_bytes);
            let high = with_free(self.config.high_watermark_bytes).max(low);
            occupancy
                .granted_chunks
                .saturating_sub(retained.max(low).min(high).max(minimum))
        });
        let mut given = self.release_empty(surplus);
        if given.released_bytes == 0
            && let Err(cause) = self.grow_ahead(self.config.low_watermark_bytes)
        {
            given.stopped_by = given.stopped_by.or(Some(cause));
        }
        given
    }

    /// Gives back every empty chunk, for a kernel that stops using the pool. What is still mapped stays granted and
    /// usable, and the pool grows again when it is used again.
    pub fn give_back(&self) -> GivenBack {
        self.empty_caches();
        let granted = self.with_state(|state| {
            state.counters.retained_chunks = 0;
            state.central.restart_peak();
            state.central.occupancy().granted_chunks
        });
        self.release_empty(granted)
    }

    /// Gives back at most `surplus` chunks, as far as they are empty.
    fn release_empty(&self, mut surplus: usize) -> GivenBack {
        let mut given = GivenBack::default();
        while surplus > 0 {
            let Some(run) = self.with_state(|state| state.central.withdraw(surplus)) else {
                break;
            };
            surplus -= run.chunks.len();
            let address = self.window.chunk_address(run.chunks.start);
            let answer = self
                .client
                .release(&self.platform, address, run.bytes(), run.grant);
            let settled = self.with_state(|state| {
                let settled = state.settle(&run, answer);
                self.shared
                    .note_size(state.central.occupancy().granted_chunks);
                settled
            });
            match settled {
                Ok(released) => {
                    given.released_bytes += released.bytes;
                    given.acknowledged_bytes += released.acknowledged;
                    if released.bytes == 0 {
                        break;
                    }
                    // One call may do less than was asked: the rest is in the pool again and gets its own call.
                    surplus +=
                        usize::try_from((run.bytes() - released.bytes) / CHUNK_BYTES).unwrap_or(0);
                }
                Err(cause) => {
                    given.stopped_by = Some(cause);
                    break;
                }
            }
        }
        given
    }
}

impl State<'_> {
    /// Brings the private state in line with the answer to a release.
    fn settle(
        &mut self,
        run: &Run,
        answer: Result<Released, CallError>,
    ) -> Result<Released, MapError> {
        match answer {
            Ok(released) if released.bytes <= run.bytes() && released.bytes % CHUNK_BYTES == 0 => {
                let (gone, kept) = run.split_at(released.bytes);
                self.central.forget(&gone);
                self.central.restore(&kept);
                self.growth.gave_back();
                self.counters.released += released.bytes;
                self.counters.acknowledged += released.acknowledged;
                Ok(released)
            }
            // Nothing happened: the chunks are still ours.
            Err(error @ (CallError::NotRun | CallError::Refused(ResultCode::BUSY))) => {
                self.central.restore(run);
                Err(error.into())
            }
            // Whose they are is open. Using them could mean using what is no longer shared.
            Ok(_) => {
                self.central.lose(run);
                Err(MapError::ServiceFault)
            }
            Err(error) => {
                self.central.lose(run);
                Err(error.into())
            }
        }
    }
}
