// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pool without a host: reserving, releasing, accounts.

use core::sync::atomic::AtomicU64;
use std::vec::Vec;

use protocol::{CHUNK_BYTES, Epoch, Generation, Holder};
use snp::address::GuestPhysicalAddress;

use super::*;
use crate::test_platform::{LOW_BASE, WINDOW_BASE, pool_at};

fn with_pool(chunks: usize, test: impl FnOnce(&Pool<'_>)) {
    let words: Vec<AtomicU64> = (0..chunks).map(|_| AtomicU64::new(0)).collect();
    let bytes = chunks as u64 * CHUNK_BYTES;
    let window = Window::new(GuestPhysicalAddress::new(0x3000_0000), bytes).unwrap();
    test(&Pool::new(window, ChunkRecords::new(&words), bytes).unwrap());
}

fn holder(generation: u32) -> Holder {
    Holder {
        epoch: Epoch::FIRST,
        generation: Generation::new(generation).unwrap(),
    }
}

const fn wish(least: usize, most: usize) -> GrowWish {
    GrowWish {
        least,
        most,
        contiguous: false,
    }
}

const fn contiguous(least: usize, most: usize) -> GrowWish {
    GrowWish {
        least,
        most,
        contiguous: true,
    }
}

fn grant(pool: &Pool<'_>, wish: GrowWish, generation: u32) -> usize {
    let run = pool.reserve(wish).unwrap();
    let chunks = run.chunks();
    run.grant(holder(generation), chunks);
    chunks
}

#[test]
fn records_and_window_must_agree() {
    let words: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(0)).collect();
    let window = Window::new(GuestPhysicalAddress::new(0), 4 * CHUNK_BYTES).unwrap();
    let pool = Pool::new(window, ChunkRecords::new(&words), 0);
    assert_eq!(pool.map(|_| ()).unwrap_err(), WindowError::WrongStorage);
}

#[test]
fn p_5_7_2_a_run_is_as_long_as_wished_and_at_most_a_batch() {
    with_pool(600, |pool| {
        assert_eq!(grant(pool, wish(1, 7), 1), 7);
        assert_eq!(grant(pool, wish(1, 600), 2), BATCH_CHUNKS);
        assert_eq!(pool.accounts().granted_bytes(), 260 * CHUNK_BYTES);
    });
}

#[test]
fn p_5_7_3_p_5_7_4_p_5_7_8_a_fragmented_window_gives_the_longest_run_or_refuses_a_contiguous_wish()
{
    with_pool(10, |pool| {
        for generation in 1..=10 {
            grant(pool, wish(1, 1), generation);
        }
        // Free: 2, 5 and 6, 9.
        for chunk in [2, 5, 6, 9] {
            let generation = u32::try_from(chunk).unwrap() + 1;
            pool.claim_held(chunk..chunk + 1, holder(generation))
                .unwrap()
                .free();
        }
        assert_eq!(
            pool.reserve(contiguous(3, 3)).unwrap_err(),
            ReserveRefusal::NoContiguousRun
        );
        let run = pool.reserve(wish(3, 8)).unwrap();
        assert_eq!(
            (run.base().bits(), run.chunks()),
            (0x3000_0000 + 5 * CHUNK_BYTES, 2)
        );
        run.free();
        let run = pool.reserve(contiguous(2, 2)).unwrap();
        assert_eq!(run.base().bits(), 0x3000_0000 + 5 * CHUNK_BYTES);
        run.free();
    });
}

#[test]
fn a_run_across_the_place_where_the_search_began_is_found() {
    with_pool(8, |pool| {
        grant(pool, wish(4, 4), 1);
        grant(pool, wish(4, 4), 2);
        pool.claim_held(0..4, holder(1)).unwrap().free();
        pool.claim_held(4..6, holder(2)).unwrap().free();
        // The hint is now 4, and the run of six begins at 0.
        assert_eq!(pool.reserve(contiguous(6, 6)).unwrap().chunks(), 6);
    });
}

