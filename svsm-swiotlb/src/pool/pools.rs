// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pools of a service: that of window 0, and that of window 1 if there is one.
//!
//! Each has its records, its accounts and its cap. All windows together have at most [`MAX_WINDOW_CHUNKS`] chunks, so that
//! a second window adds nothing to the longest walk over the records (docs/PROTOCOL.md, P-6.5).

use core::ops::Range;

use protocol::{Epoch, Holder};
use snp::address::GuestPhysicalAddress;

use super::orphans::{Tally, TransitSet};
use super::{ChunkState, MAX_WINDOW_CHUNKS, Pool, Window, WindowError};

/// One pool for each window.
#[derive(Debug)]
pub struct Pools<'a> {
    first: Pool<'a>,
    second: Option<Pool<'a>>,
}

impl<'a> From<Pool<'a>> for Pools<'a> {
    fn from(first: Pool<'a>) -> Self {
        Self {
            first,
            second: None,
        }
    }
}

impl<'a> Pools<'a> {
    /// The pools of windows 0 and 1.
    ///
    /// # Errors
    /// [`WindowError::OverlapsWindow`] if a page is in both, [`WindowError::TooLarge`] if together they have too many chunks.
    pub fn two(first: Pool<'a>, second: Pool<'a>) -> Result<Self, WindowError> {
        let (one, other) = (first.window(), second.window());
        if one.touches(other.base(), other.bytes()) {
            return Err(WindowError::OverlapsWindow);
        }
        if one.chunks().saturating_add(other.chunks()) > MAX_WINDOW_CHUNKS {
            return Err(WindowError::TooLarge);
        }
        Ok(Self {
            first,
            second: Some(second),
        })
    }

    /// The same with another bound on the chunks that one call moves.
    pub(crate) fn with_call_chunks(self, call_chunks: usize) -> Self {
        Self {
            first: self.first.with_call_chunks(call_chunks),
            second: (self.second).map(|pool| pool.with_call_chunks(call_chunks)),
        }
    }

    /// The pool of window 0.
    pub const fn first(&self) -> &Pool<'a> {
        &self.first
    }

    /// The pool of window 1.
    pub const fn second(&self) -> Option<&Pool<'a>> {
        self.second.as_ref()
    }

    /// The pool of a window; `None` if there is no such window.
    pub fn get(&self, window: u8) -> Option<&Pool<'a>> {
        match window {
            0 => Some(&self.first),
            1 => self.second.as_ref(),
            _ => None,
        }
    }

    /// All of them, in the order of their windows.
    pub fn iter(&self) -> impl Iterator<Item = &Pool<'a>> {
        core::iter::once(&self.first).chain(&self.second)
    }

    /// The windows, in their order.
    pub fn windows(&self) -> impl Iterator<Item = &Window> {
        self.iter().map(Pool::window)
    }

    /// Whether any byte of `[address, address + bytes)` lies in a window; see [`Window::touches`].
    pub fn touches(&self, address: GuestPhysicalAddress, bytes: u64) -> bool {
        let touched = |pool: &Pool<'_>| pool.window().touches(address, bytes);
        touched(&self.first) || self.second.as_ref().is_some_and(touched)
    }

    /// The pool and the chunks of a range of whole chunks; `None` unless it lies wholly in one window.
    pub(crate) fn chunk_range(
        &self,
        base: GuestPhysicalAddress,
        bytes: u64,
    ) -> Option<(&Pool<'a>, Range<usize>)> {
        let pool = match &self.second {
            Some(second) if second.window().touches(base, bytes) => second,
            _ => &self.first,
        };
        Some((pool, pool.window().chunk_range(base, bytes)?))
    }

    /// Bytes granted of all windows.
    pub fn granted_bytes(&self) -> u64 {
        let of = |pool: &Pool<'_>| pool.accounts().granted_bytes();
        of(&self.first).saturating_add(self.second.as_ref().map_or(0, of))
    }

    /// From now on no call of an epoch before this one changes a cap.
    pub(crate) fn begin_epoch(&self, epoch: Epoch) {
        self.first.accounts().begin_epoch(epoch);
        if let Some(second) = &self.second {
            second.accounts().begin_epoch(epoch);
        }
    }

    /// Gives chunks of `from` to `to`, at most `limit` of all windows; their generations stay.
    pub(crate) fn adopt(&self, from: Epoch, to: Epoch, limit: usize) -> Tally {
        let mut tally = self.first.adopt(from, to, limit);
        if let Some(second) = &self.second {
            let there = second.adopt(from, to, limit.saturating_sub(tally.moved));
            tally.moved = tally.moved.saturating_add(there.moved);
            tally.left = tally.left.saturating_add(there.left);
        }
        tally
    }

    /// Takes at most one batch of the chunks that `from` holds in one window, the first where any can be taken; and how many it
    /// holds beside them, wherever they lie.
    pub(crate) fn claim_orphans(&self, from: Epoch) -> (TransitSet<'_>, usize) {
        let mut set = TransitSet::new(&self.first);
        let mut left = self.first.claim_orphans(from, &mut set);
        if let Some(second) = &self.second {
            // A set is of one window: with chunks of the first it takes none here.
            if set.is_empty() {
                set.turn_to(second);
            }
            left = left.saturating_add(second.claim_orphans(from, &mut set));
        }
        (set, left)
    }

    /// Chunks of all windows.
    pub(crate) fn chunks(&self) -> usize {
        let of = |pool: &Pool<'_>| pool.window().chunks();
        of(&self.first).saturating_add(self.second.as_ref().map_or(0, of))
    }

    /// The run of one holder that chunk `number` begins, and its first byte; it ends at the end of its window, or before chunk
    /// `stop`. Chunks are numbered through all windows, in their order.
    ///
    /// `None` if that chunk is not held. Chunks in transition are left out: they belong to a call that is about to say what
    /// becomes of them.
    pub(crate) fn run_at(
        &self,
        number: usize,
        stop: usize,
    ) -> Option<(GuestPhysicalAddress, Holder, usize)> {
        let before = self.first.window().chunks();
        let (pool, before) = match number.checked_sub(before) {
            None => (&self.first, 0),
            Some(_) => (self.second.as_ref()?, before),
        };
        let first = number.saturating_sub(before);
        // Behind the end of a window nothing is held.
        let stop = stop.saturating_sub(before);
        let ChunkState::Held(holder) = pool.records().state(first) else {
            return None;
        };
        let same = (first..stop)
            .take_while(|chunk| pool.records().state(*chunk) == ChunkState::Held(holder))
            .count();
        // At least one, although another processor may have released it since: progress must not depend on that.
        let base = pool.window().chunk_address(first)?;
        Some((base, holder, same.max(1)))
    }
}
