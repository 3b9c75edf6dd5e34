// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an earlier kernel left behind: adopting it into the pool, or giving it back; and leaving in good order.
//!
//! Devices that the earlier kernel set up may still write to its chunks. A kernel that finds orphans quiets its devices
//! first, whatever it does with them.

use protocol::list::{ENTRY_BYTES, GrantedRun, HEADER_BYTES, ListHeader, MAX_ENTRIES};
use snp::svsm::ResultCode;
use zerocopy::{FromZeros, IntoBytes};

use crate::allocator::Run;
use crate::client::CallError;
use crate::error::MapError;
use crate::geometry::{CHUNK_BYTES, MAX_CHUNKS};
use crate::maintenance::GivenBack;
use crate::platform::Platform;
use crate::pool::Pool;

/// A page of the kernel's private, validated memory in which the service writes lists.
pub trait ListPage {
    /// Its guest physical address; page aligned.
    fn address(&self) -> u64;

    /// Copies out of it, from an offset on. The service may write at any time of a call: each byte is read once.
    fn read(&self, offset: usize, bytes: &mut [u8]);

    /// Copies into it.
    fn write(&self, offset: usize, bytes: &[u8]);
}

/// What became of an earlier kernel's chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adoption {
    /// Bytes that are the pool's now.
    pub adopted_bytes: u64,
    /// Bytes of those that no record covers; given back.
    pub uncovered_bytes: u64,
}

