// SPDX-License-Identifier: MIT OR Apache-2.0
//! A second service over the storage of the first (docs/PROTOCOL.md, chapter 13): no chunk is lost between owners.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::boxed::Box;
use std::vec::Vec;

use protocol::{Request, result};
use snp::address::PAGE_SIZE;
use snp::svsm::ResultCode;
use zerocopy::{FromBytes, IntoBytes};

use super::{address, code};
use crate::page_state::{PageState, PageStates, RamRange, RamRanges};
use crate::pool::{ChunkRecords, ChunkState, Pool, Window, WindowError};
use crate::state::{STATE_VERSION, ServiceState, StateError};
use crate::test_platform::{CHUNK, Guest, RAM_BASE, RAM_PAGES, TestPlatform, WINDOW_BASE};
use crate::{Configuration, Service};

const CHUNKS: u64 = 8;

/// The two arrays that an owner leaves behind.
struct Storage {
    records: &'static [AtomicU64],
    pages: &'static [AtomicU8],
}

impl Storage {
    fn new() -> Self {
        let records: Vec<_> = (0..CHUNKS).map(|_| AtomicU64::new(0)).collect();
        let valid = PageState::Valid.to_byte();
        let pages: Vec<_> = (0..RAM_PAGES).map(|_| AtomicU8::new(valid)).collect();
        Self {
            records: records.leak(),
            pages: pages.leak(),
        }
    }

    fn pool(&self, window_base: u64) -> Pool<'static> {
        let window = Window::new(address(window_base), CHUNKS * CHUNK).unwrap();
        Pool::new(window, ChunkRecords::new(self.records), window.bytes()).unwrap()
    }

    fn page_states(&self) -> PageStates<'static> {
        let range = RamRange::new(address(RAM_BASE), RAM_PAGES * PAGE_SIZE);
        let ranges: &'static mut [RamRange] = Box::leak(Box::new([range]));
        PageStates::new(RamRanges::new(ranges).unwrap(), self.pages).unwrap()
    }

    fn first_owner(&self) -> Service<'static, TestPlatform> {
        let platform: &'static TestPlatform = Box::leak(Box::new(TestPlatform::new()));
        let configuration = Configuration::with_encryption_bit(51);
        let pool = self.pool(WINDOW_BASE);
        Service::new(platform, configuration, pool, self.page_states()).unwrap()
    }

    fn successor(
        &self,
        window_base: u64,
        state: &ServiceState,
    ) -> Result<Service<'static, TestPlatform>, StateError> {
        let platform: &'static TestPlatform = Box::leak(Box::new(TestPlatform::new()));
        let configuration = Configuration::with_encryption_bit(51);
        let pool = self.pool(window_base);
        Service::resume(platform, configuration, pool, self.page_states(), state)
    }
}

#[test]
fn p_13_1_p_13_2_a_successor_accounts_for_every_chunk_and_goes_on() {
    let storage = Storage::new();
    let old = storage.first_owner();
    let first = old.guest_attach();
    old.guest_grow(first, 2, 2).unwrap();
    let second = old.guest_attach();
    let grant = old.guest_grow(second, 3, 3).unwrap();
    let cap = Request::SetLimits {
        window: 0,
        epoch: second,
        cap: 6 * CHUNK,
    };
    old.call(cap).unwrap();
    assert_eq!(code(old.guest_grow(1, 1, 1)), result::STALE_EPOCH);
    let (statistics, next_event) = (old.statistics(), old.trace().next());

    // As bytes, the way they would travel.
    let bytes = old.state().as_bytes().to_vec();
    let state = ServiceState::read_from_bytes(&bytes).unwrap();
    assert_eq!(state.version, STATE_VERSION);
    let new = storage.successor(WINDOW_BASE, &state).unwrap();
    assert_eq!(new.statistics(), statistics);
    assert_eq!(
        (new.trace().oldest(), new.trace().next()),
        (next_event, next_event)
    );

    // The guest notices nothing: same epoch, same holder, same cap, the next generation.
    let more = new.guest_grow(second, 1, 8).unwrap();
    assert_eq!((more.rdx, more.r8), (CHUNK, grant.r8 + 1));
    assert_eq!(code(new.guest_grow(second, 1, 1)), result::CAP_REACHED);
    let released = new.guest_release(grant.rcx, grant.rdx, second, grant.r8);
    assert_eq!(released.unwrap().rcx, 3 * CHUNK);
    let adopted = new.call(Request::Adopt {
        epoch: second,
        from: first,
    });
    assert_eq!(adopted.unwrap().rcx, 2 * CHUNK);
    assert_eq!(new.guest_attach(), second + 1);
}

#[test]
fn p_13_2_a_detached_service_stays_detached() {
    let storage = Storage::new();
    let old = storage.first_owner();
    let epoch = old.guest_attach();
    old.call(Request::Detach { epoch }).unwrap();
    let new = storage.successor(WINDOW_BASE, &old.state()).unwrap();
    assert_eq!(code(new.guest_grow(epoch, 1, 1)), result::NOT_ATTACHED);
    assert_eq!(new.guest_attach(), epoch + 1, "an epoch is used once");
}

