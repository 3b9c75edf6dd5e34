// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the service grants and takes back: chunks, and runs of them.

use core::ops::Range;

#[cfg(not(loom))]
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::geometry::{CHUNK_BYTES, UNITS_PER_CHUNK};

/// What is known about a chunk. Only under the central lock.
#[cfg_attr(not(loom), derive(FromBytes, IntoBytes, KnownLayout))]
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Chunk {
    /// Generation of the grant.
    pub grant: u32,
    /// A [`ChunkState`].
    pub state: u32,
}

/// What the shim knows about a chunk. The service's replies are the only source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkState {
    /// Not ours.
    NotGranted,
    /// Ours; its units can be handed out.
    Granted,
    /// On its way back to the service; not handed out any more.
    Releasing,
    /// The service answered a release in a way that leaves the owner open: never used again.
    Lost,
}

impl Chunk {
    pub(super) const fn state(&self) -> ChunkState {
        match self.state {
            0 => ChunkState::NotGranted,
            1 => ChunkState::Granted,
            2 => ChunkState::Releasing,
            _ => ChunkState::Lost,
        }
    }

    /// Whether it is on its way back as part of this run.
    pub(super) const fn is_leaving(&self, run: &Run) -> bool {
        matches!(self.state(), ChunkState::Releasing) && self.grant == run.grant
    }

    pub(super) const fn set_state(&mut self, state: ChunkState) {
        self.state = state as u32;
    }
}

/// Consecutive chunks of one grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Chunk numbers, counted from the window's base.
    pub chunks: Range<usize>,
    /// Generation the service gave with the grant.
    pub grant: u32,
}

impl Run {
    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK_BYTES
    }

    /// Splits off the chunks behind the first `bytes` bytes.
    pub fn split_at(&self, bytes: u64) -> (Self, Self) {
        let length = usize::try_from(bytes / CHUNK_BYTES).unwrap_or(usize::MAX);
        let middle = self.chunks.start + length.min(self.chunks.len());
        let part = |chunks| Self {
            chunks,
            grant: self.grant,
        };
        (
            part(self.chunks.start..middle),
            part(middle..self.chunks.end),
        )
    }

    pub(super) fn units(&self) -> (u32, u32) {
        let unit =
            |chunk: usize| u32::try_from(chunk).map_or(u32::MAX, |chunk| chunk * UNITS_PER_CHUNK);
        (unit(self.chunks.start), unit(self.chunks.len()))
    }
}
