// SPDX-License-Identifier: MIT OR Apache-2.0
//! Growing: how much, how often, and what happens when the service says no or something strange.

use protocol::response::Granted;
use protocol::result as code;
use protocol::{Call, Generation, Refusal, Request};
use snp::address::GuestPhysicalAddress;
use std::boxed::Box;
use std::vec::Vec;

use super::buffer::Buffer;
use super::machine::{Machine, map, map_with};
use super::memory::BASE;
use crate::{
    CHUNK_BYTES, Config, Constraints, CopyIn, Direction, MapError, Mapping, Pool, PressureLevel,
    metadata_bytes,
};

const TO: Direction = Direction::ToDevice;

/// Maps `count` buffers of 64 KiB.
fn fill(pool: &Pool<'_, &Machine>, count: usize) -> Vec<Result<Mapping, MapError>> {
    let buffer = Buffer::new(65536);
    (0..count).map(|_| map(pool, &buffer, TO)).collect()
}

#[test]
fn s4_steady_state_makes_no_call() {
    let machine = Machine::new(8);
    let pool = machine.pool(Config::default());
    let round = || {
        for mapping in fill(&pool, 60) {
            let mapping = mapping.unwrap();
            pool.sync_for_device(&mapping, 0, 100).unwrap();
            pool.unmap(mapping).unwrap();
        }
    };
    round();
    let calls = machine.total_calls();
    (0..20).for_each(|_| round());
    assert_eq!(machine.total_calls(), calls);
}

#[test]
fn growth_is_geometric_and_counted() {
    let machine = Machine::new(64);
    let config = Config {
        growth_limit_bytes: 16 << 20,
        ..Config::default()
    };
    let pool = machine.pool(config);
    // 128 MiB of 64 KiB mappings fill the window to the last byte.
    assert!(fill(&pool, 2048).iter().all(Result::is_ok));
    let asked: Vec<u64> = machine
        .service
        .lock()
        .unwrap()
        .log
        .iter()
        .filter_map(|request| match request {
            Request::Grow { most, .. } => Some(most >> 20),
            _ => None,
        })
        .collect();
    assert_eq!(
        asked,
        [2, 4, 8, 16, 16, 16, 16, 16, 16, 16, 16][..asked.len()]
    );
    let statistics = pool.statistics();
    assert_eq!(statistics.granted_bytes, 64 * CHUNK_BYTES);
    assert_eq!(statistics.used_bytes, 64 * CHUNK_BYTES);
    assert_eq!(statistics.growths, asked.len() as u64);
    assert_eq!(statistics.calls_of(Call::Grow), asked.len() as u64);
    assert_eq!(fill(&pool, 1), [Err(MapError::CapReached)]);
}

#[test]
fn after_a_refusal_failing_maps_do_not_call() {
    let machine = Machine::new(8);
    machine.set(|service| service.cap = CHUNK_BYTES);
    let pool = machine.pool(Config::default());
    let live: Vec<_> = fill(&pool, 32).into_iter().map(Result::unwrap).collect();
    assert_eq!(pool.pressure().level, PressureLevel::High);
    assert_eq!(
        pool.pressure().cause,
        Some(MapError::CapReached),
        "named before the first failure"
    );
    let before = machine.count(Call::Grow);
    assert!(
        fill(&pool, 1000)
            .iter()
            .all(|mapping| *mapping == Err(MapError::CapReached))
    );
    // Attempts after 1, 2, 4, ... failures: 10 of 1000.
    assert_eq!(machine.count(Call::Grow) - before, 10);
    assert_eq!(pool.pressure().level, PressureLevel::Exhausted);
    let statistics = pool.statistics();
    assert_eq!(statistics.failures, 1000);
    assert_eq!(statistics.failures_for(MapError::CapReached), 1000);

    // What was released by the guest is found without a call; what maintenance allows is one attempt.
    pool.unmap(live[7]).unwrap();
    assert!(fill(&pool, 1)[0].is_ok());
    assert_ne!(pool.pressure().level, PressureLevel::Exhausted);
    let before = machine.count(Call::Grow);
    pool.maintain();
    assert_eq!(fill(&pool, 2), [Err(MapError::CapReached); 2]);
    assert_eq!(machine.count(Call::Grow) - before, 1);
    assert_eq!(pool.set_cap(4 * CHUNK_BYTES), Ok(CHUNK_BYTES));
    assert!(fill(&pool, 1)[0].is_ok());
    assert_eq!(pool.set_cap(64 * CHUNK_BYTES), Err(MapError::TooLarge));
    assert_eq!(pool.set_cap(4096), Err(MapError::InvalidRequest));
}

