// SPDX-License-Identifier: MIT OR Apache-2.0
//! The newest events, in a ring of fixed size (docs/PROTOCOL.md, P-5.11 and chapter 12).
//!
//! Writers are calls on any processor and never wait: each takes a number, claims that number's slot, fills it, and says
//! that it is done. A writer that finds its slot still claimed by a slower one, or used by a later one, drops its record. So
//! a record is whole or not there, and a reader sees which numbers are missing.

use protocol::trace::{RECORDS_KEPT, TraceKind, TraceRecord};
use snp::address::GuestPhysicalAddress;

use crate::sync::{AtomicU64, Ordering};

mod slot;
pub use slot::Slot;

/// Slots of the ring.
const SLOTS: usize = 256;
const _: () = assert!(SLOTS as u64 == RECORDS_KEPT);

/// What happened, without its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What kind of event.
    pub kind: TraceKind,
    /// As the kind says.
    pub code: u16,
    /// As the kind says.
    pub detail: u32,
    /// First byte of what it concerns.
    pub address: u64,
    /// Bytes of what it concerns.
    pub bytes: u64,
}

impl Event {
    /// An event that concerns a stretch of memory.
    pub const fn at(kind: TraceKind, detail: u32, base: GuestPhysicalAddress, bytes: u64) -> Self {
        Self {
            kind,
            code: 0,
            detail,
            address: base.bits(),
            bytes,
        }
    }

    /// An event that concerns so many bytes, wherever they lie.
    pub const fn of(kind: TraceKind, detail: u32, bytes: u64) -> Self {
        Self::at(kind, detail, GuestPhysicalAddress::new(0), bytes)
    }
}

/// The ring.
#[derive(Debug)]
pub struct Trace {
    next: AtomicU64,
    /// Number of the first event of this owner; what a predecessor noted is not here.
    first: u64,
    slots: [Slot; SLOTS],
}

impl Trace {
    /// An empty ring whose first event gets the number `first`.
    pub fn starting_at(first: u64) -> Self {
        Self {
            next: AtomicU64::new(first),
            first,
            slots: core::array::from_fn(|_| Slot::default()),
        }
    }

    /// Notes an event.
    pub fn note(&self, event: &Event) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(slot) = self.slot(number) {
            slot.write(number, event);
        }
    }

    /// Number of the next event.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Number of the oldest event whose record may still be there.
    pub fn oldest(&self) -> u64 {
        self.next().saturating_sub(RECORDS_KEPT).max(self.first)
    }

    /// The record with this number; `None` while it is being written, and when it was lost.
    pub fn record(&self, number: u64) -> Option<TraceRecord> {
        self.slot(number)?.read(number)
    }

    fn slot(&self, number: u64) -> Option<&Slot> {
        let index = usize::try_from(number % RECORDS_KEPT).ok()?;
        self.slots.get(index)
    }
}

#[cfg(test)]
mod tests;
