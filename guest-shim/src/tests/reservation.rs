// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reservations: later maps of the shape cannot fail, whatever else happens.

use std::vec::Vec;

use super::buffer::{Buffer, pattern};
use super::machine::{Machine, map};
use crate::{
    CHUNK_BYTES, Config, Constraints, CopyIn, Direction, MapError, Mapping, Pool, Reservation,
    UnmapError,
};

fn map_reserved(
    pool: &Pool<'_, &Machine>,
    reservation: &Reservation,
    buffer: &Buffer,
    constraints: &Constraints,
) -> Result<Mapping, MapError> {
    let (direction, copy_in) = (Direction::Bidirectional, CopyIn::Keep);
    // SAFETY: A `Buffer`'s memory is never freed.
    unsafe { pool.map_reserved(reservation, buffer.raw(), direction, copy_in, constraints) }
}

#[test]
fn reserved_maps_succeed_in_an_exhausted_pool() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    let reservation = pool.reserve(20, 5000, 4096).unwrap();
    assert_eq!((reservation.count(), reservation.max_length()), (20, 5000));
    let mut ballast = Vec::new();
    for length in [65536, 2048] {
        let buffer = Buffer::new(length);
        while let Ok(mapping) = map(&pool, &buffer, Direction::ToDevice) {
            ballast.push(mapping);
        }
    }
    assert_eq!(pool.statistics().used_bytes, 2 * CHUNK_BYTES);
    let calls = machine.total_calls();
    let nvme = Constraints {
        min_align_mask: 4095,
        ..Constraints::NONE
    };
    for round in 0..3 {
        let buffers: Vec<_> = (0..20)
            .map(|at| Buffer::at_phase(1 + at * 263, 4095, at * 211 + round))
            .collect();
        for (at, buffer) in buffers.iter().enumerate() {
            buffer.write(&pattern(1 + at * 263, at));
        }
        let live: Vec<_> = buffers
            .iter()
            .map(|buffer| map_reserved(&pool, &reservation, buffer, &nvme).unwrap())
            .collect();
        for (at, (mapping, buffer)) in live.iter().zip(&buffers).enumerate() {
            let origin = buffer.raw().addr().get() as u64;
            assert_eq!(mapping.address() & 4095, origin & 4095);
            assert_eq!(
                machine.device_read(mapping.address(), 1 + at * 263),
                pattern(1 + at * 263, at)
            );
        }
        // One more than reserved has to come from the pool at large, which is full.
        let more = map_reserved(&pool, &reservation, &buffers[0], &nvme);
        assert_eq!(more, Err(MapError::CapReached));
        live.iter()
            .for_each(|mapping| pool.unmap(*mapping).unwrap());
        assert_eq!(pool.unmap(live[0]), Err(UnmapError::AlreadyUnmapped));
    }
    assert!(
        machine.total_calls() < calls + 4,
        "only the maps that failed may have asked"
    );
    pool.cancel_reservation(reservation).unwrap();
    ballast
        .into_iter()
        .for_each(|mapping| pool.unmap(mapping).unwrap());
    assert_eq!(pool.statistics().used_bytes, 0);
}

#[test]
fn a_request_of_another_shape_is_refused() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    let reservation = pool.reserve(2, 512, 64).unwrap();
    let cases = [
        (513, Constraints::NONE),
        (512, Constraints::aligned(128)),
        (
            512,
            Constraints {
                min_align_mask: 127,
                ..Constraints::NONE
            },
        ),
        (
            512,
            Constraints {
                highest_address: CHUNK_BYTES,
                ..Constraints::NONE
            },
        ),
        (0, Constraints::NONE),
    ];
    for (length, constraints) in cases {
        let refused = map_reserved(&pool, &reservation, &Buffer::new(length), &constraints);
        assert_eq!(
            refused,
            Err(MapError::InvalidRequest),
            "{length} {constraints:?}"
        );
    }
    // A later attachment over the same window knows nothing of it.
    let later = machine.pool(Config::default());
    let refused = map_reserved(&later, &reservation, &Buffer::new(64), &Constraints::NONE);
    assert_eq!(refused, Err(MapError::InvalidRequest));
    let reservation = later.cancel_reservation(reservation).unwrap_err();
    pool.cancel_reservation(reservation).unwrap();
}

#[test]
fn a_reservation_in_use_is_not_cancelled() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    let reservation = pool.reserve(3, 4096, 1).unwrap();
    let mapping = map_reserved(&pool, &reservation, &Buffer::new(100), &Constraints::NONE).unwrap();
    let reservation = pool.cancel_reservation(reservation).unwrap_err();
    assert_eq!(pool.statistics().used_bytes, 3 * 4096);
    pool.unmap(mapping).unwrap();
    pool.cancel_reservation(reservation).unwrap();
    assert_eq!(pool.statistics().used_bytes, 0);
}

#[test]
fn a_reservation_that_does_not_fit_leaves_nothing_behind() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    for count in [65, 100, usize::MAX] {
        let refused = pool.reserve(count, 65536, 1).map(|_| ());
        assert_eq!(refused, Err(MapError::TooLarge));
    }
    assert_eq!(machine.granted(), 1, "nothing was tried");
    let mapping = map(&pool, &Buffer::new(64), Direction::ToDevice).unwrap();
    let refused = pool.reserve(64, 65536, 1).map(|_| ());
    assert_eq!(refused, Err(MapError::CapReached));
    pool.unmap(mapping).unwrap();
    assert_eq!(pool.statistics().used_bytes, 0);
    let refused = pool.reserve(1, 64, 64 << 20).map(|_| ());
    assert_eq!(refused, Err(MapError::OutOfReach));
    assert_eq!(
        pool.reserve(1, 0, 1).map(|_| ()),
        Err(MapError::InvalidRequest)
    );
    assert_eq!(
        pool.reserve(1, 64, 3).map(|_| ()),
        Err(MapError::InvalidRequest)
    );
    assert_eq!(
        pool.reserve(1, usize::MAX, 4096).map(|_| ()),
        Err(MapError::TooLarge)
    );
    let many: Vec<_> = (0..15).map(|_| pool.reserve(1, 64, 1).unwrap()).collect();
    assert_eq!(
        pool.reserve(1, 64, 1).map(|_| ()),
        Err(MapError::RecordsExhausted)
    );
    many.into_iter()
        .for_each(|reservation| pool.cancel_reservation(reservation).unwrap());
    assert_eq!(pool.statistics().used_bytes, 0);
}

#[test]
fn reserved_runs_longer_than_a_chunk() {
    let machine = Machine::new(8);
    let pool = machine.pool(Config::default());
    let reservation = pool.reserve(2, 5 << 20, 1).unwrap();
    let buffers = [Buffer::filled(5 << 20, 1), Buffer::filled(5 << 20, 2)];
    let live = buffers
        .each_ref()
        .map(|buffer| map_reserved(&pool, &reservation, buffer, &Constraints::NONE).unwrap());
    assert_eq!(
        machine.device_read(live[0].address(), 5 << 20),
        pattern(5 << 20, 1)
    );
    assert_eq!(
        machine.device_read(live[1].address(), 5 << 20),
        pattern(5 << 20, 2)
    );
    live.iter()
        .for_each(|mapping| pool.unmap(*mapping).unwrap());
    pool.cancel_reservation(reservation).unwrap();
    assert_eq!(pool.give_back().stopped_by, None);
    assert_eq!(machine.granted(), 0);
}
