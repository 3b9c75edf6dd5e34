// SPDX-License-Identifier: MIT OR Apache-2.0
//! Room that is there is found: in caches that somebody holds, at odd places, in pieces, below where a search stopped.

use std::vec::Vec;

use super::buffer::Buffer;
use super::machine::{Machine, map, map_with};
use super::memory::BASE;
use crate::growth::Growth;
use crate::{
    CHUNK_BYTES, Config, Constraints, CopyIn, Direction, MapError, Mapping, Pool, PressureLevel,
};

const TO: Direction = Direction::ToDevice;

/// Fills a pool with mappings of 2 KiB; lowest first.
fn fill_units(pool: &Pool<'_, &Machine>) -> Vec<Mapping> {
    let unit = Buffer::new(2048);
    let mut live: Vec<_> = core::iter::from_fn(|| map(pool, &unit, TO).ok()).collect();
    live.sort_by_key(Mapping::address);
    live
}

/// A sweep that finds a cache held, as an interrupt in the middle of a map does, is not the last one.
#[test]
fn slots_in_a_cache_that_was_held_are_found_later() {
    let machine = Machine::new(1);
    let pool = machine.pool(Config {
        cpus: 2,
        ..Config::default()
    });
    let large = Buffer::new(16384);
    let mut live = Vec::new();
    while let Ok(mapping) = map(&pool, &large, TO) {
        live.push(mapping);
    }
    // leave the scarce period
    for _ in 0..300 {
        let m = live.pop().unwrap();
        pool.unmap(m).unwrap();
        live.push(map(&pool, &large, TO).unwrap());
    }
    pool.unmap(live.pop().unwrap()).unwrap();
    pool.unmap(live.pop().unwrap()).unwrap();
    let small = Buffer::new(2048);
    // an interrupt in the middle of a map that holds cache 0
    let held = pool.shared.hold(0);
    map(&pool, &small, TO).unwrap_err();
    drop(held);
    let failed = (0..100_000)
        .take_while(|_| map(&pool, &small, TO).is_err())
        .count();
    assert_eq!(failed, 0, "32 KiB are free, 2 KiB cannot be had");
}

#[test]
fn a_device_that_reaches_nothing_more_does_not_grow_the_pool_for_others() {
    let machine = Machine::new(64);
    let pool = machine.pool(Config::default());
    let limit = Constraints {
        highest_address: BASE + CHUNK_BYTES - 1,
        ..Constraints::NONE
    };
    let buffer = Buffer::new(65536);
    let results: Vec<_> = (0..40)
        .map(|_| map_with(&pool, &buffer, TO, CopyIn::Keep, &limit))
        .collect();
    assert_eq!(results[39], Err(MapError::NoContiguousRun));
    assert_eq!(machine.granted(), 1);
    assert!(map(&pool, &buffer, TO).is_ok(), "others are served");
}

#[test]
fn any_configured_size_is_a_size() {
    for (initial_bytes, growth_limit_bytes) in [(u64::MAX, 2 << 20), (2 << 20, u64::MAX), (0, 0)] {
        let machine = Machine::new(4);
        let pool = machine.pool(Config {
            initial_bytes,
            growth_limit_bytes,
            ..Config::default()
        });
        assert!(map(&pool, &Buffer::new(5 << 20), TO).is_ok());
    }
    assert_eq!(
        crate::metadata_bytes_with_small(64 << 20, 2, usize::MAX),
        usize::MAX
    );
}

#[test]
fn a_run_of_many_grants_is_put_together_by_its_first_request() {
    let machine = Machine::new(64);
    machine.set(|service| service.grow_limit = 2 * CHUNK_BYTES);
    let pool = machine.pool(Config::default());
    assert!(map(&pool, &Buffer::new(40 << 20), TO).is_ok());
}

/// What is granted first does not join the longest free block, but is the beginning of a run itself.
#[test]
fn a_run_is_completed_where_the_grants_come() {
    let machine = Machine::new(6);
    let pool = machine.pool(Config {
        initial_bytes: 2 * CHUNK_BYTES,
        ..Config::default()
    });
    // Its slab lies at the upper end of what is granted.
    let small = map(&pool, &Buffer::new(1), TO).unwrap();
    let run = map(&pool, &Buffer::new(4_205_568), TO).unwrap();
    pool.unmap(run).unwrap();
    pool.unmap(small).unwrap();
}

