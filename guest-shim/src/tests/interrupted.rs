// SPDX-License-Identifier: MIT OR Apache-2.0
//! S5: an operation is interrupted at every one of its atomic steps by another operation on the same CPU.
//!
//! The atomics of unit tests call a hook before each access (`atomic.rs`). An operation is run again and again, each time
//! with the interrupt one step later, until it ends before the interrupt comes. While the shim has interrupts off the
//! interrupt is pending, as on a processor.

use core::cell::{Cell, RefCell};
use std::boxed::Box;
use std::vec::Vec;

use super::buffer::{Buffer, pattern};
use super::machine::{Machine, interrupts_are_off, map, map_with};
use crate::atomic::stepped;
use crate::{CHUNK_BYTES, Config, Constraints, CopyIn, Direction, Mapping, Pool, UnmapError};

const BOTH: Direction = Direction::Bidirectional;

std::thread_local! {
    /// The interrupt stands for another CPU: it comes with interrupts off too, and must not need the central lock.
    static OTHER_CPU: Cell<bool> = const { Cell::new(false) };
    /// Steps until the interrupt.
    static STEPS: Cell<usize> = const { Cell::new(0) };
    static HANDLER: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

fn step() {
    if STEPS.get() > 0 {
        STEPS.set(STEPS.get() - 1);
    } else if (OTHER_CPU.get() || !interrupts_are_off())
        && let Some(handler) = HANDLER.take()
    {
        stepped::set_hook(None);
        handler();
    }
}

/// Runs `operation` with an interrupt after `steps` steps, if it has so many. Whether it had.
fn interrupted<R>(
    steps: usize,
    handler: impl FnOnce(),
    operation: impl FnOnce() -> R,
) -> (R, bool) {
    let handler: Box<dyn FnOnce()> = Box::new(handler);
    // SAFETY: Taken out below, before anything that the handler borrows goes.
    let handler: Box<dyn FnOnce() + 'static> = unsafe { core::mem::transmute(handler) };
    STEPS.set(steps);
    HANDLER.set(Some(handler));
    stepped::set_hook(Some(step));
    let result = operation();
    stepped::set_hook(None);
    (result, HANDLER.take().is_none())
}

/// Runs `round` with the interrupt at step 0, 1, 2 and so on until it no longer comes. Returns how often it came.
fn at_every_step(round: impl Fn(usize) -> bool) -> usize {
    (0..100_000)
        .find(|steps| !round(*steps))
        .expect("an operation that ends")
}

/// A whole life of a mapping: mapped, written by the device, unmapped.
fn life(machine: &Machine, pool: &Pool<'_, &Machine>, length: usize, seed: usize) {
    let buffer = Buffer::filled(length, seed);
    let mapping = map(pool, &buffer, BOTH).unwrap();
    assert_eq!(
        machine.device_read(mapping.address(), length),
        pattern(length, seed)
    );
    machine.device_write(mapping.address(), &pattern(length, seed + 1));
    pool.unmap(mapping).unwrap();
    assert_eq!(buffer.read(), pattern(length, seed + 1));
}

fn config(cpus: usize) -> Config {
    Config {
        cpus,
        initial_bytes: 2 * CHUNK_BYTES,
        ..Config::default()
    }
}

const LENGTHS: [usize; 4] = [100, 3000, 4096, 40_000];

#[test]
fn s5_a_map_is_interrupted_by_a_whole_life_of_another() {
    for (cpus, length, nested) in cases() {
        let machine = Machine::new(4);
        let pool = machine.pool(config(cpus));
        let came = at_every_step(|steps| {
            let buffer = Buffer::filled(length, 1);
            let (mapping, came) = interrupted(
                steps,
                || life(&machine, &pool, nested, 5),
                || map(&pool, &buffer, BOTH).unwrap(),
            );
            assert_eq!(
                machine.device_read(mapping.address(), length),
                pattern(length, 1)
            );
            pool.unmap(mapping).unwrap();
            // From empty caches and from full ones.
            if steps % 2 == 0 {
                pool.empty_caches();
            }
            came
        });
        assert!(came > 12, "{came} steps");
        assert_eq!(pool.statistics().used_bytes, 0);
    }
}

#[test]
fn s5_an_unmap_is_interrupted_by_mappings_that_stay() {
    for (cpus, length, nested) in cases() {
        let machine = Machine::new(4);
        let pool = machine.pool(config(cpus));
        let came = at_every_step(|steps| {
            let buffers = [Buffer::filled(length, 1), Buffer::filled(nested, 2)];
            let mapping = map(&pool, &buffers[0], BOTH).unwrap();
            machine.device_write(mapping.address(), &pattern(length, 3));
            let stays = Cell::new(None);
            let (unmapped, came) = interrupted(
                steps,
                || stays.set(Some(map(&pool, &buffers[1], BOTH).unwrap())),
                || pool.unmap(mapping),
            );
            unmapped.unwrap();
            assert_eq!(buffers[0].read(), pattern(length, 3));
            // Whoever comes next does not get the place of the one that stays.
            life(&machine, &pool, length, 7);
            if let Some(stays) = stays.get() {
                assert_eq!(
                    machine.device_read(stays.address(), nested),
                    pattern(nested, 2)
                );
                pool.unmap(stays).unwrap();
            }
            came
        });
        assert!(came > 10, "{came} steps");
        assert_eq!(pool.statistics().used_bytes, 0);
    }
}

#[test]
fn s2_an_unmap_interrupted_by_an_unmap_of_the_same_mapping_succeeds_once() {
    for (cpus, length, _) in cases() {
        let machine = Machine::new(4);
        let pool = machine.pool(config(cpus));
        let came = at_every_step(|steps| {
            let buffer = Buffer::filled(length, 1);
            let mapping = map(&pool, &buffer, BOTH).unwrap();
            machine.device_write(mapping.address(), &pattern(length, 3));
            let second = Cell::new(None);
            let by_handle = steps % 2 == 0;
            let (first, came) = interrupted(
                steps,
                || second.set(Some(unmap(&pool, mapping, by_handle))),
                || pool.unmap(mapping),
            );
            let both = [Some(first), second.get()];
            let good = both.iter().flatten().filter(|one| one.is_ok()).count();
            assert_eq!(good, 1, "{both:?}");
            assert_eq!(buffer.read(), pattern(length, 3));
            assert_eq!(pool.statistics().used_bytes, 0);
            came
        });
        assert!(came > 10, "{came} steps");
        assert_eq!(pool.statistics().maps, pool.statistics().unmaps);
    }
}

#[test]
fn s5_emptying_the_caches_and_giving_back_are_interrupted() {
    let machine = Machine::new(4);
    let pool = machine.pool(config(2));
    let came = at_every_step(|steps| {
        for length in LENGTHS {
            life(&machine, &pool, length, 1);
        }
        let buffer = Buffer::filled(5000, 2);
        let stays = Cell::new(None);
        let ((), came) = interrupted(
            steps,
            || {
                life(&machine, &pool, 100, 3);
                stays.set(Some(map(&pool, &buffer, BOTH).unwrap()));
            },
            || {
                pool.give_back();
            },
        );
        if let Some(stays) = stays.get() {
            assert_eq!(machine.device_read(stays.address(), 5000), pattern(5000, 2));
            pool.unmap(stays).unwrap();
        }
        came
    });
    assert!(came > 100, "{came} steps");
    pool.give_back();
    assert_eq!((machine.granted(), pool.statistics().used_bytes), (0, 0));
}

/// Counts that other CPUs are changing add up to something that can be.
#[test]
fn statistics_interrupted_by_a_life_on_another_cpu_stay_possible() {
    let machine = Machine::new(1);
    let pool = machine.pool(config(2));
    let buffer = Buffer::new(4096);
    let written = Direction::FromDevice;
    let map_one = || {
        map_with(
            &pool,
            &buffer,
            written,
            CopyIn::DeviceWritten,
            &Constraints::NONE,
        )
        .unwrap()
    };
    OTHER_CPU.set(true);
    let came = at_every_step(|steps| {
        pool.maintain();
        pool.unmap(map_one()).unwrap();
        let (pressure, came) = interrupted(
            steps,
            || {
                let mapping = map_one();
                // While the first cache is held, this is the second CPU.
                let held = pool.shared.hold(0);
                pool.unmap(mapping).unwrap();
                drop(held);
            },
            || pool.pressure(),
        );
        assert!(pressure.used_bytes <= CHUNK_BYTES, "{pressure:?}");
        came
    });
    OTHER_CPU.set(false);
    assert!(came > 3, "{came} steps");
}

/// The way from inside an extent to its record leads past other extents; what becomes of those does not matter.
#[test]
fn s2_a_sync_inside_an_extent_succeeds_whatever_its_neighbour_does() {
    let came = at_every_step(|steps| {
        let machine = Machine::new(1);
        let pool = machine.pool(Config::default());
        let neighbour = map(&pool, &Buffer::new(32768), BOTH).unwrap();
        let ours = map(&pool, &Buffer::new(96 << 10), BOTH).unwrap();
        assert_eq!(ours.address() - neighbour.address(), 32768);
        let small = Buffer::new(2048);
        let (synced, came) = interrupted(
            steps,
            || {
                pool.unmap(neighbour).unwrap();
                while map(&pool, &small, BOTH).is_ok() {}
            },
            || pool.sync_address_for_device(ours.address() + 17 * 2048, 64),
        );
        assert_eq!(synced, Ok(()), "step {steps}");
        came
    });
    assert!(came > 10, "{came} steps");
}

/// A driver's sync has no way to fail: data would be lost. Neither the one that is interrupted nor the one in its middle
/// may meet the other, whatever bytes they are for.
#[test]
fn s2_a_sync_in_the_middle_of_another_of_the_same_mapping_succeeds() {
    for length in LENGTHS {
        for by_address in [false, true] {
            let came = at_every_step(|steps| {
                let machine = Machine::new(2);
                let pool = machine.pool(config(1));
                let buffer = Buffer::filled(length, 1);
                let mapping = map(&pool, &buffer, BOTH).unwrap();
                machine.device_write(mapping.address(), &pattern(length, 2));
                let (half, all) = ((length / 2) as u64, length as u64);
                let sync = |from, to| {
                    if by_address {
                        pool.sync_address_for_cpu(mapping.address() + from, to - from)
                    } else {
                        pool.sync_for_cpu(&mapping, from, to - from)
                    }
                };
                let nested = Cell::new(None);
                let (synced, came) = interrupted(
                    steps,
                    || nested.set(Some((sync(half, all), pool.unmap(mapping)))),
                    || sync(0, half),
                );
                let mut expected = pattern(length, 2);
                match nested.take() {
                    Some((inner, Err(cause))) => {
                        assert_eq!((synced, inner), (Ok(()), Ok(())), "step {steps}");
                        assert_eq!(cause, UnmapError::Busy);
                        pool.unmap(mapping).unwrap();
                    }
                    // Unmapped before the sync began, or after it: all that the driver's mistake can do is to end in an
                    // error.
                    Some((inner, Ok(()))) => {
                        assert_eq!(inner, Ok(()));
                        let refused = [
                            Ok(()),
                            Err(UnmapError::Busy),
                            Err(UnmapError::AlreadyUnmapped),
                            Err(UnmapError::StaleHandle),
                            Err(UnmapError::UnknownAddress),
                        ];
                        assert!(refused.contains(&synced), "{synced:?}");
                    }
                    None => {
                        assert_eq!(synced, Ok(()));
                        expected[length / 2..].copy_from_slice(&pattern(length, 1)[length / 2..]);
                        assert_eq!(buffer.read(), expected);
                        pool.unmap(mapping).unwrap();
                        expected = pattern(length, 2);
                    }
                }
                assert_eq!(buffer.read(), expected, "step {steps}");
                came
            });
            assert!(came > 3, "{came} steps");
        }
    }
}

/// A second unmap by bare address, in whose middle the slot leaves its reservation for the pool at large and is handed out
/// again. That it ends the new mapping is the one misuse that is not detected; the slot must not go to a reservation.
#[test]
fn s2_a_slot_that_leaves_its_reservation_does_not_come_back_to_it() {
    let came = at_every_step(|steps| {
        let machine = Machine::new(1);
        let pool = machine.pool(Config::default());
        let small = Buffer::new(2048);
        let none = &Constraints::NONE;
        let first = pool.reserve(1, 2048, 1).unwrap();
        // SAFETY: A `Buffer`'s memory is never freed.
        let reserved = unsafe { pool.map_reserved(&first, small.raw(), BOTH, CopyIn::Keep, none) };
        let old = reserved.unwrap();
        let mut live: Vec<_> = core::iter::from_fn(|| map(&pool, &small, BOTH).ok()).collect();
        live.sort_by_key(Mapping::address);
        live.drain(..32)
            .for_each(|mapping| pool.unmap(mapping).unwrap());
        pool.unmap(old).unwrap();
        let second = Cell::new(None);
        let (unmapped, came) = interrupted(
            steps,
            || {
                pool.cancel_reservation(first).unwrap();
                second.set(Some(pool.reserve(1, 65536, 1).unwrap()));
                assert_eq!(map(&pool, &small, BOTH).unwrap().address(), old.address());
            },
            || pool.unmap_address(old.address(), 2048, BOTH),
        );
        if let Some(second) = second.take()
            && unmapped.is_ok()
        {
            let large = Buffer::new(65536);
            // SAFETY: As above.
            let mapping =
                unsafe { pool.map_reserved(&second, large.raw(), BOTH, CopyIn::Keep, none) };
            let mapping = mapping.unwrap();
            let end = mapping.address() + mapping.length();
            assert!(pool.contains(end - 1), "beyond the window");
            let overlaps = |other: &Mapping| {
                other.address() < end && mapping.address() < other.address() + 2048
            };
            assert!(!live.iter().any(overlaps), "handed out twice");
        }
        came
    });
    assert!(came > 5, "{came} steps");
}

fn unmap(pool: &Pool<'_, &Machine>, mapping: Mapping, by_handle: bool) -> Result<(), UnmapError> {
    if by_handle {
        pool.unmap(mapping)
    } else {
        pool.unmap_address(mapping.address(), mapping.length(), mapping.direction())
    }
}

/// CPUs, length of the interrupted mapping, length of the other.
fn cases() -> Vec<(usize, usize, usize)> {
    let mut cases = Vec::new();
    for cpus in [1, 2] {
        for length in LENGTHS {
            for nested in [length, 3000, 40_000] {
                cases.push((cpus, length, nested));
            }
        }
    }
    cases
}
