// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ring alone: what it keeps, what it gives up, and that no record is ever torn.

use std::boxed::Box;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;

fn event(value: u64) -> Event {
    Event {
        kind: TraceKind::Grown,
        code: 3,
        detail: u32::try_from(value & 0xFFFF_FFFF).unwrap(),
        address: value,
        bytes: value,
    }
}

#[test]
fn p_5_11_the_newest_records_are_kept_and_the_oldest_number_says_so() {
    let trace = Trace::starting_at(0);
    assert_eq!((trace.oldest(), trace.next()), (0, 0));
    assert_eq!(trace.record(0), None);
    for number in 0..300 {
        trace.note(&event(number));
    }
    assert_eq!((trace.oldest(), trace.next()), (44, 300));
    assert_eq!(trace.record(43), None, "overwritten by 299");
    assert_eq!(trace.record(300), None);
    for number in 44..300 {
        let expected = TraceRecord {
            sequence: number,
            kind: 3,
            code: 3,
            detail: u32::try_from(number).unwrap(),
            address: number,
            bytes: number,
        };
        assert_eq!(trace.record(number), Some(expected));
    }
}

#[test]
fn p_12_3_a_slow_writer_neither_tears_a_later_record_nor_is_torn() {
    let slot = Slot::new();
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

#[test]
fn p_12_3_a_reader_beside_writers_sees_whole_records_only() {
    const STEPS: u64 = if cfg!(miri) { 20 } else { 40_000 };
    let trace: &'static Trace = Box::leak(Box::new(Trace::starting_at(0)));
    let stop: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    let writers: [_; 3] = core::array::from_fn(|writer| {
        thread::spawn(move || {
            for step in 0..STEPS {
                trace.note(&event(step << 8 | writer as u64));
            }
        })
    });
    let reader = thread::spawn(move || {
        let mut whole = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            for number in trace.oldest()..trace.next() {
                let Some(record) = trace.record(number) else {
                    continue;
                };
                assert_eq!(record.sequence, number);
                assert_eq!(record.address, record.bytes, "torn");
                assert_eq!(u64::from(record.detail), record.address, "torn");
                whole += 1;
            }
        }
        whole
    });
    for writer in writers {
        writer.join().unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reader.join().unwrap() > 0);
    assert_eq!(trace.next(), 3 * STEPS);
}