#[test]
fn a_refused_long_run_is_no_pressure_on_short_ones() {
    let machine = Machine::new(64);
    let pool = machine.pool(Config::default());
    machine.set(|s| s.grow_answers = std::vec![Err(protocol::result::NO_CONTIGUOUS_RUN.into()); 1]);
    assert!(map(&pool, &Buffer::new(30 << 20), TO).is_err());
    let live: Vec<_> = (0..15)
        .map(|_| map(&pool, &Buffer::new(128 << 10), TO).unwrap())
        .collect();
    assert_eq!(pool.pressure().level, PressureLevel::Low);
    drop(live);
}

#[test]
fn a_walk_in_reach_finds_what_was_freed_below_it() {
    let machine = Machine::new(16);
    let pool = machine.pool(Config {
        initial_bytes: 16 * CHUNK_BYTES,
        ..Config::default()
    });
    let limit = Constraints {
        highest_address: BASE + 16 * CHUNK_BYTES - 2049,
        ..Constraints::NONE
    };
    let buffer = Buffer::new(2048);
    let mut live: Vec<Mapping> = Vec::new();
    while let Ok(m) = map(&pool, &buffer, TO) {
        live.push(m);
    }
    assert_eq!(live.len(), 16384);
    live.sort_by_key(|m| m.address());
    let mut spurious = 0;
    for _ in 0..64 {
        assert!(map_with(&pool, &buffer, TO, CopyIn::Keep, &limit).is_err());
        pool.unmap(live[5]).unwrap();
        match map_with(&pool, &buffer, TO, CopyIn::Keep, &limit) {
            Ok(m) => live[5] = m,
            Err(e) => {
                spurious += 1;
                std::println!("{e:?}");
                live[5] = map(&pool, &buffer, TO).unwrap();
            }
        }
    }
    assert_eq!(spurious, 0);
}

#[test]
fn a_release_that_comes_round_late_leaves_a_newer_withdrawal_alone() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    pool.with_state(|s| {
        let first = s.central.withdraw(1).unwrap(); // CPU A: maintain, RELEASE succeeds, vCPU not run
        let again = crate::allocator::Run {
            chunks: first.chunks.clone(),
            grant: first.grant + 1,
        };
        assert!(s.central.accepts(&again));
        s.central.open(&again); // CPU B: GROW gets it anew
        let second = s.central.withdraw(1).unwrap(); // CPU B: maintain, RELEASE in flight
        s.central.forget(&first); // CPU A comes round
        s.central.restore(&second); // CPU B: BUSY
        assert_eq!(
            s.central.occupancy().granted_chunks,
            1,
            "the chunk is granted and nobody has it"
        );
    });
}

#[test]
fn a_page_without_constraints_fits_at_odd_units() {
    let machine = Machine::new(1);
    let pool = machine.pool(Config::default());
    let live = fill_units(&pool);
    assert_eq!(live.len(), 1024);
    for (at, mapping) in live.iter().enumerate() {
        if at % 4 == 1 || at % 4 == 2 {
            pool.unmap(*mapping).unwrap();
        }
    }
    let pages: Vec<_> = [4096, 3000, 3700]
        .into_iter()
        .map(|length| map(&pool, &Buffer::new(length), TO).unwrap())
        .collect();
    pages.into_iter().for_each(|page| pool.unmap(page).unwrap());
}

#[test]
fn a_fragmented_pool_is_not_called_full() {
    let machine = Machine::new(1);
    let pool = machine.pool(Config::default());
    let live = fill_units(&pool);
    live.iter()
        .step_by(2)
        .for_each(|mapping| pool.unmap(*mapping).unwrap());
    pool.maintain();
    assert_eq!(
        map(&pool, &Buffer::new(8192), TO),
        Err(MapError::NoContiguousRun)
    );
}

#[test]
fn many_cpus_that_are_refused_at_once_are_one_refusal() {
    let mut growth = Growth::new(32 << 20, 506 << 20);
    let wishes: Vec<_> = (0..17)
        .map(|_| {
            growth.admit(CHUNK_BYTES).unwrap();
            growth.begin(CHUNK_BYTES, false)
        })
        .collect();
    for wish in &wishes {
        growth.failed(wish, MapError::HostRefused);
    }
    let waits = (0..1000).take_while(|_| growth.admit(CHUNK_BYTES).is_err());
    assert!(waits.count() <= 2);
}
