// SPDX-License-Identifier: MIT OR Apache-2.0
//! S2: unmap, sync and free believe only private records, and a refusal changes nothing.

use super::buffer::{Buffer, pattern};
use super::machine::{Machine, map, map_with};
use super::memory::BASE;
use crate::{CHUNK_BYTES, Config, Constraints, CopyIn, Direction, Mapping, Pool, UnmapError};

fn unchanged(
    pool: &Pool<'_, &Machine>,
    misuse: impl FnOnce() -> Result<(), UnmapError>,
) -> UnmapError {
    let before = pool.statistics();
    let error = misuse().unwrap_err();
    assert_eq!(pool.statistics(), before, "{error:?} changed something");
    error
}

#[test]
fn s2_by_handle_every_misuse_is_detected() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    let buffer = Buffer::filled(3000, 1);
    let first = map(&pool, &buffer, Direction::Bidirectional).unwrap();
    pool.unmap(first).unwrap();
    let check_all = |mapping: &Mapping, expected: UnmapError| {
        assert_eq!(unchanged(&pool, || pool.unmap(*mapping)), expected);
        assert_eq!(
            unchanged(&pool, || pool.unmap_written(*mapping, 1)),
            expected
        );
        assert_eq!(
            unchanged(&pool, || pool.sync_for_cpu(mapping, 0, 1)),
            expected
        );
        assert_eq!(
            unchanged(&pool, || pool.sync_for_device(mapping, 0, 1)),
            expected
        );
    };
    check_all(&first, UnmapError::AlreadyUnmapped);

    // The same slot, length and direction: only the generation tells.
    let second = map(&pool, &buffer, Direction::Bidirectional).unwrap();
    assert_eq!(second.address(), first.address());
    check_all(&first, UnmapError::StaleHandle);
    machine.device_write(second.address(), &pattern(3000, 2));
    pool.unmap(second).unwrap();
    assert_eq!(buffer.read(), pattern(3000, 2));
    check_all(&first, UnmapError::StaleHandle);
    check_all(&second, UnmapError::AlreadyUnmapped);

    // In free memory, and in the middle of something larger.
    pool.give_back();
    check_all(&first, UnmapError::StaleHandle);
    check_all(&second, UnmapError::AlreadyUnmapped);
    let large = map(&pool, &Buffer::new(2 << 20), Direction::ToDevice).unwrap();
    assert!(large.address() < second.address());
    for _ in 0..3 {
        // Whatever generation the larger one has.
        let error = unchanged(&pool, || pool.unmap(second));
        assert!(matches!(
            error,
            UnmapError::StaleHandle | UnmapError::UnknownAddress | UnmapError::AlreadyUnmapped
        ));
        pool.unmap(large).unwrap_or_default();
    }
}

#[test]
fn s2_a_forged_handle_is_refused() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    let mapping = map(&pool, &Buffer::new(5000), Direction::FromDevice).unwrap();
    let longer = Mapping {
        length: 6000,
        ..mapping
    };
    assert_eq!(
        unchanged(&pool, || pool.unmap(longer)),
        UnmapError::WrongLength
    );
    let reversed = Mapping {
        direction: Direction::ToDevice,
        ..mapping
    };
    assert_eq!(
        unchanged(&pool, || pool.unmap(reversed)),
        UnmapError::WrongDirection
    );
    let mut moved = mapping;
    moved.address = 0x1000;
    assert_eq!(
        unchanged(&pool, || pool.unmap(moved)),
        UnmapError::UnknownAddress
    );
    moved.address = mapping.address() + 1;
    assert_eq!(
        unchanged(&pool, || pool.unmap(moved)),
        UnmapError::UnknownAddress
    );
    assert_eq!(
        unchanged(&pool, || pool.unmap_written(mapping, 5001)),
        UnmapError::OutOfRange
    );
    pool.unmap_written(mapping, 5000).unwrap();
}

#[test]
fn s2_by_address_every_misuse_but_an_identical_reuse_is_detected() {
    let machine = Machine::new(4);
    let pool = machine.pool(Config::default());
    let by_address = |address, length, direction| {
        unchanged(&pool, || pool.unmap_address(address, length, direction))
    };
    let to = Direction::ToDevice;
    assert_eq!(by_address(BASE, 64, to), UnmapError::UnknownAddress);
    let mapping = map(&pool, &Buffer::new(5000), to).unwrap();
    let address = mapping.address();
    for foreign in [
        0,
        BASE - 1,
        BASE + 4 * CHUNK_BYTES,
        u64::MAX,
        address + 1,
        address + 2048,
    ] {
        assert_eq!(
            by_address(foreign, 5000, to),
            UnmapError::UnknownAddress,
            "{foreign:#x}"
        );
    }
    assert_eq!(by_address(address, 4999, to), UnmapError::WrongLength);
    assert_eq!(by_address(address, u64::MAX, to), UnmapError::WrongLength);
    assert_eq!(
        by_address(address, 5000, Direction::FromDevice),
        UnmapError::WrongDirection
    );
    pool.unmap_address(address, 5000, to).unwrap();
    assert_eq!(by_address(address, 5000, to), UnmapError::AlreadyUnmapped);
    assert_eq!(
        unchanged(&pool, || pool.unmap(mapping)),
        UnmapError::AlreadyUnmapped
    );
}

