// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which slots of the granted chunks are free, and the private record of each one handed out.
//!
//! ```text
//! placement  a request worked out: how many slots, where they may begin
//! window     Allocator: search, take and give back over all chunks; grant and withdrawal of chunks
//! ledger     claim and retire: what an unmap, sync or free has to agree with
//! reserved   extents set aside so that later maps cannot fail
//! chunk      state, free map and records of one chunk
//! bitmap     one bit per slot            record   20 bytes per slot
//! ```
//!
//! This allocator is first fit over bitmaps, under one lock: simple, and exact to one slot. Nothing above it knows how it
//! searches; the layers above see [`Placement`], [`Ticket`], [`Claim`] and the methods of [`Allocator`]. None of them
//! copies payload, calls the service or waits.

mod bitmap;
mod chunk;
mod ledger;
mod placement;
mod record;
mod reserved;
mod window;

pub use chunk::ChunkRecords;
pub(crate) use ledger::{Claim, Contents, Expected, Ticket};
pub(crate) use placement::Placement;
pub(crate) use record::Kind;
pub(crate) use reserved::ReservationId;
pub(crate) use window::{Allocator, Run};

#[cfg(test)]
mod tests;
