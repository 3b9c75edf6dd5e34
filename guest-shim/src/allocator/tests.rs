// SPDX-License-Identifier: MIT OR Apache-2.0
//! The search over chunks, against trying every place.

use proptest::prelude::*;
use std::vec::Vec;

use super::{Allocator, ChunkRecords, Contents, Placement, Run};
use crate::constraints::Constraints;
use crate::geometry::{CHUNK_BYTES, SLOTS_PER_CHUNK, Window};

const BASE: u64 = 0x4020_0000;
const CHUNKS: usize = 9;

/// What a chunk is at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    NotGranted,
    Empty,
    /// Granted; the first slots are free, one behind them is in use.
    FreePrefix(usize),
    Lost,
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![
        Just(Start::NotGranted),
        Just(Start::Empty),
        Just(Start::Empty),
        (0..SLOTS_PER_CHUNK).prop_map(Start::FreePrefix),
        Just(Start::Lost),
    ]
}

/// Brings an allocator into a state.
fn prepare<'a>(window: Window, records: &'a mut [ChunkRecords], starts: &[Start]) -> Allocator<'a> {
    let mut allocator = Allocator::new(window, records);
    for (chunk, start) in starts.iter().enumerate() {
        let run = Run {
            chunks: chunk..chunk + 1,
            grant: 1,
        };
        match *start {
            Start::NotGranted => {}
            Start::Empty => allocator.open(&run),
            Start::FreePrefix(slots) => {
                allocator.open(&run);
                if let Some(records) = allocator.chunk_mut(chunk) {
                    records.take(slots, 1);
                }
            }
            Start::Lost => {
                allocator.open(&run);
                // The only empty chunk of its own grant is the one that is withdrawn.
                let lost = Run { grant: 2, ..run };
                allocator.chunk_mut(chunk).unwrap().open(2);
                allocator
                    .chunk_mut(chunk)
                    .unwrap()
                    .close(super::chunk::ChunkState::Releasing);
                allocator.lose(&lost);
            }
        }
    }
    allocator
}

proptest! {
    #[test]
    fn long_runs_and_what_they_miss_agree_with_trying_every_place(
        starts in proptest::collection::vec(start(), CHUNKS),
        slots in SLOTS_PER_CHUNK + 1..4 * SLOTS_PER_CHUNK,
        align_chunks in prop_oneof![Just(1_u64), Just(2), Just(4)],
        limit in 1..=CHUNKS as u64,
    ) {
        let window = Window::new(BASE, CHUNKS as u64 * CHUNK_BYTES).unwrap();
        let mut records = std::vec![ChunkRecords::EMPTY; CHUNKS];
        let mut allocator = prepare(window, &mut records, &starts);
        let constraints = Constraints {
            min_align_mask: align_chunks * CHUNK_BYTES - 1,
            alignment: 1,
            highest_address: BASE + limit * CHUNK_BYTES - 1,
        };
        // Low bits that are zero: the extent begins at a multiple.
        let Ok(placement) = Placement::new(&window, 1 << 40, slots * 2048, &constraints) else {
            return Ok(());
        };
        let missing_at = |first: usize| -> Option<usize> {
            let address = BASE + first as u64 * CHUNK_BYTES;
            let end = address + slots as u64 * 2048;
            if !address.is_multiple_of(align_chunks * CHUNK_BYTES) || end - 1 > constraints.highest_address {
                return None;
            }
            let mut missing = 0;
            for (index, start) in starts.iter().enumerate().skip(first).take(slots.div_ceil(SLOTS_PER_CHUNK)) {
                let wanted = (slots - (index - first) * SLOTS_PER_CHUNK).min(SLOTS_PER_CHUNK);
                match start {
                    Start::NotGranted => missing += 1,
                    Start::Empty => {}
                    Start::FreePrefix(free) if *free >= wanted => {}
                    Start::FreePrefix(_) | Start::Lost => return None,
                }
            }
            Some(missing)
        };
        let places: Vec<Option<usize>> =
            (0..=CHUNKS - slots.div_ceil(SLOTS_PER_CHUNK)).map(missing_at).collect();
        let best = places.iter().flatten().min();
        prop_assert_eq!(allocator.missing_bytes(&placement), best.map(|&chunks| chunks as u64 * CHUNK_BYTES));
        let lowest = places.iter().position(|missing| *missing == Some(0));
        let ticket = allocator.allocate(&placement, &Contents::SHARED);
        prop_assert_eq!(ticket.map(|ticket| ticket.address), lowest.map(|chunk| window.chunk_address(chunk)));
    }
}
