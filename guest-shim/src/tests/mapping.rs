// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a mapping does: bytes, directions, constraints, syncs, shared buffers.

use core::sync::atomic::Ordering;

use super::buffer::{Buffer, pattern};
use super::machine::{Machine, map, map_with};
use super::memory::BASE;
use crate::{CHUNK_BYTES, Config, Constraints, CopyIn, Direction, MapError, UnmapError};

const SIZES: [usize; 9] = [1, 64, 1500, 2048, 2049, 4096, 65536, 300_000, 3 << 20];

#[test]
fn s3_a_device_sees_the_buffer_and_the_buffer_gets_what_the_device_wrote() {
    let machine = Machine::new(8);
    let pool = machine.pool(Config::default());
    for length in SIZES {
        for direction in [
            Direction::ToDevice,
            Direction::FromDevice,
            Direction::Bidirectional,
        ] {
            let buffer = Buffer::filled(length, 1);
            let mapping = map(&pool, &buffer, direction).unwrap();
            assert_eq!(
                (mapping.length(), mapping.direction()),
                (length as u64, direction)
            );
            assert_eq!(
                machine.device_read(mapping.address(), length),
                pattern(length, 1)
            );
            machine.device_write(mapping.address(), &pattern(length, 2));
            assert_eq!(buffer.read(), pattern(length, 1));
            pool.unmap(mapping).unwrap();
            let expected = if direction.device_writes() { 2 } else { 1 };
            assert_eq!(
                buffer.read(),
                pattern(length, expected),
                "{length} {direction:?}"
            );
        }
    }
    assert_eq!(pool.statistics().used_bytes, 0);
}

#[test]
fn s3_copies_are_exactly_as_long_as_the_mapping() {
    let machine = Machine::new(4);
    let pool = machine.pool(Config::default());
    let buffer = Buffer::filled(1500, 1);
    let mapping = map(&pool, &buffer, Direction::Bidirectional).unwrap();
    let behind = machine.device_read(mapping.address() + 1500, 548);
    assert!(
        behind.iter().all(|&byte| byte == 0x77),
        "bytes behind the mapping were written"
    );
    pool.unmap(mapping).unwrap();
    assert_eq!(machine.copied_in.load(Ordering::Relaxed), 1500);
    assert_eq!(machine.copied_out.load(Ordering::Relaxed), 1500);
    let statistics = pool.statistics();
    assert_eq!((statistics.bytes_in, statistics.bytes_out), (1500, 1500));
    assert_eq!(
        (statistics.maps, statistics.unmaps, statistics.failures),
        (1, 1, 0)
    );
}

#[test]
fn keep_preserves_what_the_device_leaves_alone() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    let buffer = Buffer::filled(4096, 1);
    let mapping = map(&pool, &buffer, Direction::FromDevice).unwrap();
    machine.device_write(mapping.address(), &[9; 100]);
    pool.unmap(mapping).unwrap();
    assert_eq!(buffer.read()[..100], [9; 100]);
    assert_eq!(buffer.read()[100..], pattern(4096, 1)[100..]);
}

#[test]
fn device_written_discloses_nothing_and_brings_back_only_what_was_written() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    let buffer = Buffer::filled(4096, 1);
    let device_written = || {
        map_with(
            &pool,
            &buffer,
            Direction::FromDevice,
            CopyIn::DeviceWritten,
            &Constraints::NONE,
        )
    };

    let mapping = device_written().unwrap();
    assert_ne!(
        machine.device_read(mapping.address(), 4096),
        pattern(4096, 1)
    );
    assert_eq!(machine.copied_in.load(Ordering::Relaxed), 0);
    machine.device_write(mapping.address(), &pattern(4096, 2));
    pool.unmap_written(mapping, 1000).unwrap();
    assert_eq!(buffer.read()[..1000], pattern(4096, 2)[..1000]);
    assert_eq!(buffer.read()[1000..], pattern(4096, 1)[1000..]);

    // Without a length nothing is known to be the device's.
    buffer.write(&pattern(4096, 1));
    let mapping = device_written().unwrap();
    machine.device_write(mapping.address(), &pattern(4096, 3));
    pool.unmap(mapping).unwrap();
    assert_eq!(buffer.read(), pattern(4096, 1));

    let mapping = device_written().unwrap();
    machine.device_write(mapping.address(), &pattern(4096, 4));
    pool.sync_for_cpu(&mapping, 8, 8).unwrap();
    assert_eq!(buffer.read()[8..16], pattern(4096, 4)[8..16]);
    assert_eq!(buffer.read()[16..], pattern(4096, 1)[16..]);
    pool.unmap_address_written(mapping.address(), 4096, Direction::FromDevice, 0)
        .unwrap();
}

