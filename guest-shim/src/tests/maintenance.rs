// SPDX-License-Identifier: MIT OR Apache-2.0
//! Giving back: hysteresis, partial answers, and answers that leave the owner open.

use protocol::response::Released;
use protocol::result as code;
use protocol::{Call, Refusal};
use snp::svsm::ResultCode;
use std::vec::Vec;

use super::buffer::Buffer;
use super::machine::{Machine, map, map_with};
use crate::{CHUNK_BYTES, Config, Constraints, CopyIn, Direction, GivenBack, MapError, Pool};

/// Occupies `chunks` chunks for a moment; nothing is copied.
fn burst(pool: &Pool<'_, &Machine>, chunks: usize) {
    let buffer = Buffer::new(2 << 20);
    let (direction, copy_in) = (Direction::FromDevice, CopyIn::DeviceWritten);
    let live: Vec<_> = (0..chunks)
        .map(|_| map_with(pool, &buffer, direction, copy_in, &Constraints::NONE).unwrap())
        .collect();
    live.into_iter()
        .for_each(|mapping| pool.unmap(mapping).unwrap());
}

#[test]
fn a_burst_is_forgotten_after_a_few_calls_and_not_at_once() {
    let machine = Machine::new(32);
    let pool = machine.pool(Config::default());
    burst(&pool, 16);
    let granted = machine.granted();
    assert!(granted >= 16);
    let sizes: Vec<usize> = (0..7)
        .map(|_| {
            pool.maintain();
            machine.granted()
        })
        .collect();
    assert_eq!(sizes, [16, 8, 4, 2, 1, 1, 1]);
    let statistics = pool.statistics();
    assert_eq!(statistics.granted_bytes, CHUNK_BYTES);
    assert_eq!(
        statistics.released_bytes,
        (granted as u64 - 1) * CHUNK_BYTES
    );
    assert_eq!(statistics.acknowledged_bytes, statistics.released_bytes);
}

#[test]
fn bursts_between_maintenance_keep_their_memory() {
    let machine = Machine::new(32);
    let pool = machine.pool(Config::default());
    burst(&pool, 16);
    pool.maintain();
    let growths = machine.count(Call::Grow);
    for _ in 0..10 {
        burst(&pool, 16);
        assert_eq!(pool.maintain(), GivenBack::default());
    }
    assert_eq!(machine.count(Call::Grow), growths);
}

#[test]
fn chunks_in_use_stay_and_give_back_takes_the_rest() {
    let machine = Machine::new(16);
    let pool = machine.pool(Config {
        minimum_bytes: 8 << 20,
        ..Config::default()
    });
    let buffer = Buffer::filled(64, 1);
    burst(&pool, 8);
    let mapping = map(&pool, &buffer, Direction::Bidirectional).unwrap();
    for _ in 0..10 {
        pool.maintain();
    }
    assert_eq!(machine.granted(), 4, "the minimum");
    let given = pool.give_back();
    assert_eq!(
        (given.released_bytes, given.acknowledged_bytes),
        (6 << 20, 6 << 20)
    );
    assert_eq!(machine.granted(), 1);
    pool.unmap(mapping).unwrap();
    assert_eq!(pool.give_back().released_bytes, 2 << 20);
    assert_eq!((machine.granted(), pool.statistics().granted_bytes), (0, 0));
    // And it grows again, from small.
    burst(&pool, 1);
    assert_eq!(machine.granted(), 1);
}

#[test]
fn a_partial_release_keeps_the_rest_usable() {
    let machine = Machine::new(8);
    let pool = machine.pool(Config {
        initial_bytes: 16 << 20,
        ..Config::default()
    });
    assert_eq!(machine.granted(), 8);
    let part = Released {
        bytes: 6 << 20,
        acknowledged: 2 << 20,
    };
    let nothing = Released {
        bytes: 0,
        acknowledged: 0,
    };
    machine.set(|service| service.release_answers = std::vec![Ok(part), Ok(nothing)]);
    let given = pool.give_back();
    assert_eq!(
        (given.released_bytes, given.acknowledged_bytes),
        (6 << 20, 2 << 20)
    );
    assert_eq!(pool.statistics().granted_bytes, 10 << 20);
    let large = map(&pool, &Buffer::new(10 << 20), Direction::ToDevice).unwrap();
    pool.unmap(large).unwrap();
}

#[test]
fn busy_leaves_the_chunks_and_a_strange_answer_gives_them_up() {
    let machine = Machine::new(4);
    let pool = machine.pool(Config {
        initial_bytes: 8 << 20,
        ..Config::default()
    });
    let cases = [
        (Err(Refusal::from(ResultCode::BUSY)), 16, MapError::Busy, 0),
        (
            Err(Refusal::from(code::NOT_HELD)),
            1,
            MapError::ServiceFault,
            4,
        ),
    ];
    for (answer, repeat, cause, lost) in cases {
        machine.set(|service| service.release_answers = std::vec![answer; repeat]);
        let given = pool.give_back();
        assert_eq!((given.released_bytes, given.stopped_by), (0, Some(cause)));
        assert_eq!(pool.statistics().lost_bytes, lost * CHUNK_BYTES);
        assert_eq!(pool.statistics().granted_bytes, (4 - lost) * CHUNK_BYTES);
    }
    // Lost chunks are not taken back even if the service grants them.
    machine.set(|service| service.cap = 0);
    let refused = map(&pool, &Buffer::new(1), Direction::ToDevice);
    assert_eq!(refused, Err(MapError::CapReached));
}

#[test]
fn a_release_answer_longer_than_the_request_is_a_fault() {
    let machine = Machine::new(4);
    let pool = machine.pool(Config {
        initial_bytes: 4 << 20,
        ..Config::default()
    });
    let answer = Released {
        bytes: 64 << 20,
        acknowledged: 0,
    };
    machine.set(|service| service.release_answers = std::vec![Ok(answer)]);
    assert_eq!(pool.give_back().stopped_by, Some(MapError::ServiceFault));
    assert_eq!(pool.statistics().granted_bytes, 0);
}

#[test]
fn a_chunk_granted_anew_before_its_release_is_settled_stays_granted() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    pool.with_state(|state| {
        let old = state.central.withdraw(1).unwrap();
        let new = crate::allocator::Run {
            chunks: old.chunks.clone(),
            grant: old.grant + 1,
        };
        assert!(state.central.accepts(&new));
        state.central.open(&new);
        state.central.forget(&old);
        assert_eq!(state.central.occupancy().granted_chunks, 1);
        assert!(!state.central.accepts(&new), "held");
        assert_eq!(state.central.withdraw(1), Some(new));
    });
}
