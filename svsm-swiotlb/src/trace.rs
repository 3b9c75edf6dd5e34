// SPDX-License-Identifier: MIT OR Apache-2.0
//! The newest events, in a ring of fixed size (docs/PROTOCOL.md, P-5.11 and chapter 12).
//!
//! Writers are calls on any processor and never wait: each takes a number, claims that number's slot, fills it, and says
//! that it is done. A writer that finds its slot still claimed by a slower one, or used by a later one, drops its record. So
//! a record is whole or not there, and a reader sees which numbers are missing.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use protocol::trace::{RECORDS_KEPT, TraceKind, TraceRecord};
use snp::address::GuestPhysicalAddress;

/// Slots of the ring.
const SLOTS: usize = 256;
const _: () = assert!(SLOTS as u64 == RECORDS_KEPT);
/// Mark in [`Slot::stamp`]: somebody writes the slot.
const WRITING: u64 = 1 << 63;

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

/// A record and who may read it.
#[derive(Debug)]
struct Slot {
    /// 0 at first; the record's number plus 1; with [`WRITING`] while it is being written.
    stamp: AtomicU64,
    /// \[15:0\] kind, \[31:16\] code, \[63:32\] detail.
    what: AtomicU64,
    address: AtomicU64,
    bytes: AtomicU64,
}

impl Slot {
    const fn new() -> Self {
        Self {
            stamp: AtomicU64::new(0),
            what: AtomicU64::new(0),
            address: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Fills the slot, unless somebody else is at it or a later record is there.
    fn write(&self, number: u64, event: &Event) {
        let stamp = number.wrapping_add(1);
        let before = self.stamp.load(Ordering::Relaxed);
        if before & WRITING != 0 || before >= stamp {
            return;
        }
        let claim = self.stamp.compare_exchange(
            before,
            stamp | WRITING,
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        if claim.is_err() {
            return;
        }
        // A reader that sees one of the stores below sees the claim too.
        fence(Ordering::Release);
        let what = u64::from(event.kind.number())
            | u64::from(event.code) << 16
            | u64::from(event.detail) << 32;
        self.what.store(what, Ordering::Relaxed);
        self.address.store(event.address, Ordering::Relaxed);
        self.bytes.store(event.bytes, Ordering::Relaxed);
        self.stamp.store(stamp, Ordering::Release);
    }

    /// The record with this number, if it is there and whole.
    fn read(&self, number: u64) -> Option<TraceRecord> {
        let stamp = number.wrapping_add(1);
        if self.stamp.load(Ordering::Acquire) != stamp {
            return None;
        }
        let what = self.what.load(Ordering::Relaxed);
        let address = self.address.load(Ordering::Relaxed);
        let bytes = self.bytes.load(Ordering::Relaxed);
        // The loads above come before the second look.
        fence(Ordering::Acquire);
        if self.stamp.load(Ordering::Relaxed) != stamp {
            return None;
        }
        let [k0, k1, c0, c1, detail @ ..] = what.to_le_bytes();
        Some(TraceRecord {
            sequence: number,
            kind: u16::from_le_bytes([k0, k1]),
            code: u16::from_le_bytes([c0, c1]),
            detail: u32::from_le_bytes(detail),
            address,
            bytes,
        })
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
    pub const fn starting_at(first: u64) -> Self {
        Self {
            next: AtomicU64::new(first),
            first,
            slots: [const { Slot::new() }; SLOTS],
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