#[test]
fn device_written_is_refused_where_the_device_reads() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    let buffer = Buffer::new(64);
    for direction in [Direction::ToDevice, Direction::Bidirectional] {
        let refused = map_with(
            &pool,
            &buffer,
            direction,
            CopyIn::DeviceWritten,
            &Constraints::NONE,
        );
        assert_eq!(refused, Err(MapError::InvalidRequest));
    }
    assert_eq!(
        map(&pool, &Buffer::new(0), Direction::ToDevice),
        Err(MapError::InvalidRequest)
    );
    let statistics = pool.statistics();
    assert_eq!(statistics.failures, 3);
    for cause in MapError::ALL {
        let expected = if cause == MapError::InvalidRequest {
            3
        } else {
            0
        };
        assert_eq!(statistics.failures_for(cause), expected, "{cause:?}");
    }
    assert_eq!(pool.statistics().used_bytes, 0);
}

#[test]
fn partial_syncs_touch_exactly_their_bytes() {
    let machine = Machine::new(8);
    let pool = machine.pool(Config::default());
    for length in [64, 5000, 3 << 20] {
        let buffer = Buffer::filled(length, 1);
        let mapping = map(&pool, &buffer, Direction::Bidirectional).unwrap();
        let (offset, part) = (length / 3, length / 2 + 1);
        machine.device_write(mapping.address(), &pattern(length, 2));
        pool.sync_for_cpu(&mapping, offset as u64, part as u64)
            .unwrap();
        let mut expected = pattern(length, 1);
        expected[offset..offset + part].copy_from_slice(&pattern(length, 2)[offset..offset + part]);
        assert_eq!(buffer.read(), expected);

        buffer.write(&pattern(length, 3));
        pool.sync_for_device(&mapping, offset as u64, part as u64)
            .unwrap();
        let mut expected = pattern(length, 2);
        expected[offset..offset + part].copy_from_slice(&pattern(length, 3)[offset..offset + part]);
        assert_eq!(machine.device_read(mapping.address(), length), expected);

        let end = length as u64;
        for (offset, part) in [(0, end + 1), (end, 1), (u64::MAX, 2), (1, u64::MAX)] {
            assert_eq!(
                pool.sync_for_cpu(&mapping, offset, part),
                Err(UnmapError::OutOfRange)
            );
            assert_eq!(
                pool.sync_for_device(&mapping, offset, part),
                Err(UnmapError::OutOfRange)
            );
        }
        pool.sync_for_cpu(&mapping, end, 0).unwrap();
        pool.unmap(mapping).unwrap();
    }
}

#[test]
fn syncs_against_the_direction_copy_nothing() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    let buffer = Buffer::filled(512, 1);
    let mapping = map(&pool, &buffer, Direction::FromDevice).unwrap();
    machine.device_write(mapping.address(), &pattern(512, 2));
    pool.sync_for_device(&mapping, 0, 512).unwrap();
    assert_eq!(machine.device_read(mapping.address(), 512), pattern(512, 2));
    pool.unmap(mapping).unwrap();
    let mapping = map(&pool, &buffer, Direction::ToDevice).unwrap();
    machine.device_write(mapping.address(), &pattern(512, 3));
    pool.sync_for_cpu(&mapping, 0, 512).unwrap();
    assert_eq!(buffer.read(), pattern(512, 2));
    pool.unmap(mapping).unwrap();
}

