// SPDX-License-Identifier: MIT OR Apache-2.0
//! Epochs, generations, and chunks of an epoch that has ended.

use loom::thread;
use protocol::{CHUNK_BYTES, Epoch, Holder};
use svsm_swiotlb::pool::{ChunkState, InTransit, TransitSet};
use svsm_swiotlb::session::Session;

use crate::{Guarded, HOLDER, granted, number, pool, wish};

/// A session whose first epoch has begun. Leaked as the pool is.
fn session() -> &'static Session {
    let session = Box::leak(Box::new(Session::new()));
    assert_eq!(session.begin(), Some(Epoch::FIRST));
    session
}

#[test]
fn p_5_2_2_what_an_old_epoch_is_granted_is_counted_by_the_attach_that_ended_it() {
    loom::model(|| {
        let (pool, session) = (pool(1, 1), session());
        let grower = thread::spawn(move || {
            // As GROW does it.
            let run = pool.reserve(wish(1, 1, false)).unwrap();
            if session.confirm(Epoch::FIRST).is_ok() {
                run.grant(HOLDER, 1) == CHUNK_BYTES
            } else {
                run.free();
                false
            }
        });
        let epoch = session.begin().unwrap();
        let orphaned = granted(pool);
        let grew = grower.join().unwrap();
        assert!(
            !grew || orphaned == 1,
            "granted behind the back of {epoch:?}"
        );
        assert_eq!(granted(pool), u64::from(grew));
        assert_eq!(pool.accounts().quarantined_bytes(), 0);
        assert!(session.check(Epoch::FIRST.number()).is_err());
    });
}

#[test]
fn p_5_6_of_attach_and_detach_one_ends_the_epoch() {
    loom::model(|| {
        let session = session();
        let other = thread::spawn(move || session.end(Epoch::FIRST.number()).is_ok());
        let begun = session.begin().unwrap();
        other.join().unwrap();
        assert_eq!(begun.number(), 2, "whichever was first");
        assert_eq!(session.epoch_number(), 2);
    });
}

#[test]
fn p_3_5_no_two_attachments_have_one_epoch() {
    loom::model(|| {
        let session = session();
        let other = thread::spawn(move || session.begin());
        let mut epochs =
            [session.begin(), other.join().unwrap()].map(|epoch| epoch.unwrap().number());
        epochs.sort_unstable();
        assert_eq!(epochs, [2, 3]);
    });
}

#[test]
fn p_3_6_no_two_grants_have_one_generation() {
    loom::model(|| {
        let session = session();
        let other = thread::spawn(move || session.next_generation().number());
        let mut generations = [session.next_generation().number(), other.join().unwrap()];
        generations.sort_unstable();
        assert_eq!(generations, [1, 2]);
    });
}

#[test]
fn w2_an_orphan_is_adopted_or_given_back() {
    loom::model(|| {
        let pool = pool(2, 2);
        let second = Epoch::new(2).unwrap();
        let chunks = [Guarded::new(), Guarded::new()];
        let run = pool.reserve(wish(2, 2, false)).unwrap();
        assert_eq!(run.grant(HOLDER, 2), 2 * CHUNK_BYTES);
        let releaser = thread::spawn({
            let chunks = chunks.clone();
            move || {
                let mut orphans = TransitSet::new(pool);
                let left = pool.claim_orphans(Epoch::FIRST, &mut orphans);
                let taken = orphans.chunks();
                for address in (0..taken).filter_map(|nth| orphans.address(nth)) {
                    chunks[number(address)].touch();
                }
                orphans.free();
                (taken, left)
            }
        });
        let tally = pool.adopt(Epoch::FIRST, second, 2);
        let (released, left) = releaser.join().unwrap();
        assert_eq!(released + tally.moved, 2, "each has one end");
        assert!(tally.left <= released && left <= tally.moved);
        assert_eq!(granted(pool), tally.moved as u64);
        for chunk in 0..2 {
            let held = ChunkState::Held(Holder {
                epoch: second,
                ..HOLDER
            });
            let state = pool.records().state(chunk);
            assert!(
                state == held && chunks[chunk].touches() == 0
                    || state == ChunkState::Free && chunks[chunk].touches() == 1
            );
        }
    });
}

#[test]
fn p_5_12_3_a_cap_that_was_under_way_does_not_change_the_next_kernels() {
    loom::model(|| {
        let (pool, session) = (pool(4, 4), session());
        let accounts = pool.accounts();
        let old_kernel = thread::spawn(move || {
            // As SET_LIMITS does it.
            let epoch = session.check(Epoch::FIRST.number());
            epoch.is_ok_and(|epoch| accounts.set_cap(epoch, CHUNK_BYTES).is_ok())
        });
        // As ATTACH does it.
        let epoch = session.begin().unwrap();
        accounts.begin_epoch(epoch);
        let found = accounts.cap_bytes();
        assert_eq!(accounts.set_cap(epoch, 2 * CHUNK_BYTES), Ok(found));
        let set = old_kernel.join().unwrap();
        assert_eq!(found, if set { CHUNK_BYTES } else { 4 * CHUNK_BYTES });
        assert_eq!(accounts.cap_bytes(), 2 * CHUNK_BYTES);
    });
}
