// SPDX-License-Identifier: MIT OR Apache-2.0
//! What two CPUs share, in every order of accesses that the memory model allows (`make test-loom`).
//!
//! Each test is a model that loom runs once for each interleaving, with stale values where an ordering permits them.

use core::ptr::NonNull;
use std::sync::Arc;
use std::vec::Vec;

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use snp::svsm::CallRegisters;

use crate::allocator::model::{self, CpuCache, Record, Slot, Tables};
use crate::allocator::{ClassIndex, Kind, Origin, Use};
use crate::lock::InterruptLock;
use crate::{CallFailed, CopyIn, Direction, Platform};

const TO: Kind = Kind::Mapping(Direction::ToDevice, CopyIn::Keep);

/// A kernel that makes no calls.
struct Nothing;

// SAFETY: No pool is attached over it.
unsafe impl Platform for Nothing {
    fn call(&self, _: &mut CallRegisters) -> Result<(), CallFailed> {
        Err(CallFailed)
    }

    fn interrupts_save(&self) -> usize {
        0
    }

    fn interrupts_restore(&self, _: usize) {}

    fn translate(&self, _: u64, _: u64) -> Option<NonNull<u8>> {
        None
    }
}

fn class(length: u64) -> ClassIndex {
    ClassIndex::for_length(length).unwrap()
}

/// Takes the slot of a class out of a cache, if the cache is to be had.
fn pop(cache: &CpuCache) -> Option<Slot> {
    cache.hold()?.pop(class(4096))
}

#[test]
fn the_central_lock_lets_one_in_at_a_time() {
    loom::model(|| {
        let lock = Arc::new(InterruptLock::new(0_u32));
        let other = thread::spawn({
            let lock = Arc::clone(&lock);
            move || lock.with(&Nothing, |value| *value += 1)
        });
        lock.with(&Nothing, |value| *value += 1);
        other.join().unwrap();
        assert_eq!(lock.with(&Nothing, |value| *value), 2);
    });
}

#[test]
fn a_slot_in_a_cache_is_handed_out_once() {
    loom::model(|| {
        let cache = Arc::new(CpuCache::empty());
        let slot = model::slot(3);
        assert!(cache.hold().unwrap().push(class(4096), slot));
        let other = thread::spawn({
            let cache = Arc::clone(&cache);
            move || pop(&cache)
        });
        let mine = pop(&cache);
        let theirs = other.join().unwrap();
        let taken = [mine, theirs].into_iter().flatten().count();
        let left = pop(&cache).into_iter().count();
        assert_eq!(taken + left, 1, "{mine:?} {theirs:?}");
    });
}

#[test]
fn what_one_cpu_frees_another_finds_whole() {
    loom::model(|| {
        let cache = Arc::new(CpuCache::empty());
        let record = Arc::new(Record::unused());
        let other = thread::spawn({
            let (cache, record) = (Arc::clone(&cache), Arc::clone(&record));
            move || {
                record.publish(Origin::of(0x1000, 0), TO, 0);
                let seen = record.state();
                assert!(record.claim_and_retire(seen));
                if let Some(held) = cache.hold() {
                    assert!(held.push(class(4096), model::slot(3)));
                }
            }
        });
        if let Some(slot) = pop(&cache) {
            assert_eq!(slot, model::slot(3));
            // The slot came through the cache, so its record's last words are seen too.
            let state = record.state();
            assert_eq!((state.generation(), state.usage()), (1, Use::Free));
            assert_eq!(record.publish(Origin::of(0x2000, 0), TO, 0), 1);
            assert_eq!(record.origin().address(), 0x2000);
        }
        other.join().unwrap();
    });
}

#[test]
fn s2_two_unmaps_of_one_mapping_end_as_one() {
    loom::model(|| {
        let record = Arc::new(Record::unused());
        record.publish(Origin::of(0x1000, 0), TO, 99);
        let unmap = |record: &Record, copies: bool| {
            let seen = record.state();
            if !seen.is_live(TO, 100) {
                return false;
            }
            assert_eq!(record.origin().address(), 0x1000);
            if copies {
                let won = record.claim(seen);
                if won {
                    record.retire(seen);
                }
                won
            } else {
                record.claim_and_retire(seen)
            }
        };
        let other = thread::spawn({
            let record = Arc::clone(&record);
            move || unmap(&record, true)
        });
        let mine = unmap(&record, false);
        let theirs = other.join().unwrap();
        assert!(mine != theirs, "{mine} {theirs}");
        assert_eq!(record.state().generation(), 1);
    });
}