impl<P: Platform> Pool<'_, P> {
    /// Takes over every chunk that earlier kernels hold: it is shared already, so the pool has grown without asking the
    /// host. Called right after attach, while nobody else uses the pool; hence the exclusive reference.
    ///
    /// Chunks of other windows become the attachment's as well; a pool of theirs ([`Pool::attach_beside`]) finds them by the same
    /// call. Where there is none they stay held and unused.
    ///
    /// # Errors
    /// Why it stopped. What was taken over until then is the pool's; what was not is still an orphan, or held and unused
    /// until the next attachment.
    pub fn adopt_orphans(&mut self, page: &impl ListPage) -> Result<Adoption, MapError> {
        // Each turn empties one epoch, and an epoch that holds something holds a chunk.
        for _ in 0..=MAX_CHUNKS {
            let Some(older) = self.older_epoch(page)? else {
                return self.take_in(page);
            };
            while self.client.adopt(&self.platform, older)?.left > 0 {}
        }
        Err(MapError::Busy)
    }

    /// Gives back every chunk that earlier kernels hold, of all windows. A pool of another window that was refused memory before
    /// learns of it by [`Windows::release_orphans`](crate::Windows::release_orphans) or at its next [`Pool::maintain`].
    ///
    /// # Errors
    /// Why it stopped; what was given back until then is counted by the service only.
    pub fn release_orphans(&self, page: &impl ListPage) -> Result<GivenBack, MapError> {
        let mut given = GivenBack::default();
        for _ in 0..=MAX_CHUNKS {
            let Some(older) = self.older_epoch(page)? else {
                self.may_grow_again();
                return Ok(given);
            };
            loop {
                let released = self.client.release_orphans(&self.platform, older)?;
                given.released_bytes += released.bytes;
                given.acknowledged_bytes += released.acknowledged;
                if released.left == 0 {
                    break;
                }
            }
        }
        Err(MapError::Busy)
    }

    /// Chunks went back to the service: what it refused before may be asked again.
    pub(crate) fn may_grow_again(&self) {
        self.with_state(|state| state.growth.gave_back());
    }

    /// Ends the attachment, that of all its pools; returns the bytes that are granted still, which are orphans from now on. A kernel unmaps
    /// everything and calls [`Pool::give_back`] before. Memory that is handed out stays shared; the pool does not grow or
    /// shrink any more.
    ///
    /// # Errors
    /// What kept the call from being answered.
    pub fn detach(&self) -> Result<u64, MapError> {
        Ok(self.client.detach(&self.platform)?.orphaned_bytes)
    }

    /// The epoch of the first orphan there is.
    fn older_epoch(&self, page: &impl ListPage) -> Result<Option<u32>, MapError> {
        let own = self.attachment.epoch;
        let mut found = None;
        self.for_each_granted(page, |run| {
            if run.epoch != own && found.is_none() {
                found = Some(run.epoch);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Puts every run of the own epoch that the pool does not know yet into it.
    fn take_in(&self, page: &impl ListPage) -> Result<Adoption, MapError> {
        let mut adoption = Adoption::default();
        self.for_each_granted(page, |run| {
            if run.epoch != self.attachment.epoch || self.is_elsewhere(run) {
                return Ok(());
            }
            // A list entry is checked like the answer to a growth.
            let offset = self
                .window
                .offset_of(run.base)
                .ok_or(MapError::ServiceFault)?;
            let fits = run.bytes <= self.window.bytes() - offset;
            let whole = offset % CHUNK_BYTES == 0 && run.bytes % CHUNK_BYTES == 0;
            if !fits || !whole || run.generation == 0 {
                return Err(MapError::ServiceFault);
            }
            let chunk = |bytes: u64| usize::try_from(bytes / CHUNK_BYTES).unwrap_or(usize::MAX);
            let (first, end) = (chunk(offset), chunk(offset + run.bytes));
            self.with_state(|state| {
                let covered = state.central.covered_chunks();
                for number in first..end.min(covered) {
                    let single = Run {
                        chunks: number..number + 1,
                        grant: run.generation,
                    };
                    if state.central.accepts(&single) {
                        state.central.open(&single);
                        adoption.adopted_bytes += CHUNK_BYTES;
                    }
                }
                let granted = state.central.occupancy().granted_chunks;
                state.note_granted();
                self.shared.note_growth();
                self.shared.note_size(granted);
                adoption.uncovered_bytes +=
                    end.saturating_sub(covered.max(first)) as u64 * CHUNK_BYTES;
            });
            Ok(())
        })?;
        self.release_uncovered(page)?;
        Ok(adoption)
    }

    /// Gives back what no record covers; the list changes by that, so it is read anew after each call.
    fn release_uncovered(&self, page: &impl ListPage) -> Result<(), MapError> {
        let covered = self.with_state(|state| state.central.covered_chunks());
        if covered >= self.window.chunks() {
            return Ok(());
        }
        let edge = self.window.chunk_address(covered);
        for _ in covered..self.window.chunks() {
            let mut first = None;
            self.for_each_granted(page, |run| {
                let end = run.base.saturating_add(run.bytes);
                let ours = run.epoch == self.attachment.epoch && !self.is_elsewhere(run);
                if ours && end > edge && first.is_none() {
                    let base = run.base.max(edge);
                    first = Some((base, end - base, run.generation));
                }
                Ok(())
            })?;
            let Some((base, bytes, generation)) = first else {
                break;
            };
            self.client
                .release(&self.platform, base, bytes, generation)?;
        }
        Ok(())
    }

    /// Whether a run belongs to another window. No run lies in two windows (P-7.2).
    const fn is_elsewhere(&self, run: &GrantedRun) -> bool {
        let end = self.window.base() + self.window.bytes();
        run.base >= end || run.base.saturating_add(run.bytes) <= self.window.base()
    }

    /// Calls `visit` for every run that LIST_GRANTED reports.
    fn for_each_granted(
        &self,
        page: &impl ListPage,
        mut visit: impl FnMut(&GrantedRun) -> Result<(), MapError>,
    ) -> Result<(), MapError> {
        let mut header = ListHeader {
            capacity: MAX_ENTRIES,
            ..ListHeader::default()
        };
        // Each call but the last moves the cursor on, which counts the chunks of all windows.
        for _ in 0..=MAX_CHUNKS {
            page.write(0, header.as_bytes());
            let outcome = self.client.list_granted(&self.platform, page.address());
            let ended = match outcome {
                Ok(()) => true,
                Err(CallError::Refused(ResultCode::INCOMPLETE)) => false,
                Err(error) => return Err(error.into()),
            };
            let before = header.cursor;
            page.read(0, header.as_mut_bytes());
            if header.written > MAX_ENTRIES || (!ended && header.cursor <= before) {
                return Err(MapError::ServiceFault);
            }
            for entry in 0..u64::from(header.written) {
                let mut run = GrantedRun::new_zeroed();
                let offset = HEADER_BYTES + entry * ENTRY_BYTES;
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                page.read(offset, run.as_mut_bytes());
                visit(&run)?;
            }
            if ended {
                return Ok(());
            }
        }
        Err(MapError::ServiceFault)
    }
}