#[test]
fn the_cap_is_never_exceeded_and_counts_what_is_on_its_way() {
    with_pool(10, |pool| {
        assert_eq!(
            pool.accounts().set_cap(Epoch::FIRST, 4 * CHUNK_BYTES),
            Ok(10 * CHUNK_BYTES)
        );
        let above = pool.accounts().set_cap(Epoch::FIRST, 11 * CHUNK_BYTES);
        assert_eq!(above, Err(CapRefusal::AboveHardCap));
        let run = pool.reserve(wish(1, 3)).unwrap();
        assert_eq!(
            pool.reserve(contiguous(2, 2)).unwrap_err(),
            ReserveRefusal::CapReached
        );
        assert_eq!(pool.reserve(wish(2, 2)).unwrap().chunks(), 1);
        run.free();
        assert_eq!(pool.accounts().peak_bytes(), 4 * CHUNK_BYTES);
    });
}

#[test]
fn a_cap_below_what_is_granted_only_stops_growth() {
    with_pool(4, |pool| {
        grant(pool, wish(3, 3), 1);
        assert!(pool.accounts().set_cap(Epoch::FIRST, 0).is_ok());
        assert_eq!(
            pool.reserve(wish(1, 1)).unwrap_err(),
            ReserveRefusal::CapReached
        );
        assert_eq!(pool.accounts().granted_bytes(), 3 * CHUNK_BYTES);
        pool.claim_held(0..3, holder(1)).unwrap().free();
        assert_eq!(pool.accounts().granted_bytes(), 0);
    });
}

#[test]
fn p_3_9_chunks_in_transition_answer_busy() {
    with_pool(4, |pool| {
        grant(pool, wish(2, 2), 1);
        let granting = pool.reserve(wish(2, 2)).unwrap();
        let releasing = pool.claim_held(0..2, holder(1)).unwrap();
        assert_eq!(
            pool.claim_held(0..2, holder(1)).unwrap_err(),
            ReleaseRefusal::Busy
        );
        assert_eq!(
            pool.claim_held(2..4, holder(1)).unwrap_err(),
            ReleaseRefusal::Busy
        );
        releasing.free();
        granting.free();
        assert_eq!(
            pool.claim_held(0..2, holder(1)).unwrap_err(),
            ReleaseRefusal::NotHeld
        );
    });
}

#[test]
fn w2_release_needs_epoch_and_generation_and_changes_nothing_otherwise() {
    with_pool(4, |pool| {
        grant(pool, wish(2, 2), 1);
        grant(pool, wish(2, 2), 2);
        let stranger = Holder {
            epoch: Epoch::FIRST.next().unwrap(),
            ..holder(1)
        };
        assert_eq!(
            pool.claim_held(0..2, stranger).unwrap_err(),
            ReleaseRefusal::NotHeld
        );
        assert_eq!(
            pool.claim_held(0..2, holder(2)).unwrap_err(),
            ReleaseRefusal::NotHeld
        );
        // Two grants in one range: the first is right, the second is not, and neither is touched.
        assert_eq!(
            pool.claim_held(0..4, holder(1)).unwrap_err(),
            ReleaseRefusal::NotHeld
        );
        assert_eq!(pool.records().state(0), ChunkState::Held(holder(1)));
        assert_eq!(pool.records().state(3), ChunkState::Held(holder(2)));
        assert_eq!(pool.accounts().granted_bytes(), 4 * CHUNK_BYTES);
    });
}

#[test]
fn p_5_8_1_a_part_can_be_granted_and_a_part_released() {
    with_pool(4, |pool| {
        let run = pool.reserve(wish(4, 4)).unwrap();
        assert_eq!(run.grant(holder(1), 3), 3 * CHUNK_BYTES);
        assert_eq!(pool.records().state(3), ChunkState::Free);
        pool.claim_held(1..2, holder(1)).unwrap().free();
        assert_eq!(pool.records().state(0), ChunkState::Held(holder(1)));
        assert_eq!(pool.records().state(1), ChunkState::Free);
        assert_eq!(pool.accounts().granted_bytes(), 2 * CHUNK_BYTES);
    });
}

#[test]
fn p3_a_run_dropped_unsettled_is_quarantined_and_counted() {
    with_pool(4, |pool| {
        drop(pool.reserve(wish(2, 2)).unwrap());
        assert_eq!(pool.records().state(1), ChunkState::Quarantined);
        assert_eq!(pool.accounts().quarantined_bytes(), 2 * CHUNK_BYTES);
        assert_eq!(pool.accounts().granted_bytes(), 0);
        assert_eq!(grant(pool, wish(4, 4), 1), 2);
        assert_eq!(
            pool.reserve(wish(1, 1)).unwrap_err(),
            ReserveRefusal::NoContiguousRun
        );
    });
}