#[test]
fn each_refusal_has_its_named_cause() {
    let cases = [
        (code::CAP_REACHED, MapError::CapReached),
        (code::HOST_REFUSED, MapError::HostRefused),
        (code::HOST_MISBEHAVED, MapError::HostRefused),
        (code::NO_CONTIGUOUS_RUN, MapError::NoContiguousRun),
        (code::RECORDS_EXHAUSTED, MapError::RecordsExhausted),
        (code::STALE_EPOCH, MapError::NotAttached),
        (code::NOT_ATTACHED, MapError::NotAttached),
        (
            snp::svsm::ResultCode::INVALID_PARAMETER,
            MapError::ServiceFault,
        ),
    ];
    for (answer, cause) in cases {
        let machine = Machine::new(4);
        let pool = machine.pool(Config::default());
        fill(&pool, 32)
            .into_iter()
            .for_each(|mapping| assert!(mapping.is_ok()));
        machine.set(|service| service.grow_answers = std::vec![Err(Refusal::from(answer))]);
        assert_eq!(fill(&pool, 1), [Err(cause)]);
        assert_eq!(pool.statistics().refused_growths, 1);
        assert_eq!(pool.pressure().cause, Some(cause));
    }
    let machine = Machine::new(4);
    let pool = machine.pool(Config::default());
    fill(&pool, 32)
        .into_iter()
        .for_each(|mapping| assert!(mapping.is_ok()));
    machine.set(|service| service.busy = 100);
    assert_eq!(fill(&pool, 1), [Err(MapError::Busy)]);
    machine.set(|service| (service.busy, service.not_run) = (0, true));
    pool.maintain();
    assert_eq!(fill(&pool, 1), [Err(MapError::ServiceFault)]);
}

#[test]
fn a_grant_that_breaks_the_rules_is_never_used() {
    let grant = |base: u64, bytes: u64| {
        Ok(Granted {
            base: GuestPhysicalAddress::new(base),
            bytes,
            generation: Generation::new(77).unwrap(),
        })
    };
    let cases = [
        grant(BASE, CHUNK_BYTES),                       // held already
        grant(BASE - CHUNK_BYTES, CHUNK_BYTES),         // below the window
        grant(BASE + 4 * CHUNK_BYTES, CHUNK_BYTES),     // above
        grant(BASE + 3 * CHUNK_BYTES, 2 * CHUNK_BYTES), // across its end
        grant(BASE + CHUNK_BYTES + 4096, CHUNK_BYTES),  // misaligned
        grant(BASE + CHUNK_BYTES, 4096),                // not whole chunks
        grant(BASE + CHUNK_BYTES, 3 * CHUNK_BYTES),     // more than asked for
    ];
    for answer in cases {
        let machine = Machine::new(4);
        let pool = machine.pool(Config {
            growth_limit_bytes: 2 << 20,
            ..Config::default()
        });
        fill(&pool, 32)
            .into_iter()
            .for_each(|mapping| assert!(mapping.is_ok()));
        machine.set(|service| service.grow_answers = std::vec![answer]);
        assert_eq!(fill(&pool, 1), [Err(MapError::ServiceFault)], "{answer:?}");
        assert_eq!(pool.statistics().granted_bytes, CHUNK_BYTES);
    }
}

#[test]
fn a_run_longer_than_a_chunk_is_one_contiguous_growth() {
    let machine = Machine::new(16);
    let pool = machine.pool(Config::default());
    let small = map(&pool, &Buffer::new(64), TO).unwrap();
    let large = map(&pool, &Buffer::new(5 << 20), TO).unwrap();
    assert_eq!(machine.count(Call::Grow), 2);
    assert_eq!(pool.statistics().granted_bytes, 8 << 20);
    // The unused end of its last chunk is not lost.
    let rest = map(&pool, &Buffer::new(1 << 20), TO).unwrap();
    let inside = large.address()..large.address() + (6 << 20);
    assert!(inside.contains(&rest.address()) || rest.address() < BASE + CHUNK_BYTES);
    assert_eq!(pool.statistics().growths, 2);
    for mapping in [small, large, rest] {
        pool.unmap(mapping).unwrap();
    }
}

