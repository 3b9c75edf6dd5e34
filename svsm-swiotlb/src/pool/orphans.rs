// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chunks of an older epoch: adopting them, and taking a batch of them to give it back.
//!
//! Each call reads every record of the window once. A chunk changes hands by one exchange, so of two calls that want it
//! one gets it, and the other counts it as left or finds it gone.

use protocol::{Epoch, Holder};
use snp::address::GuestPhysicalAddress;

use super::{BATCH_CHUNKS, ChunkState, InTransit, Pool};

/// What a walk over the records did, in chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Chunks that changed hands.
    pub moved: usize,
    /// Chunks that the older epoch still holds, those included that are on their way back in another call.
    pub left: usize,
}

impl Pool<'_> {
    /// Gives chunks of `from` to `to`, at most `limit`; their generations stay.
    #[inline(never)]
    pub fn adopt(&self, from: Epoch, to: Epoch, limit: usize) -> Tally {
        let mut tally = Tally::default();
        for chunk in 0..self.records.len() {
            let state = self.records.state(chunk);
            let Some(holder) = held_or_releasing(state, from) else {
                continue;
            };
            let adopted = ChunkState::Held(Holder {
                epoch: to,
                ..holder
            });
            let held = ChunkState::Held(holder);
            if state == held && tally.moved < limit && self.records.exchange(chunk, held, adopted) {
                tally.moved = tally.moved.saturating_add(1);
            } else {
                tally.left = tally.left.saturating_add(1);
            }
        }
        tally
    }

    /// Takes chunks that `from` holds, as many as `set` has room for, if it is of this pool; returns how many it holds beside
    /// them.
    // Once in the image, and not once for each window; so are others here.
    #[inline(never)]
    pub fn claim_orphans<'p>(&'p self, from: Epoch, set: &mut TransitSet<'p>) -> usize {
        let ours = core::ptr::eq(set.pool, self);
        let mut left = 0_usize;
        for chunk in 0..self.records.len() {
            let state = self.records.state(chunk);
            let Some(holder) = held_or_releasing(state, from) else {
                continue;
            };
            let taken = ours && state == ChunkState::Held(holder) && set.take(chunk, holder);
            if !taken {
                left = left.saturating_add(1);
            }
        }
        left
    }
}

/// The holder, if it is of this epoch.
fn held_or_releasing(state: ChunkState, epoch: Epoch) -> Option<Holder> {
    match state {
        ChunkState::Held(holder) | ChunkState::Releasing(holder) if holder.epoch == epoch => {
            Some(holder)
        }
        _ => None,
    }
}

/// Chunks in Releasing, wherever they lie, and nobody else's; at most one batch. They stay counted as granted until
/// settled.
///
/// Dropping it unsettled quarantines the chunks, as with [`super::TransitRun`].
#[must_use = "dropping it quarantines the chunks"]
#[derive(Debug)]
pub struct TransitSet<'p> {
    pool: &'p Pool<'p>,
    chunks: [u16; BATCH_CHUNKS],
    count: usize,
}

impl<'p> TransitSet<'p> {
    /// No chunks of this pool.
    pub const fn new(pool: &'p Pool<'p>) -> Self {
        Self {
            pool,
            chunks: [0; BATCH_CHUNKS],
            count: 0,
        }
    }

    /// Becomes a set of chunks of this pool; for one that has none.
    pub(super) const fn turn_to(&mut self, pool: &'p Pool<'p>) {
        self.pool = pool;
    }

    /// Moves a chunk from Held to Releasing and into the set, if there is room and nobody was quicker.
    fn take(&mut self, chunk: usize, holder: Holder) -> bool {
        let Ok(index) = u16::try_from(chunk) else {
            return false;
        };
        let (held, releasing) = (ChunkState::Held(holder), ChunkState::Releasing(holder));
        let Some(slot) = self.chunks.get_mut(self.count) else {
            return false;
        };
        if !self.pool.records.exchange(chunk, held, releasing) {
            return false;
        }
        *slot = index;
        self.count = self.count.saturating_add(1);
        true
    }

    /// Whether no chunk was taken.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Address of the first chunk; an address no range check accepts if there is none.
    pub fn first_address(&self) -> GuestPhysicalAddress {
        let none = GuestPhysicalAddress::new(u64::MAX);
        self.address(0).unwrap_or(none)
    }

    /// All chunks are free.
    pub fn free(mut self) {
        self.set_states(ChunkState::Free);
        self.pool.accounts.give_up(self.count);
        if let Some(first) = self.chunk(0) {
            self.pool.search_again_from(first);
        }
        self.count = 0;
    }

    /// All chunks are quarantined, for ever.
    pub fn quarantine(self) {
        drop(self);
    }

    fn chunk(&self, nth: usize) -> Option<usize> {
        let taken = self.chunks.get(..self.count)?;
        taken.get(nth).copied().map(usize::from)
    }

    fn set_states(&self, state: ChunkState) {
        for chunk in self.chunks.iter().take(self.count) {
            self.pool.records.set(usize::from(*chunk), state);
        }
    }
}

impl InTransit for TransitSet<'_> {
    fn chunks(&self) -> usize {
        self.count
    }

    fn address(&self, nth: usize) -> Option<GuestPhysicalAddress> {
        self.pool.window.chunk_address(self.chunk(nth)?)
    }
}

impl Drop for TransitSet<'_> {
    fn drop(&mut self) {
        self.set_states(ChunkState::Quarantined);
        self.pool.accounts.quarantine(self.count);
    }
}
