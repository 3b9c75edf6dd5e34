// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two threads at one place: what a lock that does not lock, or a claim that two win, does within a moment.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;

use fuzz::driver_buffer::DriverBuffer;
use fuzz::machine::{CpuNumber, Machine, set_cpu};
use fuzz::window::BASE;
use guest_shim::{
    CHUNK_BYTES, Config, Constraints, CopyIn, Direction, Mapping, Pool, SMALLEST_SLOT_BYTES,
    metadata_bytes_with_small,
};

const ROUNDS: usize = if cfg!(miri) { 24 } else { 200_000 };

fn with_pool(cpus: usize, test: impl FnOnce(&Pool<'_, &Machine>)) {
    let machine = Machine::new(1, 255);
    machine.stop_watching();
    let small = if cfg!(miri) { 64 } else { 2000 };
    let mut metadata = vec![0; metadata_bytes_with_small(CHUNK_BYTES, cpus, small)];
    let config = Config {
        cpus,
        ..Config::default()
    };
    let pool = Pool::attach(&machine, &mut metadata, config).unwrap();
    test(&pool);
    let end = pool.statistics();
    assert_eq!((end.used_bytes, end.maps), (0, end.unmaps), "{end:?}");
    pool.give_back();
    assert_eq!(machine.service(|service| service.granted()), 0);
    machine.close();
}

fn map(pool: &Pool<'_, &Machine>, buffer: &DriverBuffer, copy_in: CopyIn) -> Mapping {
    buffer
        .map(pool, Direction::FromDevice, copy_in, &Constraints::NONE)
        .expect("far from full")
}

/// Three threads say that they run on the only CPU.
#[test]
fn no_slot_is_handed_out_twice_by_a_cache_that_all_want() {
    let slots = CHUNK_BYTES / SMALLEST_SLOT_BYTES;
    let owned: Vec<AtomicBool> = (0..slots).map(|_| AtomicBool::new(false)).collect();
    let owner = |mapping: &Mapping| {
        let slot = (mapping.address() - BASE) / SMALLEST_SLOT_BYTES;
        &owned[usize::try_from(slot).unwrap()]
    };
    with_pool(1, |pool| {
        thread::scope(|scope| {
            for thread in 0..3 {
                scope.spawn(move || {
                    set_cpu(CpuNumber::Fixed(0));
                    let buffers = [40, 100, 5000, 40, 40, 20_000]
                        .map(|length| DriverBuffer::new(&vec![1; length], 0, 0));
                    for round in 0..ROUNDS {
                        let count = 1 + (round + thread) % buffers.len();
                        let live: Vec<Mapping> = buffers[..count]
                            .iter()
                            .map(|buffer| map(pool, buffer, CopyIn::DeviceWritten))
                            .collect();
                        for mapping in &live {
                            let twice = owner(mapping).swap(true, Ordering::Relaxed);
                            assert!(!twice, "{mapping:x?} was handed out twice");
                        }
                        for mapping in live {
                            owner(&mapping).store(false, Ordering::Relaxed);
                            pool.unmap(mapping).unwrap();
                        }
                    }
                });
            }
        });
    });
}

/// Ends the other thread's wait when its own fails.
struct Release<'a>(&'a AtomicUsize);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.store(usize::MAX, Ordering::Release);
    }
}

/// Waits until the other thread is as far. It looks often first, so that both go on at the same moment; but where there
/// is one processor only, the other needs that.
fn wait_for(progress: &AtomicUsize, round: usize) {
    let mut looks = 0_u32;
    while progress.load(Ordering::Acquire) < round {
        looks += 1;
        if looks.is_multiple_of(1000) {
            thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Two threads unmap the same mapping at the same moment.
#[test]
fn one_of_two_unmaps_wins() {
    with_pool(2, |pool| {
        let buffer = DriverBuffer::new(&[3; 300], 0, 0);
        let next = std::sync::Mutex::new(None);
        let (started, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let wins = AtomicU32::new(0);
        let contend = |mapping: Mapping| {
            let won = pool.unmap(mapping).is_ok();
            wins.fetch_add(won.into(), Ordering::AcqRel);
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                let _release = Release(&ended);
                for round in 1..=ROUNDS / 4 {
                    wait_for(&started, round);
                    let mapping = next.lock().unwrap().expect("put there before");
                    contend(mapping);
                    ended.store(round, Ordering::Release);
                }
            });
            let _release = Release(&started);
            for round in 1..=ROUNDS / 4 {
                // Without a copy the claim is one step with the end, with one it is two.
                let copy_in = [CopyIn::Keep, CopyIn::DeviceWritten][round % 2];
                let mapping = map(pool, &buffer, copy_in);
                *next.lock().unwrap() = Some(mapping);
                started.store(round, Ordering::Release);
                contend(mapping);
                wait_for(&ended, round);
                let won = wins.swap(0, Ordering::AcqRel);
                assert_eq!(won, 1, "unmaps of {mapping:x?} succeeded in round {round}");
            }
        });
    });
}
