// SPDX-License-Identifier: MIT OR Apache-2.0
//! A slot of the trace.

use loom::thread;
use protocol::trace::TraceKind;
use svsm_swiotlb::trace::{Event, Slot};

/// A slot of the trace that holds record 1, after the ring has come round to it.
fn slot() -> &'static Slot {
    let slot = Box::leak(Box::default());
    note(slot, 1);
    slot
}

/// The event says its number in each of the slot's words.
fn note(slot: &Slot, number: u64) {
    let event = Event {
        kind: TraceKind::Grown,
        code: 0,
        detail: u32::try_from(number).unwrap(),
        address: number,
        bytes: number,
    };
    slot.write(number, &event);
}

/// Whether the slot gives this record, which it gives whole or not at all.
fn is_there(slot: &Slot, number: u64) -> bool {
    slot.read(number).is_some_and(|record| {
        let detail = u64::from(record.detail);
        let found = [record.sequence, detail, record.address, record.bytes];
        assert_eq!(found, [number; 4], "torn");
        true
    })
}

#[test]
fn p_12_3_a_trace_record_that_is_overwritten_is_read_whole_or_not_at_all() {
    loom::model(|| {
        let slot = slot();
        let reader = thread::spawn(move || [1, 2].map(|number| is_there(slot, number)));
        note(slot, 2);
        reader.join().unwrap();
        assert!(is_there(slot, 2));
    });
}

#[test]
fn p_12_3_of_two_that_write_one_trace_record_one_does() {
    loom::model(|| {
        let slot = slot();
        let other = thread::spawn(move || note(slot, 3));
        note(slot, 2);
        other.join().unwrap();
        let left = [1, 2, 3].map(|number| is_there(slot, number));
        assert!(
            [[false, true, false], [false, false, true]].contains(&left),
            "{left:?}"
        );
    });
}