/// What a share protects is the driver's buffer: it stays until every sync has copied, and an unmap that comes later sees
/// what they wrote.
#[test]
fn s2_syncs_of_one_mapping_go_on_side_by_side_and_end_before_its_unmap() {
    let mut bound = loom::model::Builder::new();
    bound.preemption_bound = Some(3);
    bound.check(|| {
        let record = Arc::new(Record::unused());
        record.publish(Origin::of(0x1000, 0), TO, 99);
        let parts = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let unmapped = Arc::new(AtomicU32::new(0));
        let sync = |record: &Record, part: &AtomicU32, unmapped: &AtomicU32| {
            let seen = record.state();
            if record.share(seen).is_err() {
                return false;
            }
            part.store(1, Ordering::Relaxed);
            assert_eq!(
                unmapped.load(Ordering::Relaxed),
                0,
                "written after the unmap"
            );
            record.unshare();
            true
        };
        let other = thread::spawn({
            let (record, parts, unmapped) = (
                Arc::clone(&record),
                Arc::clone(&parts),
                Arc::clone(&unmapped),
            );
            move || sync(&record, &parts[0], &unmapped)
        });
        let ending = thread::spawn({
            let (record, parts, unmapped) = (
                Arc::clone(&record),
                Arc::clone(&parts),
                Arc::clone(&unmapped),
            );
            move || {
                let seen = record.state();
                if !seen.is_live(TO, 100) || !record.claim(seen) {
                    return None;
                }
                unmapped.store(1, Ordering::Relaxed);
                let written = [0, 1].map(|part: usize| parts[part].load(Ordering::Relaxed));
                record.retire(seen);
                Some(written)
            }
        });
        let mine = sync(&record, &parts[1], &unmapped);
        let theirs = other.join().unwrap();
        match ending.join().unwrap() {
            None => {
                assert!(mine && theirs, "a sync was refused by another one");
                assert_eq!(record.state().usage(), Use::Live(0));
            }
            Some(written) => {
                assert_eq!(written, [theirs.into(), mine.into()], "seen by the unmap");
                assert_eq!(
                    (record.state().usage(), record.state().generation()),
                    (Use::Free, 1)
                );
            }
        }
    });
}

/// The mapping ends and the slot is handed out again while a sync of the old one begins: it copies nothing.
#[test]
fn s2_a_sync_of_a_mapping_that_has_ended_shares_nothing() {
    loom::model(|| {
        let record = Arc::new(Record::unused());
        record.publish(Origin::of(0x1000, 0), TO, 99);
        let other = thread::spawn({
            let record = Arc::clone(&record);
            move || {
                let seen = record.state();
                let origin = record.origin().address();
                if record.share(seen).is_ok() {
                    let expected = if seen.generation() == 0 {
                        0x1000
                    } else {
                        0x2000
                    };
                    assert_eq!(origin, expected, "another mapping's buffer");
                    record.unshare();
                }
            }
        });
        let seen = record.state();
        if record.claim(seen) {
            record.retire(seen);
            record.publish(Origin::of(0x2000, 0), TO, 99);
        }
        other.join().unwrap();
        assert_eq!(record.state().usage(), Use::Live(0));
    });
}

#[test]
fn a_mapping_published_is_seen_with_its_origin() {
    loom::model(|| {
        let record = Arc::new(Record::unused());
        // The reader is the thread that loom runs second: it goes back for the last access before a load only if that was a
        // store, and publishing begins with a load of its own.
        let reader = thread::spawn({
            let record = Arc::clone(&record);
            move || {
                if record.state().is_live(TO, 100) {
                    assert_eq!(record.origin().address(), 0x7000);
                }
            }
        });
        record.publish(Origin::of(0x7000, 0), TO, 99);
        reader.join().unwrap();
    });
}

