// SPDX-License-Identifier: MIT OR Apache-2.0
//! Room in the granted chunks: who has it, who may have it next.
//!
//! ```text
//!             map / unmap of a CPU                        every CPU, when a cache is empty or full
//!   ┌───────────────────────────────────┐ a batch  ┌─────────────────────────────────────────────┐
//!   │ cache    what was freed last, by  │ ───────> │ central   chunks that were granted          │
//!   │          class; held by a try     │ <─────── │ slabs     slots of one class, 64 B ... 15 K │
//!   └───────────────────────────────────┘          │ free_blocks  runs of units of 2 KiB, TLSF   │
//!   placement  a request worked out                │ reserved  set aside for later maps          │
//!   class      sizes of slots                      └─────────────────────────────────────────────┘
//!   ───────────── private tables, read without a lock ─────────────────────────────────────────────
//!   tables: tag (what a unit is part of), record (what is handed out), lookup (address -> record)
//! ```
//!
//! * A map takes a slot out of its CPU's cache and enters it in the slot's record. An unmap claims the record by
//!   compare-and-swap and puts the slot into its CPU's cache. Neither looks at anything that grows with the pool.
//! * An empty cache takes a batch from the central store, a full one gives half of itself back.
//! * After a request has failed, what is given back goes to the central store for a while, so that it is found by
//!   whoever asks next.
//!
//! All of it is private memory that was handed in at attach. Nothing here copies payload, calls the service or waits.

mod cache;
mod central;
mod chunk;
mod class;
mod free_blocks;
mod lookup;
#[cfg(all(test, loom))]
pub(crate) mod model;
mod placement;
mod record;
mod reserved;
mod shared;
mod slab_header;
mod slabs;
mod start;
mod tables;
mod tag;

pub(crate) use cache::{CacheCounters, Held, Slot};
pub(crate) use central::Central;
pub(crate) use chunk::Run;
pub(crate) use class::ClassIndex;
pub(crate) use lookup::{Place, Taken};
pub(crate) use placement::{Placement, Room, is_plain};
pub(crate) use record::{Kind, NotShared, Origin, State, Use};
pub(crate) use reserved::ReservationId;
pub(crate) use shared::Shared;
pub(crate) use start::Start;
pub(crate) use tables::Metadata;
pub use tables::{metadata_bytes, metadata_bytes_with_small};