#[test]
fn alignment_low_bits_and_address_limit_hold_together() {
    let machine = Machine::new(16);
    let pool = machine.pool(Config {
        initial_bytes: 8 << 20,
        ..Config::default()
    });
    let mut live = std::vec::Vec::new();
    for mask in [0, 511, 4095, 65535, (4 << 20) - 1] {
        for alignment in [1, 512, 4096, 65536, 2 << 20, 4 << 20] {
            for length in [1, 4000, 70_000, 2 << 20] {
                let buffer = Buffer::at_phase(length, mask, 0x2_3456_789a);
                let highest_address = BASE + 30 * (1 << 20) - 1;
                let constraints = Constraints {
                    min_align_mask: mask as u64,
                    alignment,
                    highest_address,
                    boundary: 0,
                };
                let mapping = map_with(
                    &pool,
                    &buffer,
                    Direction::ToDevice,
                    CopyIn::Keep,
                    &constraints,
                );
                let Ok(mapping) = mapping else {
                    assert_eq!(
                        mapping.err(),
                        Some(MapError::NoContiguousRun),
                        "{constraints:?}"
                    );
                    continue;
                };
                let address = mapping.address();
                let origin = buffer.raw().addr().get() as u64;
                assert_eq!(
                    address & mask as u64,
                    origin & mask as u64,
                    "{constraints:?} {length}"
                );
                if mask == 0 {
                    assert_eq!(address % alignment, 0);
                }
                assert!(address + length as u64 - 1 <= highest_address);
                // Nothing else shares a unit of the alignment with it.
                let extent = address & !(alignment - 1)
                    ..(address + length as u64).next_multiple_of(alignment);
                live.push((mapping, extent));
                if live.len() > 3 {
                    pool.unmap(live.remove(0).0).unwrap();
                }
                for (index, (_, one)) in live.iter().enumerate() {
                    for (_, other) in &live[index + 1..] {
                        assert!(one.end <= other.start || other.end <= one.start);
                    }
                }
            }
        }
    }
    assert!(pool.statistics().maps > 60, "{:?}", pool.statistics());
    live.into_iter()
        .for_each(|(mapping, _)| pool.unmap(mapping).unwrap());
    assert_eq!(pool.statistics().used_bytes, 0);
}

#[test]
fn one_mapping_can_be_the_whole_window() {
    let machine = Machine::new(8);
    let pool = machine.pool(Config::default());
    let length = 16 << 20;
    let buffer = Buffer::filled(length, 5);
    let mapping = map(&pool, &buffer, Direction::Bidirectional).unwrap();
    assert_eq!(mapping.address(), BASE);
    assert_eq!(machine.device_read(BASE, length), pattern(length, 5));
    assert_eq!(
        map(&pool, &Buffer::new(1), Direction::ToDevice),
        Err(MapError::CapReached)
    );
    pool.unmap(mapping).unwrap();
    assert_eq!(
        map(&pool, &Buffer::new(length + 1), Direction::ToDevice),
        Err(MapError::TooLarge)
    );
}

#[test]
fn shared_buffers_are_zeroed_even_over_old_bytes() {
    let machine = Machine::new(4);
    let pool = machine.pool(Config::default());
    for (length, align) in [(64, 1), (4096, 4096), (3 << 20, 4096)] {
        let mapping = map(&pool, &Buffer::filled(length, 3), Direction::ToDevice).unwrap();
        pool.unmap(mapping).unwrap();
        let mut shared = pool.alloc_shared(length, align).unwrap();
        assert_eq!(
            shared.address(),
            mapping.address(),
            "the same memory is used again"
        );
        assert_eq!((shared.length(), shared.address() % align), (length, 0));
        assert!(
            machine
                .device_read(shared.address(), length)
                .iter()
                .all(|&byte| byte == 0)
        );
        shared.write(length - 3, &[1, 2, 3]).unwrap();
        let mut bytes = [0; 4];
        shared.read(length - 4, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 1, 2, 3]);
        assert_eq!(
            shared.write(length - 3, &[0; 4]),
            Err(UnmapError::OutOfRange)
        );
        assert_eq!(
            shared.read(usize::MAX, &mut bytes),
            Err(UnmapError::OutOfRange)
        );
        assert_eq!(pool.statistics().shared_buffers, 1);
        pool.free_shared(shared).unwrap();
    }
    assert_eq!(
        (
            pool.statistics().used_bytes,
            pool.statistics().shared_buffers
        ),
        (0, 0)
    );
    assert!(
        pool.contains(BASE) && !pool.contains(BASE - 1) && !pool.contains(BASE + 4 * CHUNK_BYTES)
    );
}