/// The owner of a small mapping unmaps it, the slab is dissolved, and its block of records goes to another slab, where a
/// mapping of the same length begins. A second caller that still has the bare address of the first one must not end
/// the second one.
#[test]
fn s2_a_block_that_moves_takes_no_unmap_of_its_old_slab_along() {
    let mut bound = loom::model::Builder::new();
    bound.preemption_bound = Some(3);
    bound.check(|| {
        let tables: Tables<'static> = model::tables(8, 1);
        let (old, new) = (0, 4);
        model::furnish(tables, class(64), old, 0);
        let (_, slot, record, _) = tables.slot_at(0).unwrap();
        record.publish(Origin::of(0x1000, 0), TO, 63);
        let unmap_old = move || {
            tables
                .slot_at(slot.offset)
                .is_some_and(|(_, _, record, seen)| {
                    seen.is_live(TO, 64) && record.claim_and_retire(seen)
                })
        };
        let intruder = thread::spawn(unmap_old);
        let owner = unmap_old();
        if owner {
            model::dissolve(tables, class(64), old, 0);
            model::furnish(tables, class(64), new, 0);
            let (_, _, record, _) = tables.slot_at(new * 2048).unwrap();
            record.publish(Origin::of(0x9000, 0), TO, 63);
        }
        let stolen = intruder.join().unwrap();
        assert!(
            owner != stolen,
            "the first mapping ended {}",
            if owner { "twice" } else { "never" }
        );
        if owner {
            let (_, _, record, state) = tables.slot_at(new * 2048).unwrap();
            assert!(state.is_live(TO, 64) && record.origin().address() == 0x9000);
        }
    });
}

/// The same where a slab of larger slots becomes one of another class, whose slots begin elsewhere in the same unit.
#[test]
fn s2_a_slab_that_changes_its_class_takes_no_unmap_of_its_old_one_along() {
    let mut bound = loom::model::Builder::new();
    bound.preemption_bound = Some(3);
    bound.check(|| {
        let tables: Tables<'static> = model::tables(13, 0);
        // The second slot of 2816 bytes and the first one of 3328 bytes behind it begin in unit 1.
        let (old, new) = (class(2816), class(3328));
        model::tag_slab(tables, old, 0);
        let (_, slot, record, _) = tables.slot_at(2816).unwrap();
        record.publish(Origin::of(0x1000, 0), TO, 99);
        let unmap = move |offset: u64| {
            tables
                .slot_at(offset)
                .is_some_and(|(_, found, record, seen)| {
                    seen.is_live(TO, 100) && found.offset == offset && record.claim_and_retire(seen)
                })
        };
        let intruder = thread::spawn(move || unmap(slot.offset));
        let owner = unmap(slot.offset);
        if owner {
            model::untag_slab(tables, old, 0);
            model::tag_slab(tables, new, 0);
            let (_, _, record, _) = tables.slot_at(3328).unwrap();
            record.publish(Origin::of(0x9000, 0), TO, 99);
        }
        let stolen = intruder.join().unwrap();
        assert!(owner != stolen);
        assert!(!owner || unmap(3328), "the second mapping is gone");
    });
}

/// An address inside an extent that comes and goes leads to it or to nothing.
#[test]
fn a_lookup_inside_an_extent_meets_that_extent_or_none() {
    let mut bound = loom::model::Builder::new();
    bound.preemption_bound = Some(3);
    bound.check(|| {
        let tables: Tables<'static> = model::tables(16, 0);
        let other = thread::spawn(move || {
            model::mark_extent(tables, 3, 9);
        });
        let found: Vec<_> = [3, 5, 8, 11, 12]
            .into_iter()
            .map(|unit: u64| {
                tables
                    .place_at(unit * 2048)
                    .map(|place| place.taken.offset())
            })
            .collect();
        other.join().unwrap();
        for first in found.iter().take(4).flatten() {
            assert_eq!(*first, 3 * 2048);
        }
        assert_eq!(found[4], None, "behind it");
        for unit in 3..12 {
            assert_eq!(
                tables.place_at(unit * 2048).unwrap().taken.offset(),
                3 * 2048
            );
        }
    });
}