#[test]
fn mappings_and_shared_buffers_are_not_mistaken_for_each_other() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    let mapping = map(&pool, &Buffer::new(4096), Direction::Bidirectional).unwrap();
    let shared = pool.alloc_shared(4096, 1).unwrap();
    let as_mapping = unchanged(&pool, || {
        pool.unmap_address(shared.address(), 4096, Direction::Bidirectional)
    });
    assert_eq!(as_mapping, UnmapError::WrongDirection);
    // SAFETY: Refused, and no buffer object is behind it.
    let as_shared = unchanged(&pool, || unsafe {
        pool.free_shared_address(mapping.address(), 4096)
    });
    assert_eq!(as_shared, UnmapError::WrongDirection);
    let other_machine = Machine::new(2);
    let other = other_machine.pool(Config::default());
    assert_eq!(other.free_shared(shared), Err(UnmapError::StaleHandle));
    pool.unmap(mapping).unwrap();
}

#[test]
fn a_mapping_that_another_context_ends_is_busy() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    let mapping = map(&pool, &Buffer::new(64), Direction::FromDevice).unwrap();
    let found = pool.find(&mapping.expected()).unwrap();
    found.claim().unwrap();
    assert_eq!(found.claim(), Err(UnmapError::Busy));
    assert_eq!(found.share(), Err(UnmapError::Busy));
    assert_eq!(unchanged(&pool, || pool.unmap(mapping)), UnmapError::Busy);
    assert_eq!(
        unchanged(&pool, || pool.sync_for_cpu(&mapping, 0, 8)),
        UnmapError::Busy
    );
}

#[test]
fn a_mapping_that_others_sync_is_busy_for_an_unmap_and_not_for_a_sync() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    for length in [64, 5000, 70_000] {
        let mapping = map(&pool, &Buffer::new(length), Direction::FromDevice).unwrap();
        let found = pool.find(&mapping.expected()).unwrap();
        for _ in 0..61 {
            pool.sync_for_cpu(&mapping, 0, 8).unwrap();
            pool.sync_address_for_cpu(mapping.address() + 8, 8).unwrap();
            found.share().unwrap();
            let (address, bytes) = (mapping.address(), length as u64);
            let by_address = || pool.unmap_address(address, bytes, Direction::FromDevice);
            assert_eq!(unchanged(&pool, || pool.unmap(mapping)), UnmapError::Busy);
            assert_eq!(unchanged(&pool, by_address), UnmapError::Busy);
        }
        assert_eq!(
            unchanged(&pool, || pool.sync_for_cpu(&mapping, 0, 8)),
            UnmapError::TooManySyncs
        );
        (0..61).for_each(|_| found.place.record.unshare());
        pool.unmap(mapping).unwrap();
    }
}

/// The same address served by the record of another unit: an extent, and one that begins a unit earlier.
#[test]
fn s2_a_stale_handle_is_detected_where_its_unit_is_no_longer_the_first() {
    let machine = Machine::new(2);
    let pool = machine.pool(Config::default());
    let to = Direction::ToDevice;
    for (length, mask, shared_alignment) in [(20_000, 8191, 8192), (1500, 4095, 1)] {
        let phase = if length == 1500 { 2048 } else { 4096 };
        let buffer = Buffer::at_phase(length, 8191, phase);
        let masked = |alignment| Constraints {
            min_align_mask: mask,
            ..Constraints::aligned(alignment)
        };
        let mut old: std::vec::Vec<Mapping> = std::vec::Vec::new();
        for round in 0..6 {
            let alignment = if round % 2 == 0 { 1 } else { shared_alignment };
            let mapping = map_with(&pool, &buffer, to, CopyIn::Keep, &masked(alignment)).unwrap();
            for stale in &old {
                assert_ne!(*stale, mapping, "two handles that nobody can tell apart");
                pool.unmap(*stale).unwrap_err();
            }
            pool.unmap(mapping).unwrap();
            old.push(mapping);
            pool.maintain();
            // Another kind of room in between.
            let other = map(&pool, &Buffer::new(2048), to).unwrap();
            pool.unmap(other).unwrap();
            pool.give_back();
        }
    }
}
