// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the pool has done, and how close it is to failing.

use protocol::Call;

use crate::client::CALLS;
use crate::error::MapError;
use crate::geometry::{CHUNK_BYTES, unit_offset};
use crate::platform::Platform;
use crate::pool::Pool;

/// Counters since attach, and the present fill. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Mappings made.
    pub maps: u64,
    /// Mappings ended.
    pub unmaps: u64,
    /// Partial syncs.
    pub syncs: u64,
    /// Mappings and shared buffers refused.
    pub failures: u64,
    /// Shared buffers handed out and not freed yet.
    pub shared_buffers: u64,
    /// Copied into the pool at map.
    pub bytes_in: u64,
    /// Copied out of the pool at unmap.
    pub bytes_out: u64,
    /// Held now.
    pub granted_bytes: u64,
    /// The most ever held.
    pub peak_granted_bytes: u64,
    /// Handed out or reserved now, in whole slots.
    pub used_bytes: u64,
    /// The most that was ever outside the central store, in whole slabs: handed out, reserved or ready in a CPU's cache.
    pub peak_used_bytes: u64,
    /// Given up so far.
    pub released_bytes: u64,
    /// Taken back by the host so far, by its own account.
    pub acknowledged_bytes: u64,
    /// Lost to answers that leave their owner open; never used again.
    pub lost_bytes: u64,
    /// Growths that gave memory.
    pub growths: u64,
    /// Growths that were refused.
    pub refused_growths: u64,
    /// Size of the private metadata.
    pub metadata_bytes: u64,
    /// Calls of the protocol issued, by number.
    pub calls: [u64; CALLS],
    /// `failures` by cause, in the order of [`MapError::ALL`].
    pub failures_by_cause: [u64; MapError::ALL.len()],
}

impl Statistics {
    /// Calls issued of one kind.
    pub fn calls_of(&self, call: Call) -> u64 {
        self.calls.get(call.index()).copied().unwrap_or(0)
    }

    /// Mappings and shared buffers refused for one cause.
    pub fn failures_for(&self, cause: MapError) -> u64 {
        self.failures_by_cause
            .get(cause.index())
            .copied()
            .unwrap_or(0)
    }

    /// All calls issued.
    pub fn total_calls(&self) -> u64 {
        self.calls.iter().sum()
    }
}

/// How close the pool is to failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PressureLevel {
    /// Less than 3/4 of what the pool can have is in use.
    Low,
    /// At least 3/4.
    Elevated,
    /// At least 7/8: large mappings may fail soon.
    High,
    /// The last request failed for want of memory.
    Exhausted,
}

/// How close the pool is to failing, and why it cannot have more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// How close.
    pub level: PressureLevel,
    /// What limits the pool at present: the last failure, a refusal that still stands, or the cap.
    pub cause: Option<MapError>,
    /// In use, in whole slots.
    pub used_bytes: u64,
    /// What the pool can have: the cap, or what it holds while the service refuses more.
    pub reachable_bytes: u64,
}

/// The counters behind the lock: what happens rarely.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    failures: [u64; MapError::ALL.len()],
    pub peak_granted: u64,
    pub released: u64,
    pub acknowledged: u64,
    pub growths: u64,
    pub refused_growths: u64,
    /// Cap on granted bytes, as last heard.
    pub cap: u64,
    /// What the last maintenance kept.
    pub retained_chunks: usize,
    /// The last request's failure, until the central store serves one.
    last_failure: Option<MapError>,
}

impl Counters {
    pub const fn new(cap: u64) -> Self {
        Self {
            failures: [0; MapError::ALL.len()],
            peak_granted: 0,
            released: 0,
            acknowledged: 0,
            growths: 0,
            refused_growths: 0,
            cap,
            retained_chunks: 0,
            last_failure: None,
        }
    }

    /// The central store has served a request. What was freed since a failure goes there, so it is the first to know.
    pub const fn served(&mut self) {
        self.last_failure = None;
    }

    pub fn failed(&mut self, cause: MapError) {
        if let Some(count) = self.failures.get_mut(cause.index()) {
            *count += 1;
        }
        let callers_mistake = matches!(
            cause,
            MapError::InvalidRequest | MapError::OutOfReach | MapError::TooLarge
        );
        if !callers_mistake {
            self.last_failure = Some(cause);
        }
    }
}

impl<P: Platform> Pool<'_, P> {
    /// The counters and the present fill.
    pub fn statistics(&self) -> Statistics {
        let calls = self.client.issued();
        let shared = &self.shared;
        // Unmaps are read first: a mapping that ends meanwhile is then counted as live and not as ended twice.
        let unmaps = shared.sum(|counters| &counters.unmaps);
        self.with_state(|state| {
            let counters = &state.counters;
            let occupancy = state.central.occupancy();
            Statistics {
                maps: shared.sum(|counters| &counters.maps),
                unmaps,
                syncs: shared.sum(|counters| &counters.syncs),
                failures: counters.failures.iter().sum(),
                failures_by_cause: counters.failures,
                shared_buffers: shared.balance(|counters| &counters.shared_buffers),
                bytes_in: shared.sum(|counters| &counters.bytes_in),
                bytes_out: shared.sum(|counters| &counters.bytes_out),
                granted_bytes: state.granted_bytes(),
                peak_granted_bytes: counters.peak_granted,
                used_bytes: shared.balance(|counters| &counters.used),
                peak_used_bytes: unit_offset(occupancy.highest_units),
                released_bytes: counters.released,
                acknowledged_bytes: counters.acknowledged,
                lost_bytes: occupancy.lost_chunks as u64 * CHUNK_BYTES,
                growths: counters.growths,
                refused_growths: counters.refused_growths,
                metadata_bytes: shared.metadata_bytes as u64,
                calls,
            }
        })
    }

    /// Length of the longest mapping without constraints that there is room for in what the pool has been granted, but for
    /// slots of buffers that are smaller than a page. Issues no call; others take room at any time.
    pub fn longest_run_bytes(&self) -> u64 {
        self.with_state(|state| state.central.longest_run_bytes())
    }

    /// How close the pool is to failing. Issues no call.
    pub fn pressure(&self) -> Pressure {
        self.with_state(|state| {
            let used = self.shared.balance(|counters| &counters.used);
            let granted = state.granted_bytes();
            let covered = state.central.covered_chunks() as u64 * CHUNK_BYTES;
            let refusal = state.growth.refusal();
            let reachable = match refusal {
                Some(_) => granted,
                None => state.counters.cap.min(covered).max(granted),
            };
            let limit = if state.counters.cap <= covered {
                MapError::CapReached
            } else {
                MapError::RecordsExhausted
            };
            let cause = state.counters.last_failure.or(refusal);
            let level = if state.counters.last_failure.is_some() {
                PressureLevel::Exhausted
            } else if used * 8 >= reachable * 7 {
                PressureLevel::High
            } else if used * 4 >= reachable * 3 {
                PressureLevel::Elevated
            } else {
                PressureLevel::Low
            };
            let cause = cause.or((level > PressureLevel::Low).then_some(limit));
            Pressure {
                level,
                cause,
                used_bytes: used,
                reachable_bytes: reachable,
            }
        })
    }
}
