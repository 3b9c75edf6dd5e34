// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pool: a window of guest physical addresses, one record per 2 MiB chunk, and the accounts.
//!
//! ```text
//!              reserve                      settle: the host did it
//!   Free ----------------> Granting ------------------------------> Held(epoch, generation)
//!    ^                       |  |                                        |
//!    |  settle: host refused |  | settle: reply broke the rules          | claim by the holder
//!    +-----------------------+  v                                        v
//!    |                       Quarantined <--------------------------- Releasing
//!    |                                   settle: reply broke the rules   |
//!    +-------------------------------------------------------------------+
//!                        settle: host took it back, or refused
//! ```
//!
//! Every arrow is one compare-and-swap of one record; there is no lock. A chunk in Granting or Releasing belongs to the
//! call that put it there and answers BUSY to all others. Nothing here talks to the host: [`crate::host_reply`] does,
//! while the run is in transition.

mod accounts;
mod chunk;
mod orphans;
mod pools;
mod release;
mod reserve;
mod transit;
mod window;

pub use accounts::{Accounts, CapRefusal};
pub use chunk::{ChunkRecords, ChunkState};
pub use orphans::{Tally, TransitSet};
pub use pools::Pools;
pub use release::ReleaseRefusal;
pub use reserve::{GrowWish, ReserveRefusal};
pub use transit::{InTransit, TransitRun};
pub(crate) use window::chunk_bytes;
pub use window::{MAX_WINDOW_CHUNKS, Window, WindowError};

use crate::sync::AtomicUsize;

/// Chunks of one batch: as many as a page-state-change descriptor has entries.
pub const BATCH_CHUNKS: usize = snp::psc::MAX_ENTRIES;

/// One window with its records and accounts.
#[derive(Debug)]
pub struct Pool<'a> {
    window: Window,
    records: ChunkRecords<'a>,
    accounts: Accounts,
    /// Where the next search begins. A hint: wherever it points, a search that fails there looks everywhere.
    search_from: AtomicUsize,
    /// Most chunks that one GROW or RELEASE moves.
    call_chunks: usize,
}

impl<'a> Pool<'a> {
    /// A pool over `window`. The records may hold a predecessor's state; fresh ones are zero: everything free. A chunk that
    /// the predecessor left in transition belongs to no call any more and is quarantined.
    ///
    /// # Errors
    /// [`WindowError::WrongStorage`] unless there is exactly one record per chunk.
    pub fn new(
        window: Window,
        records: ChunkRecords<'a>,
        hard_cap_bytes: u64,
    ) -> Result<Self, WindowError> {
        if records.len() != window.chunks() {
            return Err(WindowError::WrongStorage);
        }
        records.quarantine_in_transition();
        let accounts = Accounts::new(&window, &records, hard_cap_bytes);
        Ok(Self {
            window,
            records,
            accounts,
            search_from: AtomicUsize::new(0),
            call_chunks: BATCH_CHUNKS,
        })
    }

    /// The same pool with another bound on the chunks that one call moves; at least one.
    pub(crate) const fn with_call_chunks(mut self, call_chunks: usize) -> Self {
        self.call_chunks = if call_chunks == 0 { 1 } else { call_chunks };
        self
    }

    /// Most chunks that one GROW or RELEASE moves.
    pub const fn call_chunks(&self) -> usize {
        self.call_chunks
    }

    /// The window.
    pub const fn window(&self) -> &Window {
        &self.window
    }

    /// The records, to be listed.
    pub const fn records(&self) -> &ChunkRecords<'a> {
        &self.records
    }

    /// Cap, granted, peak, quarantined.
    pub const fn accounts(&self) -> &Accounts {
        &self.accounts
    }
}

#[cfg(test)]
mod tests;
