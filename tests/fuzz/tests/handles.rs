// SPDX-License-Identifier: MIT OR Apache-2.0
//! A handle that has ended is never taken for what comes after it, whatever its address becomes part of.

use fuzz::driver_buffer::DriverBuffer;
use fuzz::machine::Machine;
use guest_shim::{
    CHUNK_BYTES, Config, Constraints, CopyIn, Direction, Mapping, Pool, metadata_bytes_with_small,
};

const FROM: Direction = Direction::FromDevice;

/// One length at one offset from a page, and a mapping of it.
struct Shape {
    length: usize,
    offset: usize,
    constraints: Constraints,
}

impl Shape {
    fn map(&self, pool: &Pool<'_, &Machine>) -> Option<(Mapping, DriverBuffer)> {
        let buffer = DriverBuffer::new(&vec![1; self.length], 4095, self.offset);
        let mapping = buffer
            .map(pool, FROM, CopyIn::DeviceWritten, &self.constraints)
            .ok()?;
        Some((mapping, buffer))
    }
}

/// Fills a pool with one shape, ends all of it, fills it with another one, and tries the old handles.
fn old_handles_after(first: &Shape, second: &Shape) {
    let machine = Machine::new(1, 255);
    machine.stop_watching();
    let small = if cfg!(miri) { 64 } else { 32_768 };
    let mut metadata = vec![0; metadata_bytes_with_small(CHUNK_BYTES, 1, small)];
    let pool = Pool::attach(&machine, &mut metadata, Config::default()).unwrap();
    let most = if cfg!(miri) { 40 } else { 40_000 };
    let old: Vec<_> = std::iter::from_fn(|| first.map(&pool)).take(most).collect();
    for (mapping, _) in &old {
        pool.unmap(*mapping).unwrap();
    }
    // Slots that wait in a cache would keep what lies round them what it is.
    pool.maintain();
    let new: Vec<_> = std::iter::from_fn(|| second.map(&pool))
        .take(most)
        .collect();
    for (mapping, _) in &old {
        let taken = pool.unmap(*mapping);
        assert!(
            taken.is_err(),
            "{mapping:x?} has ended, and ends something else now"
        );
    }
    for (mapping, _) in &new {
        pool.unmap(*mapping).unwrap();
    }
    machine.close();
}

/// All pairs; under Miri one.
fn after_each_other(shapes: &[Shape]) {
    let pairs = shapes
        .iter()
        .flat_map(|first| shapes.iter().map(move |second| (first, second)));
    let (skipped, most) = if cfg!(miri) {
        (shapes.len(), 1)
    } else {
        (0, usize::MAX)
    };
    for (first, second) in pairs.skip(skipped).take(most) {
        old_handles_after(first, second);
    }
}

#[test]
fn an_old_handle_stays_stale_whatever_its_address_becomes_part_of() {
    let shapes: Vec<Shape> = [
        // Slots at the address itself.
        (2048, 0, 0, 1),
        (2048, 0, 0, 2048),
        // The second half of a slot of 4 KiB, and of larger ones.
        (2048, 2048, 4095, 1),
        (2048, 2048, 4095, 4096),
        // The second unit of an extent of 64 KiB.
        (2048, 2048, 4095, 65_536),
        // A slot of two units that begins in the middle of one.
        (2048, 1024, 4095, 1),
    ]
    .into_iter()
    .map(|(length, offset, min_align_mask, alignment)| Shape {
        length,
        offset,
        constraints: Constraints {
            min_align_mask,
            alignment,
            ..Constraints::NONE
        },
    })
    .collect();
    after_each_other(&shapes);
}

#[test]
fn an_old_handle_of_a_small_slot_stays_stale() {
    let shape = |length, offset, min_align_mask| Shape {
        length,
        offset,
        constraints: Constraints {
            min_align_mask,
            ..Constraints::NONE
        },
    };
    // 64 bytes at all the places in units at which slots of other classes begin, or mappings in them.
    let shapes = [
        shape(64, 0, 0),
        shape(64, 64, 127),
        shape(64, 512, 1023),
        shape(64, 512, 4095),
        shape(64, 2048, 4095),
    ];
    after_each_other(&shapes);
}