#[test]
fn p3_p_13_2_what_the_predecessor_had_in_its_hands_is_quarantined() {
    let storage = Storage::new();
    let old = storage.first_owner();
    let epoch = old.guest_attach();
    old.guest_grow(epoch, 2, 2).unwrap();
    let state = old.state();
    // Granting, and Releasing by epoch 1, generation 1; a page that was being written.
    storage.records[4].store(1, Ordering::Relaxed);
    storage.records[1].store(0x0000_0001_0000_0103, Ordering::Relaxed);
    storage.pages[2].store(PageState::Busy.to_byte(), Ordering::Relaxed);
    let new = storage.successor(WINDOW_BASE, &state).unwrap();
    let records = new.pool().records();
    assert_eq!(records.state(4), ChunkState::Quarantined);
    assert_eq!(records.state(1), ChunkState::Quarantined);
    let statistics = new.statistics();
    assert_eq!(statistics.granted_bytes, CHUNK);
    assert_eq!(statistics.quarantined_bytes, 2 * CHUNK);
    let page = address(RAM_BASE + 2 * PAGE_SIZE);
    assert_eq!(new.page_states().state(page), Some(PageState::Quarantined));
    let answer = new.call(Request::Statistics {
        buffer: page,
        bytes: 8,
    });
    assert_eq!(code(answer), ResultCode::INVALID_ADDRESS);
}

#[test]
fn p_13_2_a_state_that_contradicts_itself_is_refused() {
    let storage = Storage::new();
    let old = storage.first_owner();
    let epoch = old.guest_attach();
    old.guest_grow(epoch, 2, 2).unwrap();
    let good = old.state();
    let refused = |change: fn(&mut ServiceState)| {
        let mut state = good;
        change(&mut state);
        storage
            .successor(WINDOW_BASE, &state)
            .map(|_| ())
            .unwrap_err()
    };
    assert_eq!(refused(|state| state.version = 1), StateError::Version);
    assert_eq!(refused(|state| state.bytes += 8), StateError::Version);
    let another = StateError::Window(WindowError::WrongStorage);
    assert_eq!(refused(|state| state.window_base += CHUNK), another);
    assert_eq!(
        refused(|state| state.statistics.window_bytes -= CHUNK),
        another
    );
    assert_eq!(refused(|state| state.second_base = CHUNK), another);
    assert_eq!(
        refused(|state| state.statistics.second.window_bytes = CHUNK),
        another
    );
    for change in [
        (|state| state.epoch = 0) as fn(&mut ServiceState),
        |state| (state.epoch, state.attached) = (0, 0),
        |state| state.epoch = 1 << 24,
        |state| state.attached = 2,
        |state| state.stopped = 2,
        |state| state.statistics.cap_bytes += CHUNK,
        |state| state.statistics.cap_bytes -= 1,
        |state| state.statistics.peak_granted_bytes = (CHUNKS + 1) * CHUNK,
        |state| state.statistics.second.cap_bytes = 1,
        |state| state.statistics.second.peak_granted_bytes = CHUNK,
    ] {
        assert_eq!(refused(change), StateError::Inconsistent);
    }
    assert!(storage.successor(WINDOW_BASE, &good).is_ok());
}

#[test]
fn p_13_2_p_5_9_11_a_service_that_has_stopped_has_no_successor() {
    let storage = Storage::new();
    let old = storage.first_owner();
    assert_eq!(old.state().stopped, 0);
    old.stop();
    let refused = storage.successor(WINDOW_BASE, &old.state()).map(|_| ());
    assert_eq!(refused.unwrap_err(), StateError::Stopped);
}

#[test]
fn p_13_3_p_13_4_golden_state() {
    let storage = Storage::new();
    let service = storage.first_owner();
    let first = service.guest_attach();
    service.guest_grow(first, 1, 1).unwrap();
    service.guest_grow(first, 1, 1).unwrap();
    let second = service.guest_attach();
    service.guest_grow(second, 1, 1).unwrap();
    let words: Vec<_> = storage.records[..4]
        .iter()
        .map(|word| word.load(Ordering::Relaxed))
        .collect();
    let held = |generation: u64, epoch: u64| generation << 32 | epoch << 8 | 2;
    assert_eq!(words, [held(1, 1), held(2, 1), held(3, 2), 0]);
    assert_eq!(storage.pages[0].load(Ordering::Relaxed), 1);

    let bytes = service.state().as_bytes().to_vec();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let scalars = [0, 4, 8, 12, 16, 20].map(word);
    assert_eq!(scalars, [3, 608, 2, 1, 3, 0]);
    assert_eq!((long(24), long(32)), (WINDOW_BASE, service.trace().next()));
    // The counters begin with their version and size, and the epoch.
    assert_eq!((word(40), word(44), long(48)), (1, 560, 2));
    assert_eq!((bytes.len(), long(600)), (608, 0));
}