#[test]
fn accounts_are_rebuilt_from_records_that_a_predecessor_left() {
    let words: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
    let window = Window::new(GuestPhysicalAddress::new(0), 4 * CHUNK_BYTES).unwrap();
    let pool = || Pool::new(window, ChunkRecords::new(&words), window.bytes()).unwrap();
    let first = pool();
    grant(&first, wish(1, 1), 1);
    drop(first.reserve(wish(1, 1)).unwrap());
    let second = pool();
    assert_eq!(second.accounts().granted_bytes(), CHUNK_BYTES);
    assert_eq!(second.accounts().quarantined_bytes(), CHUNK_BYTES);
}

#[test]
fn w2_p_10_1_processors_that_grow_and_release_at_once_never_share_a_chunk() {
    use core::sync::atomic::{AtomicUsize, Ordering};

    const CHUNKS: usize = 32;
    // Each goes on until it has had this many, so none is shut out for good.
    const GRANTS: usize = if cfg!(miri) { 10 } else { 4000 };
    with_pool(CHUNKS, |pool| {
        pool.accounts()
            .set_cap(Epoch::FIRST, 24 * CHUNK_BYTES)
            .unwrap();
        let owners: Vec<AtomicUsize> = (0..CHUNKS).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for worker in 1_u32..=4 {
                let owners = &owners;
                scope.spawn(move || {
                    let mark = |base: GuestPhysicalAddress, count: usize, from, to| {
                        let first = pool.window().chunk_range(base, CHUNK_BYTES).unwrap().start;
                        for owner in &owners[first..first + count] {
                            assert_eq!(owner.swap(to, Ordering::SeqCst), from);
                        }
                        first
                    };
                    let own = worker as usize;
                    let (mut round, mut grants) = (0, 0);
                    while grants < GRANTS {
                        round += 1;
                        let Ok(run) = pool.reserve(wish(1 + round % 5, 1 + round % 9)) else {
                            // Those that have the window may be waiting for this processor.
                            std::thread::yield_now();
                            continue;
                        };
                        assert!(pool.accounts().granted_bytes() <= 24 * CHUNK_BYTES);
                        let (base, count) = (run.base(), run.chunks());
                        mark(base, count, 0, own);
                        run.grant(holder(worker), count);
                        let first = mark(base, count, own, 0);
                        pool.claim_held(first..first + count, holder(worker))
                            .unwrap()
                            .free();
                        grants += 1;
                    }
                });
            }
        });
        assert_eq!(pool.accounts().granted_bytes(), 0);
        assert!((0..CHUNKS).all(|chunk| pool.records().state(chunk) == ChunkState::Free));
    });
}

#[test]
fn w2_p_5_5_1_a_set_of_one_pool_takes_nothing_of_another() {
    with_pool(4, |pool| {
        with_pool(4, |other| {
            // The same holder in both, as after so many grants that the generations begin again.
            grant(pool, wish(2, 2), 1);
            grant(other, wish(2, 2), 1);
            let mut set = TransitSet::new(pool);
            assert_eq!(other.claim_orphans(Epoch::FIRST, &mut set), 2);
            assert!(set.is_empty());
            assert_eq!(pool.records().state(0), ChunkState::Held(holder(1)));
        });
    });
}

#[test]
fn p_7_2_a_run_of_one_holder_ends_with_its_window() {
    let pools = Pools::two(pool_at(WINDOW_BASE, 4), pool_at(LOW_BASE, 4)).unwrap();
    for pool in pools.iter() {
        assert_eq!(grant(pool, wish(4, 4), 1), 4);
    }
    for (number, stop, base, count) in [
        (0, 8, WINDOW_BASE, 4),
        (3, 8, WINDOW_BASE + 3 * CHUNK_BYTES, 1),
        (4, 8, LOW_BASE, 4),
        (5, 7, LOW_BASE + CHUNK_BYTES, 2),
    ] {
        let (at, of, chunks) = pools.run_at(number, stop).unwrap();
        assert_eq!((at.bits(), of, chunks), (base, holder(1), count));
    }
}
