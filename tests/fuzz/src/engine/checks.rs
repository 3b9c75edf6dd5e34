// SPDX-License-Identifier: MIT OR Apache-2.0
//! What holds after every step.

use guest_shim::{CHUNK_BYTES, PressureLevel, Statistics};

use super::run::{Counted, Engine};
use crate::live::{Holder, Item};
use crate::machine::{Copy, Way, take_copies};
use crate::service::Holding;
use crate::window::{CHUNK, chunk_address};

/// Bytes of contents that one step compares; the rest comes later, in turn.
const COMPARED_BYTES: usize = if cfg!(miri) { 40_000 } else { 256 << 10 };

impl Engine<'_> {
    /// The checks after each step: counters, and the contents of everything, or of much of it in turn.
    pub(super) fn check_step(&mut self) {
        assert_eq!(
            take_copies(),
            [],
            "copies that no operation has accounted for"
        );
        self.check_statistics();
        let mut compared = 0;
        let from = self.next_checked;
        let keys: Vec<u64> = self.live.iter().map(|item| item.extent.start).collect();
        let at = keys.partition_point(|key| *key < from);
        self.next_checked = 0;
        for key in keys[at..].iter().chain(&keys[..at]) {
            let item = self.live.get(*key).expect("just listed");
            self.check_item(item);
            compared += item.length + 200;
            if compared > COMPARED_BYTES {
                self.next_checked = key + 1;
                break;
            }
        }
    }

    /// All contents, and every byte of the window.
    pub(super) fn check_everything(&self) {
        self.live.iter().for_each(|item| self.check_item(item));
        let holdings = self.machine.service(|service| service.holdings().to_vec());
        for (chunk, holding) in holdings.into_iter().enumerate() {
            assert!(
                self.machine
                    .memory
                    .is_as_expected(chunk_address(chunk), CHUNK),
                "chunk {chunk}, {holding:?}: bytes were written that no operation may write"
            );
            assert!(holding != Holding::Free || self.machine.memory.chunk_is_untouched(chunk));
        }
    }

    /// The device's view of an item and what lies round it, and the driver's buffer.
    pub(super) fn check_item(&self, item: &Item) {
        const ROUND: u64 = 96;
        let window = self.pool.window();
        let first = item.address.saturating_sub(ROUND).max(window.base());
        let end = (item.address + item.length as u64 + ROUND).min(window.base() + window.bytes());
        assert!(
            self.machine
                .memory
                .is_as_expected(first, (end - first) as usize),
            "shared bytes in or round {:x?} are not what was written there",
            item.extent
        );
        if let Holder::Mapping(live) = &item.holder
            && let Some(complaint) = live.buffer.complaint(&live.private)
        {
            panic!("mapping at {:#x}: {complaint}", item.address);
        }
    }

    fn check_statistics(&self) {
        let Statistics {
            maps,
            unmaps,
            syncs,
            shared_buffers,
            bytes_in,
            bytes_out,
            granted_bytes,
            used_bytes,
            lost_bytes,
            ..
        } = self.pool.statistics();
        let counted = Counted {
            maps,
            unmaps,
            syncs,
            shared_buffers,
            bytes_in,
            bytes_out,
        };
        assert_eq!(counted, self.counted);
        let (granted, open) = self
            .machine
            .service(|service| (service.granted(), service.open()));
        assert_eq!(granted_bytes, granted as u64 * CHUNK_BYTES, "granted");
        assert_eq!(lost_bytes, open as u64 * CHUNK_BYTES, "lost");
        let floor = self.used_floor();
        assert!(
            floor <= used_bytes && used_bytes <= granted_bytes,
            "{floor} bytes are handed out, {used_bytes} counted as used, {granted_bytes} granted"
        );
        let pressure = self.pool.pressure();
        assert_eq!(pressure.used_bytes, used_bytes);
        let exhausted = pressure.level == PressureLevel::Exhausted;
        assert!(!exhausted || pressure.cause.is_some(), "{pressure:?}");
    }
}

/// The copies of the last operation are exactly these bytes, each of them once.
pub(super) fn expect_copies(way: Way, pool: u64, private: Option<u64>, bytes: u64) {
    let mut copies = take_copies();
    copies.sort_by_key(|copy| copy.pool);
    let mut next = pool;
    for copy in &copies {
        let from = private.map_or(copy.private, |private| private + (copy.pool - pool));
        let expected = Copy {
            way,
            pool: next,
            private: from,
            bytes: copy.bytes,
        };
        assert_eq!(
            *copy, expected,
            "of {bytes} bytes at {pool:#x}: {copies:x?}"
        );
        next += copy.bytes;
    }
    assert_eq!(next - pool, bytes, "bytes copied at {pool:#x}: {copies:x?}");
}
