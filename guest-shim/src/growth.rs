// SPDX-License-Identifier: MIT OR Apache-2.0
//! When and by how much the pool grows: policy only, no call.
//!
//! * Each growth asks for twice as much as the one before, up to a limit that keeps one call short enough for atomic
//!   context. Giving back starts over.
//! * After a refusal nothing at least as large is asked for again until chunks were given back, `maintain` ran, or
//!   enough requests have failed; how many doubles with every refusal. A pool at its cap therefore fails at the price of
//!   a few locks nobody waits for, and not of an exit.

use crate::client::Wish;
use crate::error::MapError;
use crate::geometry::CHUNK_BYTES;

/// Most requests that fail between two attempts after refusals.
const LONGEST_WAIT: u32 = 1 << 16;

/// Why the service gave nothing, and when it is asked again.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    cause: MapError,
    /// What was too much.
    least: u64,
    /// Failing requests until the next attempt.
    remaining: u32,
    /// How long the wait was; the next one is twice that.
    wait: u32,
}

/// The state of growth.
#[derive(Debug)]
pub(crate) struct Growth {
    next: u64,
    limit: u64,
    /// The most one call of the service grants.
    service_limit: u64,
    /// Calls that CPUs are in now.
    in_flight: u32,
    refusal: Option<Refusal>,
}

impl Growth {
    /// Growth by at most `limit` bytes more than a request needs, and `service_limit` bytes in any case.
    pub const fn new(limit: u64, service_limit: u64) -> Self {
        Self {
            next: CHUNK_BYTES,
            limit,
            service_limit,
            in_flight: 0,
            refusal: None,
        }
    }

    /// Whether a request that needs `needed` bytes more may be put to the service now. Counts the failures in between.
    ///
    /// # Errors
    /// The cause of the last refusal, while it is too early to ask again.
    pub fn admit(&mut self, needed: u64) -> Result<(), MapError> {
        let least = needed.min(self.service_limit);
        match &mut self.refusal {
            Some(refusal) if least >= refusal.least && refusal.remaining > 0 => {
                refusal.remaining -= 1;
                Err(refusal.cause)
            }
            _ => Ok(()),
        }
    }

    /// What to ask the service for so that a request for `needed` bytes, which was admitted, can be met. `contiguous` if
    /// they help only in one run.
    pub fn begin(&mut self, needed: u64, contiguous: bool) -> Wish {
        let least = needed.min(self.service_limit);
        // Another CPU is growing the pool for everybody: take no more than this request needs.
        let wanted = if self.in_flight > 0 {
            least
        } else {
            self.next.min(self.limit)
        };
        self.in_flight += 1;
        Wish {
            least,
            most: wanted.max(least).min(self.service_limit),
            // A run longer than one call grants is put together from several calls, if they turn out adjacent.
            contiguous: contiguous && least > CHUNK_BYTES && needed <= self.service_limit,
        }
    }

    /// What to ask for at attach: all of it at once, in as many runs as there are.
    pub fn begin_initial(&mut self, bytes: u64) -> Wish {
        self.in_flight += 1;
        Wish {
            least: CHUNK_BYTES,
            most: bytes.min(self.service_limit),
            contiguous: false,
        }
    }

    /// The service granted something for a wish.
    pub fn succeeded(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.refusal = None;
        self.next = self.next.saturating_mul(2).min(self.limit.max(CHUNK_BYTES));
    }

    /// The service granted nothing for a wish.
    pub fn failed(&mut self, wish: &Wish, cause: MapError) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.refuse(wish.least, cause);
    }

    /// A request for at least `least` bytes more cannot be met, for now.
    pub fn refuse(&mut self, least: u64, cause: MapError) {
        let wait = match self.refusal {
            // Several CPUs were in calls when the first of them was refused: one refusal for all.
            Some(refusal) if refusal.remaining > 0 => refusal.wait,
            Some(refusal) => refusal.wait.saturating_mul(2).min(LONGEST_WAIT),
            None => 1,
        };
        let least = self
            .refusal
            .map_or(least, |refusal| refusal.least.min(least))
            .min(self.service_limit);
        self.refusal = Some(Refusal {
            cause,
            least,
            remaining: wait,
            wait,
        });
    }

    /// The situation may have changed: the next request that needs memory may ask, whatever was refused before.
    pub const fn allow_attempt(&mut self) {
        if let Some(refusal) = &mut self.refusal {
            refusal.remaining = 0;
        }
    }

    /// Chunks went back to the service.
    pub const fn gave_back(&mut self) {
        self.next = CHUNK_BYTES;
        self.allow_attempt();
    }

    /// Why the pool does not grow at present, by as little as a chunk.
    pub fn refusal(&self) -> Option<MapError> {
        self.refusal
            .filter(|refusal| refusal.least <= CHUNK_BYTES)
            .map(|refusal| refusal.cause)
    }

    /// The most that one call grants.
    pub const fn service_limit(&self) -> u64 {
        self.service_limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn each_growth_doubles_up_to_the_limit() {
        let mut growth = Growth::new(32 * MIB, 506 * MIB);
        let mut sizes = [0; 7];
        for size in &mut sizes {
            *size = growth.begin(CHUNK_BYTES, true).most / MIB;
            growth.succeeded();
        }
        assert_eq!(sizes, [2, 4, 8, 16, 32, 32, 32]);
        growth.gave_back();
        assert_eq!(growth.begin(CHUNK_BYTES, true).most, 2 * MIB);
    }

    #[test]
    fn a_second_cpu_asks_only_for_what_it_needs() {
        let mut growth = Growth::new(32 * MIB, 506 * MIB);
        growth.begin(CHUNK_BYTES, true);
        growth.succeeded();
        assert_eq!(growth.begin(CHUNK_BYTES, true).most, 4 * MIB);
        assert_eq!(growth.begin(CHUNK_BYTES, true).most, 2 * MIB);
    }

    #[test]
    fn the_wait_after_refusals_doubles_and_smaller_requests_may_still_ask() {
        let mut growth = Growth::new(32 * MIB, 506 * MIB);
        for wait in [1, 2, 4, 8] {
            assert_eq!(growth.admit(8 * MIB), Ok(()));
            let wish = growth.begin(8 * MIB, true);
            assert!(wish.contiguous);
            growth.failed(&wish, MapError::NoContiguousRun);
            assert_eq!(growth.admit(2 * MIB), Ok(()));
            for _ in 0..wait {
                assert_eq!(growth.admit(8 * MIB), Err(MapError::NoContiguousRun));
            }
        }
        growth.allow_attempt();
        assert_eq!(growth.admit(8 * MIB), Ok(()));
    }

    #[test]
    fn a_run_beyond_one_call_is_asked_for_in_pieces() {
        let mut growth = Growth::new(32 * MIB, 506 * MIB);
        let wish = growth.begin(800 * MIB, true);
        assert_eq!(
            wish,
            Wish {
                least: 506 * MIB,
                most: 506 * MIB,
                contiguous: false
            }
        );
    }
}
