// SPDX-License-Identifier: MIT OR Apache-2.0
//! The records of one chunk: its state, its free map and one record per slot.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::bitmap::{FreeMap, Search, StartRule, WORDS, find_run, mark, next_bit};
use super::record::Record;
use crate::geometry::{CHUNK_BYTES, SLOTS_PER_CHUNK};

/// What the shim knows about a chunk. The service's replies are the only source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkState {
    /// Not ours.
    NotGranted,
    /// Ours; its slots can be handed out.
    Granted,
    /// On its way back to the service; not handed out any more.
    Releasing,
    /// The service answered a release in a way that leaves the owner open: never used again.
    Lost,
}

/// Private metadata of one 2 MiB chunk: what [`Pool::attach`](crate::Pool::attach) is handed one of per chunk.
///
/// All bytes zero is the state before the first grant. Below 1 % of the chunk.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ChunkRecords {
    free: FreeMap,
    state: u32,
    grant: u32,
    free_slots: usize,
    /// Upper bound on the longest free run, so that a chunk which cannot help costs one compare.
    longest: usize,
    records: [Record; SLOTS_PER_CHUNK],
}

const _: () = assert!(size_of::<ChunkRecords>() as u64 * 100 <= CHUNK_BYTES);

impl ChunkRecords {
    /// A chunk that was never granted.
    pub const EMPTY: Self = Self {
        free: [0; WORDS],
        state: ChunkState::NotGranted as u32,
        grant: 0,
        free_slots: 0,
        longest: 0,
        records: [Record::UNUSED; SLOTS_PER_CHUNK],
    };

    /// Bytes of storage that a window needs.
    pub const fn storage_bytes(window_bytes: u64) -> u64 {
        window_bytes.div_ceil(CHUNK_BYTES) * size_of::<Self>() as u64
    }

    /// Takes a byte area as storage for as many chunks as fit, and clears it. `None` if it is not 8-byte aligned.
    pub fn from_storage(storage: &mut [u8]) -> Option<&mut [Self]> {
        let chunks = storage.len() / size_of::<Self>();
        storage.fill(0);
        let (records, _rest) = <[Self]>::mut_from_prefix_with_elems(storage, chunks).ok()?;
        Some(records)
    }

    pub(super) fn state(&self) -> ChunkState {
        match self.state {
            state if state == ChunkState::Granted as u32 => ChunkState::Granted,
            state if state == ChunkState::Releasing as u32 => ChunkState::Releasing,
            state if state == ChunkState::NotGranted as u32 => ChunkState::NotGranted,
            _ => ChunkState::Lost,
        }
    }

    /// The generation the service gave with the grant.
    pub(super) fn grant(&self) -> u32 {
        self.grant
    }

    /// Makes all slots free, under a grant of the service.
    pub(super) fn open(&mut self, grant: u32) {
        self.grant = grant;
        self.state = ChunkState::Granted as u32;
        self.free = [u64::MAX; WORDS];
        self.free_slots = SLOTS_PER_CHUNK;
        self.longest = SLOTS_PER_CHUNK;
    }

    /// Takes all slots out of use; only for a chunk in which nothing is handed out.
    pub(super) fn close(&mut self, state: ChunkState) {
        self.state = state as u32;
        self.free = [0; WORDS];
        self.free_slots = 0;
        self.longest = 0;
    }

    pub(super) fn free_slots(&self) -> usize {
        self.free_slots
    }

    /// Granted, and nothing handed out.
    pub(super) fn is_empty(&self) -> bool {
        self.free_slots() == SLOTS_PER_CHUNK
    }

    /// The first slots of the chunk that are free without a gap.
    pub(super) fn free_prefix(&self) -> usize {
        next_bit(&self.free, 0, u64::MAX).unwrap_or(SLOTS_PER_CHUNK)
    }

    /// Finds a run, and learns the bound on the longest one where there is none.
    pub(super) fn find(&mut self, slots: usize, rule: StartRule) -> Option<usize> {
        if slots > self.longest {
            return None;
        }
        match find_run(&self.free, slots, rule) {
            Search::Found(start) => Some(start),
            Search::Longest(longest) => {
                self.longest = longest;
                None
            }
        }
    }

    /// Takes a run that is free.
    pub(super) fn take(&mut self, start: usize, slots: usize) {
        mark(&mut self.free, start, slots, false);
        self.free_slots -= slots;
    }

    /// Gives a run back.
    pub(super) fn give(&mut self, start: usize, slots: usize) {
        mark(&mut self.free, start, slots, true);
        self.free_slots += slots;
        self.longest = self.free_slots;
    }

    pub(super) fn record(&self, slot: usize) -> Option<&Record> {
        self.records.get(slot)
    }

    pub(super) fn record_mut(&mut self, slot: usize) -> Option<&mut Record> {
        self.records.get_mut(slot)
    }
}
