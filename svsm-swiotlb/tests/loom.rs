// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chunk records, accounts, epochs, page states and trace records in every order of accesses that the memory model allows (`make test-loom`).
//!
//! Each test is a model that loom runs once for each interleaving, with stale values where an ordering permits them.
//! A [`Guarded`] is what a holder touches: a touch that the records do not order gets lost.
#![cfg(loom)]

use std::sync::Arc;

use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use loom::thread;
use protocol::trace::TraceKind;
use protocol::{CHUNK_BYTES, Epoch, Generation, Holder};
use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use svsm_swiotlb::page_state::{HoldError, PageState, PageStates, RamRange, RamRanges};
use svsm_swiotlb::pool::{
    ChunkRecords, ChunkState, GrowWish, InTransit, Pool, ReleaseRefusal, ReserveRefusal,
    TransitRun, Window,
};
use svsm_swiotlb::session::Session;
use svsm_swiotlb::trace::{Event, Slot};

const HOLDER: Holder = Holder {
    epoch: Epoch::FIRST,
    generation: Generation::FIRST,
};
const BASE: GuestPhysicalAddress = GuestPhysicalAddress::new(0x4000_0000);

/// Something that only the holder of a record may touch: two steps without an order of their own.
#[derive(Clone)]
struct Guarded(Arc<AtomicU32>);

impl Guarded {
    fn new() -> Self {
        Self(Arc::new(AtomicU32::new(0)))
    }

    /// Lost when another touches it meanwhile, or when the record does not order what the last holder did before.
    fn touch(&self) {
        let touches = self.0.load(Ordering::Relaxed);
        self.0.store(touches + 1, Ordering::Relaxed);
    }

    /// Once all threads have ended.
    fn touches(&self) -> u64 {
        self.0.load(Ordering::Relaxed).into()
    }
}

/// A fresh pool. Leaked: loom's threads outlive what is on a stack.
fn pool(chunks: u64, cap: u64) -> &'static Pool<'static> {
    let words: Vec<AtomicU64> = (0..chunks).map(|_| AtomicU64::new(0)).collect();
    let window = Window::new(BASE, chunks * CHUNK_BYTES).unwrap();
    let pool = Pool::new(window, ChunkRecords::new(words.leak()), cap * CHUNK_BYTES).unwrap();
    Box::leak(Box::new(pool))
}

fn pages(count: u64) -> &'static PageStates<'static> {
    let range = RamRange {
        base: BASE,
        bytes: count * PAGE_SIZE,
    };
    let list: &'static [RamRange] = Box::leak(Box::new([range]));
    let words: Vec<AtomicU8> = (0..count).map(|_| AtomicU8::new(1)).collect();
    let states = PageStates::new(RamRanges::new(list).unwrap(), words.leak()).unwrap();
    Box::leak(Box::new(states))
}

fn wish(least: usize, most: usize, contiguous: bool) -> GrowWish {
    GrowWish {
        least,
        most,
        contiguous,
    }
}

/// Of the chunk at an address.
fn number(base: GuestPhysicalAddress) -> usize {
    usize::try_from((base.bits() - BASE.bits()) / CHUNK_BYTES).unwrap()
}

fn first(run: &TransitRun<'_>) -> usize {
    number(run.base())
}

fn granted(pool: &Pool<'_>) -> u64 {
    pool.accounts().granted_bytes() / CHUNK_BYTES
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

#[test]
fn p5_one_at_a_time_has_a_page() {
    loom::model(|| {
        let pages = pages(1);
        let page = Guarded::new();
        let access = move |page: &Guarded| match pages.hold(BASE, &[PageState::Valid]) {
            Ok(held) => {
                page.touch();
                held.keep();
                1
            }
            Err(HoldError::Busy) => 0,
            Err(error) => panic!("{error:?}"),
        };
        let other = thread::spawn({
            let page = page.clone();
            move || access(&page)
        });
        let sum = access(&page) + other.join().unwrap();
        assert!(sum >= 1);
        assert_eq!(page.touches(), sum);
        assert_eq!(pages.state(BASE), Some(PageState::Valid));
    });
}

#[test]
fn p5_a_page_that_was_converted_is_not_read() {
    loom::model(|| {
        let pages = pages(1);
        let page = Guarded::new();
        let converter = thread::spawn({
            let page = page.clone();
            move || {
                let Ok(held) = pages.hold_run(BASE, PAGE_SIZE, PageState::Valid) else {
                    return false;
                };
                page.touch();
                held.change_to(PageState::Invalid);
                true
            }
        });
        let read = match pages.hold(BASE, &[PageState::Valid]) {
            Ok(held) => {
                page.touch();
                held.keep();
                true
            }
            Err(HoldError::Busy | HoldError::WrongState(PageState::Invalid)) => false,
            Err(error) => panic!("{error:?}"),
        };
        let converted = converter.join().unwrap();
        assert!(read || converted);
        assert_eq!(page.touches(), u64::from(read) + u64::from(converted));
        let expected = if converted {
            PageState::Invalid
        } else {
            PageState::Valid
        };
        assert_eq!(pages.state(BASE), Some(expected));
    });
}

#[test]
fn p5_overlapping_runs_of_pages_are_taken_whole_or_not() {
    loom::model(|| {
        let pages = pages(3);
        let middle = Guarded::new();
        let take = move |first: u64, middle: &Guarded| {
            let base = BASE.checked_add(first * PAGE_SIZE).unwrap();
            match pages.hold_run(base, 2 * PAGE_SIZE, PageState::Valid) {
                Ok(held) => {
                    middle.touch();
                    held.keep();
                    true
                }
                Err(HoldError::Busy) => false,
                Err(error) => panic!("{error:?}"),
            }
        };
        let other = thread::spawn({
            let middle = middle.clone();
            move || take(0, &middle)
        });
        let both = [take(1, &middle), other.join().unwrap()];
        let taken = both.iter().filter(|taken| **taken).count();
        assert_eq!(middle.touches(), taken as u64);
        for page in 0..3 {
            let address = BASE.checked_add(page * PAGE_SIZE).unwrap();
            assert_eq!(pages.state(address), Some(PageState::Valid), "page {page}");
        }
    });
}

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
            let run = session.reserve(Epoch::FIRST, pool, wish(1, 1, false));
            run.is_ok_and(|run| run.grant(HOLDER, 1) == CHUNK_BYTES)
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
                let (orphans, left) = pool.claim_orphans(Epoch::FIRST);
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