#[test]
fn a_run_longer_than_one_call_grants_is_put_together() {
    let machine = Machine::new(16);
    machine.set(|service| service.grow_limit = 3 * CHUNK_BYTES);
    let pool = machine.pool(Config::default());
    let mapping = map(&pool, &Buffer::new(15 << 20), TO).unwrap();
    assert_eq!(mapping.address(), BASE);
    assert!(machine.count(Call::Grow) <= 4);
}

#[test]
fn a_fragmented_window_fails_long_runs_by_name_and_still_serves_short_ones() {
    let machine = Machine::new(4);
    let pool = machine.pool(Config {
        initial_bytes: 8 << 20,
        ..Config::default()
    });
    let chunk = Buffer::new(2 << 20);
    let live: Vec<_> = (0..4).map(|_| map(&pool, &chunk, TO).unwrap()).collect();
    pool.unmap(live[0]).unwrap();
    pool.unmap(live[2]).unwrap();
    // Whatever the service granted: no call is made.
    let calls = machine.total_calls();
    assert_eq!(
        map(&pool, &Buffer::new(4 << 20), TO),
        Err(MapError::NoContiguousRun)
    );
    assert_eq!(machine.total_calls(), calls);
    assert!(map(&pool, &chunk, TO).is_ok());
}

#[test]
fn out_of_reach_of_the_device_is_not_used() {
    let machine = Machine::new(4);
    machine.set(|service| service.from_the_top = true);
    let pool = machine.pool(Config::default());
    let low = Constraints {
        highest_address: BASE + CHUNK_BYTES - 1,
        ..Constraints::NONE
    };
    let mapping = map_with(&pool, &Buffer::new(64), TO, CopyIn::Keep, &low).unwrap();
    assert!(mapping.address() < BASE + CHUNK_BYTES);
    let none = Constraints {
        highest_address: BASE - 1,
        ..Constraints::NONE
    };
    let refused = map_with(&pool, &Buffer::new(64), TO, CopyIn::Keep, &none);
    assert_eq!(refused, Err(MapError::OutOfReach));
}

#[test]
fn chunks_without_records_go_straight_back() {
    let machine = Machine::new(4);
    let metadata = std::vec![0; metadata_bytes(2 * CHUNK_BYTES, 1) + 4096].into_boxed_slice();
    let pool = Pool::attach(&machine, Box::leak(metadata), Config::default()).unwrap();
    assert!(fill(&pool, 64).iter().all(Result::is_ok));
    assert_eq!(fill(&pool, 1), [Err(MapError::RecordsExhausted)]);
    assert_eq!(machine.granted(), 2);
    assert_eq!(pool.pressure().cause, Some(MapError::RecordsExhausted));
}

#[test]
fn two_cpus_grow_and_use_the_pool_at_once() {
    let machine = Machine::new(32);
    let pool = machine.pool(Config::default());
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..8 {
                    let buffers: Vec<_> = (0..100)
                        .map(|at| Buffer::filled(1 + at * 331, seed + at))
                        .collect();
                    let live: Vec<_> = buffers
                        .iter()
                        .map(|buffer| map(pool, buffer, Direction::Bidirectional).unwrap())
                        .collect();
                    for (at, (mapping, buffer)) in live.iter().zip(&buffers).enumerate() {
                        buffer.write(&std::vec![0; 1 + at * 331]);
                        pool.unmap(*mapping).unwrap();
                        assert_eq!(
                            buffer.read(),
                            super::buffer::pattern(1 + at * 331, seed + at)
                        );
                    }
                    if round % 3 == 0 {
                        pool.maintain();
                    }
                }
            });
        }
    });
    assert_eq!(pool.statistics().used_bytes, 0);
    assert_eq!(
        pool.statistics().granted_bytes,
        machine.granted() as u64 * CHUNK_BYTES
    );
}
