// SPDX-License-Identifier: MIT OR Apache-2.0
//! One record that many write and read without waiting: a sequence lock whose writers give up.

use protocol::trace::TraceRecord;

use super::Event;
use crate::sync::{AtomicU64, Ordering, fence};

/// Mark in a slot's stamp: somebody writes it.
const WRITING: u64 = 1 << 63;

/// A record and who may read it; empty at first.
#[derive(Debug, Default)]
pub struct Slot {
    /// 0 at first; the record's number plus 1; with [`WRITING`] while it is being written.
    stamp: AtomicU64,
    /// \[15:0\] kind, \[31:16\] code, \[63:32\] detail.
    what: AtomicU64,
    address: AtomicU64,
    bytes: AtomicU64,
}

impl Slot {
    /// Fills the slot, unless somebody else is at it or a later record is there.
    pub fn write(&self, number: u64, event: &Event) {
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
    pub fn read(&self, number: u64) -> Option<TraceRecord> {
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

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::*;

    #[test]
    fn p_12_3_a_slow_writer_neither_tears_a_later_record_nor_is_torn() {
        let slot = Slot::default();
        // Its number was taken, its slot not yet claimed, when the ring came round.
        slot.write(256, &event(256));
        slot.write(0, &event(0));
        assert_eq!(slot.read(0), None);
        assert_eq!(slot.read(256).map(|record| record.address), Some(256));
        // It stopped in the middle of writing: whoever comes round drops its own record.
        slot.stamp.store(513 | WRITING, Ordering::Relaxed);
        slot.write(768, &event(768));
        assert_eq!((slot.read(512), slot.read(768)), (None, None));
        slot.stamp.store(513, Ordering::Relaxed);
        assert_eq!(slot.read(512).map(|record| record.address), Some(256));
    }
}
