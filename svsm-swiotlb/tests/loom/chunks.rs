// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chunk records and accounts.

use loom::thread;
use protocol::CHUNK_BYTES;
use svsm_swiotlb::pool::{ChunkState, InTransit, ReleaseRefusal, ReserveRefusal, TransitRun};

use crate::{Guarded, HOLDER, granted, number, pool, wish};

fn first(run: &TransitRun<'_>) -> usize {
    number(run.base())
}

#[test]
fn w2_of_two_that_grow_into_one_chunk_one_does() {
    loom::model(|| {
        let pool = pool(1, 1);
        let chunk = Guarded::new();
        let grow = move |chunk: &Guarded| match pool.reserve(wish(1, 1, false)) {
            Ok(run) => {
                chunk.touch();
                run.grant(HOLDER, 1)
            }
            // By how much it saw of the other.
            Err(
                ReserveRefusal::Busy | ReserveRefusal::CapReached | ReserveRefusal::NoContiguousRun,
            ) => 0,
        };
        let other = thread::spawn({
            let chunk = chunk.clone();
            move || grow(&chunk)
        });
        let sum = grow(&chunk) + other.join().unwrap();
        assert!(sum <= CHUNK_BYTES, "both have it");
        assert_eq!(chunk.touches() * CHUNK_BYTES, sum);
        assert_eq!(granted(pool) * CHUNK_BYTES, sum);
    });
}

#[test]
fn w2_p_3_12_two_that_grow_share_the_window_and_the_cap() {
    loom::model(|| {
        let pool = pool(3, 2);
        let chunks: [Guarded; 3] = core::array::from_fn(|_| Guarded::new());
        let grow = move |chunks: &[Guarded; 3]| {
            let Ok(run) = pool.reserve(wish(1, 2, false)) else {
                return 0;
            };
            let count = run.chunks();
            chunks
                .iter()
                .skip(first(&run))
                .take(count)
                .for_each(|chunk| chunk.touch());
            assert!(granted(pool) <= 2, "above the cap");
            run.grant(HOLDER, count) / CHUNK_BYTES
        };
        let other = thread::spawn({
            let chunks = chunks.clone();
            move || grow(&chunks)
        });
        let sum = grow(&chunks) + other.join().unwrap();
        assert!(sum <= 2);
        assert_eq!(granted(pool), sum);
        assert_eq!(chunks.iter().map(Guarded::touches).sum::<u64>(), sum);
    });
}

#[test]
fn w2_of_two_releases_of_one_chunk_one_succeeds() {
    loom::model(|| {
        let pool = pool(1, 1);
        pool.reserve(wish(1, 1, false)).unwrap().grant(HOLDER, 1);
        let chunk = Guarded::new();
        let release = move |chunk: &Guarded| match pool.claim_held(0..1, HOLDER) {
            Ok(run) => {
                chunk.touch();
                run.free();
                1
            }
            Err(ReleaseRefusal::Busy | ReleaseRefusal::NotHeld) => 0,
        };
        let other = thread::spawn({
            let chunk = chunk.clone();
            move || release(&chunk)
        });
        assert_eq!(release(&chunk) + other.join().unwrap(), 1);
        assert_eq!(chunk.touches(), 1);
        assert_eq!(pool.records().state(0), ChunkState::Free);
        assert_eq!(granted(pool), 0);
    });
}

#[test]
fn w2_what_one_gives_back_another_gets_whole() {
    loom::model(|| {
        let pool = pool(1, 1);
        pool.reserve(wish(1, 1, false)).unwrap().grant(HOLDER, 1);
        let chunk = Guarded::new();
        let other = thread::spawn({
            let chunk = chunk.clone();
            move || {
                let run = pool.claim_held(0..1, HOLDER).unwrap();
                chunk.touch();
                run.free();
            }
        });
        let grown = match pool.reserve(wish(1, 1, false)) {
            Ok(run) => {
                // After the other's last touch, or one of the two is lost.
                chunk.touch();
                run.grant(HOLDER, 1) / CHUNK_BYTES
            }
            Err(_) => 0,
        };
        other.join().unwrap();
        assert_eq!(granted(pool), grown);
        assert_eq!(chunk.touches(), 1 + grown);
    });
}

#[test]
fn w2_overlapping_releases_take_all_or_nothing() {
    loom::model(|| {
        let pool = pool(3, 3);
        pool.reserve(wish(3, 3, true)).unwrap().grant(HOLDER, 3);
        let release = move |range| match pool.claim_held(range, HOLDER) {
            Ok(run) => {
                let count = run.chunks() as u64;
                run.free();
                count
            }
            Err(_) => 0,
        };
        let other = thread::spawn(move || release(0..2));
        let sum = release(1..3) + other.join().unwrap();
        // Both may get in each other's way; then nothing has changed.
        assert!(sum == 2 || sum == 0, "{sum}");
        assert_eq!(granted(pool), 3 - sum);
        let held = (0..3).filter(|chunk| pool.records().state(*chunk) == ChunkState::Held(HOLDER));
        assert_eq!(held.count() as u64, 3 - sum);
    });
}

#[test]
fn p3_a_run_that_is_lost_is_seen_by_nobody_as_free() {
    loom::model(|| {
        let pool = pool(1, 1);
        let run = pool.reserve(wish(1, 1, false)).unwrap();
        let other = thread::spawn(move || pool.reserve(wish(1, 1, false)).is_ok());
        drop(run);
        assert!(!other.join().unwrap());
        assert_eq!(pool.records().state(0), ChunkState::Quarantined);
        assert_eq!(
            (granted(pool), pool.accounts().quarantined_bytes()),
            (0, CHUNK_BYTES)
        );
    });
}
