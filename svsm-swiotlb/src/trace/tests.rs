// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ring alone: what it keeps, what it gives up, and that no record is torn. The orders of accesses to a slot:
//! tests/loom/trace.rs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

pub(super) fn event(value: u64) -> Event {
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
fn p_12_3_a_reader_beside_writers_sees_whole_records_only() {
    // The writers go on until the reader has its records, whenever it is scheduled: so it reads
    // beside them, and the test waits for no chance.
    const RECORDS: u64 = if cfg!(miri) { 20 } else { 10_000_000 };
    let trace = &Trace::starting_at(0);
    let stop = &AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writers: [_; 3] = core::array::from_fn(|writer| {
            scope.spawn(move || {
                let mut steps = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    trace.note(&event(steps << 8 | writer as u64));
                    steps += 1;
                }
                steps
            })
        });
        scope.spawn(move || {
            // Also when an assertion fails: the writers would never end.
            let _stop = StopWhenDropped(stop);
            let (mut whole, mut newest_first) = (0, false);
            while whole < RECORDS {
                // From the oldest on, which are overwritten at this moment, and from the newest on, which stay a
                // while however slow this is.
                newest_first = !newest_first;
                let (oldest, next) = (trace.oldest(), trace.next());
                for step in 0..next - oldest {
                    let number = if newest_first {
                        next - 1 - step
                    } else {
                        oldest + step
                    };
                    let Some(record) = trace.record(number) else {
                        continue;
                    };
                    assert_eq!(record.sequence, number);
                    assert_eq!(record.address, record.bytes, "torn");
                    assert_eq!(
                        u64::from(record.detail),
                        record.address & 0xFFFF_FFFF,
                        "torn"
                    );
                    whole += 1;
                }
            }
        });
        writers.map(|writer| writer.join().unwrap())
    });
    assert_eq!(trace.next(), written.iter().sum::<u64>());
}

/// Sets its flag at the end of its scope, by return or by panic.
struct StopWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
