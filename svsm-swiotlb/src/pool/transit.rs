// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run of chunks in the hands of one call, from its claim to its settlement.

use protocol::Holder;
use snp::address::GuestPhysicalAddress;

use super::window::chunk_bytes;
use super::{ChunkState, Pool};

/// Chunks that a page-state change can be asked for: nobody else's until they are settled.
pub trait InTransit {
    /// Chunks.
    fn chunks(&self) -> usize;

    /// First byte of the nth of them; `None` past the end.
    fn address(&self, nth: usize) -> Option<GuestPhysicalAddress>;
}

/// Consecutive chunks in Granting or Releasing, and nobody else's. They stay counted as granted until settled.
///
/// Dropping it unsettled quarantines the chunks: whoever loses track half-way must not hand them back (invariant P3).
#[must_use = "dropping it quarantines the chunks"]
#[derive(Debug)]
pub struct TransitRun<'p> {
    pool: &'p Pool<'p>,
    first: usize,
    count: usize,
}

impl<'p> TransitRun<'p> {
    /// Only for whoever has just moved exactly these chunks into transition and counted them as granted.
    pub(super) const fn new(pool: &'p Pool<'p>, first: usize, count: usize) -> Self {
        Self { pool, first, count }
    }

    /// Bytes.
    pub fn bytes(&self) -> u64 {
        chunk_bytes(self.count)
    }

    /// First byte.
    pub fn base(&self) -> GuestPhysicalAddress {
        // Every claim lies in the window; the fallback is an address no range check accepts.
        let none = GuestPhysicalAddress::new(u64::MAX);
        self.pool.window.chunk_address(self.first).unwrap_or(none)
    }

    /// The first `granted` chunks are the holder's, the others free. Returns the bytes granted.
    pub fn grant(mut self, holder: Holder, granted: usize) -> u64 {
        let granted = granted.min(self.count);
        let rest = self.count.saturating_sub(granted);
        self.set_states(0, granted, ChunkState::Held(holder));
        self.set_states(granted, rest, ChunkState::Free);
        self.pool.accounts.give_up(rest);
        self.pool
            .search_again_from(self.first.saturating_add(granted));
        self.count = 0;
        chunk_bytes(granted)
    }

    /// All chunks are free.
    pub fn free(mut self) {
        self.set_states(0, self.count, ChunkState::Free);
        self.pool.accounts.give_up(self.count);
        self.pool.search_again_from(self.first);
        self.count = 0;
    }

    /// All chunks are quarantined, for ever.
    pub fn quarantine(self) {
        drop(self);
    }

    fn set_states(&self, offset: usize, count: usize, state: ChunkState) {
        let start = self.first.saturating_add(offset);
        for chunk in start..start.saturating_add(count) {
            self.pool.records.set(chunk, state);
        }
    }
}

impl InTransit for TransitRun<'_> {
    fn chunks(&self) -> usize {
        self.count
    }

    fn address(&self, nth: usize) -> Option<GuestPhysicalAddress> {
        let chunk = self.first.checked_add(nth).filter(|_| nth < self.count)?;
        self.pool.window.chunk_address(chunk)
    }
}

impl Drop for TransitRun<'_> {
    fn drop(&mut self) {
        self.set_states(0, self.count, ChunkState::Quarantined);
        self.pool.accounts.quarantine(self.count);
    }
}
