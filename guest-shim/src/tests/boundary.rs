// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices with a segment boundary in the window: how much room they get of what there is.

use std::vec::Vec;

use super::buffer::Buffer;
use super::machine::{Machine, map, map_with};
use super::memory::BASE;
use crate::{CHUNK_BYTES, Config, Constraints, CopyIn, Direction, MapError, Mapping, Pool};

const TO: Direction = Direction::ToDevice;
const MIB: u64 = 1 << 20;

fn map_within(
    pool: &Pool<'_, &Machine>,
    buffer: &Buffer,
    boundary: u64,
) -> Result<Mapping, MapError> {
    let constraints = Constraints {
        boundary,
        ..Constraints::NONE
    };
    map_with(pool, buffer, TO, CopyIn::Keep, &constraints)
}

/// Maps until there is no room.
fn fill(pool: &Pool<'_, &Machine>, buffer: &Buffer, boundary: u64) -> Vec<Mapping> {
    let all: Vec<_> = core::iter::from_fn(|| map_within(pool, buffer, boundary).ok()).collect();
    for mapping in &all {
        assert!(!crosses(mapping.address(), mapping.length(), boundary));
    }
    all
}

const fn crosses(address: u64, length: u64, boundary: u64) -> bool {
    address / boundary != (address + length - 1) / boundary
}

#[test]
fn mappings_lie_side_by_side_between_two_boundaries() {
    let machine = Machine::new(4);
    let pool = machine.pool(Config::default());
    for (length, boundary, fits) in [
        // Three of ten units in 32 each.
        (20_000, 65_536, 4 * 32 * 3),
        (65_536, 65_536, 4 * 32),
        // Three of 342 units in 1026 would be one too many; of 341 they are not.
        (341 * 2048, 2 * MIB, 4 * 3),
        (342 * 2048, 2 * MIB, 4 * 2),
        // Between 0x4040_0000 and 0x4080_0000; on either side of that there are two MiB.
        (3 * MIB, 4 * MIB, 1),
    ] {
        let buffer = Buffer::new(usize::try_from(length).unwrap());
        let all = fill(&pool, &buffer, boundary);
        assert_eq!(all.len(), fits, "{length} within {boundary:#x}");
        all.into_iter()
            .for_each(|mapping| pool.unmap(mapping).unwrap());
    }
}

#[test]
fn holes_across_a_boundary_hide_no_hole_that_is_not() {
    let machine = Machine::new(8);
    let pool = machine.pool(Config::default());
    // Eleven units each; every second is freed. More lie across a boundary than the lists are searched for.
    let comb = Buffer::new(22_528);
    let all: Vec<_> = core::iter::from_fn(|| map(&pool, &comb, TO).ok()).collect();
    let freed: Vec<_> = all.into_iter().step_by(2).collect();
    for mapping in &freed {
        pool.unmap(*mapping).unwrap();
    }
    let fits =
        |hole: &Mapping| (0..2).any(|unit| !crosses(hole.address() + unit * 2048, 20_000, 65_536));
    let (good, bad): (Vec<_>, Vec<_>) = freed.into_iter().partition(fits);
    assert!(bad.len() > 64, "{}", bad.len());
    let calls = machine.total_calls();
    let buffer = Buffer::new(20_000);
    let all = fill(&pool, &buffer, 65_536);
    // What is left behind the comb is not counted.
    assert!(all.len() >= good.len(), "{} of {}", all.len(), good.len());
    // S4: all chunks are granted.
    assert_eq!(machine.total_calls(), calls);
    assert_eq!(
        map_within(&pool, &buffer, 65_536),
        Err(MapError::NoContiguousRun)
    );
}

#[test]
fn a_pool_that_grows_for_a_boundary_grows_beyond_it() {
    let machine = Machine::new(16);
    let pool = machine.pool(Config::default());
    let first = map(&pool, &Buffer::new(2 << 20), TO).unwrap();
    assert_eq!((first.address(), machine.granted()), (BASE, 1));
    // Five MiB from the second chunk on would lie across 0x4080_0000, which is the fourth one's beginning.
    let buffer = Buffer::new(5 << 20);
    let second = map_within(&pool, &buffer, 8 * MIB).unwrap();
    assert_eq!(second.address(), BASE + 3 * CHUNK_BYTES);
    assert_eq!(pool.statistics().growths, 2);
    // What was granted on the way there is used.
    let third = map_within(&pool, &Buffer::new(4 << 20), 8 * MIB).unwrap();
    assert_eq!(third.address(), BASE + CHUNK_BYTES);
    assert_eq!(pool.statistics().growths, 2);
}
