// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lists against a plain array of free units.
#![expect(clippy::cast_possible_truncation, reason = "small numbers of tests")]

use proptest::prelude::*;
use std::vec::Vec;

use super::*;
use crate::allocator::record::Record;
use crate::allocator::start::tests::{Wish, wish};
use crate::atomic::AtomicU16;
use crate::tests::cases;

const UNITS: usize = if cfg!(miri) { 1100 } else { 3000 };
const STEPS: usize = if cfg!(miri) { 12 } else { 150 };

/// The lists, and which units are free.
struct Model {
    tables: Tables<'static>,
    blocks: FreeBlocks<'static>,
    free: [bool; UNITS],
    taken: Vec<(u32, u32)>,
}

impl Model {
    fn new() -> Self {
        let tags: Vec<_> = (0..UNITS).map(|_| AtomicU16::new(0)).collect();
        let records: Vec<_> = (0..UNITS).map(|_| Record::unused()).collect();
        let mut model = Self {
            tables: Tables::new(Vec::leak(tags), Vec::leak(records), &[]),
            blocks: FreeBlocks::new(Vec::leak(std::vec![[0; RANGES]; doublings(UNITS as u32)])),
            free: [false; UNITS],
            taken: Vec::new(),
        };
        model.put(0, UNITS as u32);
        model
    }

    fn put(&mut self, first: u32, length: u32) {
        let block = self.blocks.put(&self.tables, first, length);
        self.free[first as usize..][..length as usize].fill(true);
        let before = &self.free[..first as usize];
        let begins = before
            .iter()
            .rposition(|free| !free)
            .map_or(0, |last| last + 1);
        assert_eq!(block as usize, begins);
    }

    /// First units and lengths of the maximal free runs.
    fn runs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let begins = |unit: &usize| self.free[*unit] && (*unit == 0 || !self.free[*unit - 1]);
        (0..UNITS).filter(begins).map(|first| {
            let length = self.free[first..].iter().take_while(|free| **free).count();
            (first, length)
        })
    }

    fn take(&mut self, length: u32, start: Start, side: Side) {
        let Start { mask, phase, .. } = start;
        self.take_where(length, start, side, |unit| unit & mask == phase);
    }

    /// Takes a run; `allows` says of each unit whether it may begin there.
    fn take_where(&mut self, length: u32, start: Start, side: Side, allows: impl Fn(u32) -> bool) {
        let taken = self.blocks.take(&self.tables, length, start, side);
        match taken {
            Some(first) => {
                assert!(allows(first), "{first}");
                let units = &mut self.free[first as usize..][..length as usize];
                assert!(units.iter().all(|free| *free), "handed out twice");
                units.fill(false);
                self.taken.push((first, length));
            }
            None => {
                let fits = |(first, free): (usize, usize)| {
                    (first..=(first + free).saturating_sub(length as usize))
                        .any(|unit| free >= length as usize && allows(unit as u32))
                };
                // Blocks that are looked at before the search ends.
                let probes = if start.slack() == 0 {
                    PROBES
                } else {
                    ALIGNED_PROBES
                };
                let shortest = length - length / 16;
                let candidates = self.runs().filter(|run| run.1 >= shortest as usize).count();
                assert!(
                    !self.runs().any(fits) || candidates > probes as usize,
                    "{length} units are free, of {candidates} blocks that were looked at"
                );
            }
        }
    }

    /// Every maximal free run is one block with its marks, and nothing else is.
    fn check(&self) {
        let mut unit = 0;
        let mut free = 0;
        while unit < UNITS {
            let length = self.free[unit..].iter().take_while(|free| **free).count();
            let kind = |unit: usize| self.tables.tag(unit as u32).kind();
            match length {
                0 => assert_eq!(kind(unit), UnitKind::Body),
                1 => assert_eq!(kind(unit), UnitKind::FreeSingle),
                _ => {
                    assert_eq!(
                        (kind(unit), kind(unit + length - 1)),
                        (UnitKind::FreeHead, UnitKind::FreeTail)
                    );
                    assert_eq!(length_of(&self.tables, unit as u32) as usize, length);
                    assert!((unit + 1..unit + length - 1).all(|unit| kind(unit) == UnitKind::Body));
                }
            }
            free += length;
            unit += length.max(1);
        }
        assert_eq!(self.blocks.units() as usize, free);
    }
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn random_use_agrees_with_an_array(
        steps in proptest::collection::vec((any::<bool>(), 1_u32..140, 0_u32..5, any::<u32>()), 1..STEPS),
    ) {
        let mut model = Model::new();
        for (take, length, align, pick) in steps {
            if take || model.taken.is_empty() {
                let mask = (1 << align) - 1;
                let side = if pick % 2 == 0 { Side::Low } else { Side::High };
                let start = Start { phase: pick & mask, ..Start::multiple_of(mask + 1) };
                model.take(length, start, side);
            } else {
                let (first, length) = model.taken.swap_remove(pick as usize % model.taken.len());
                model.put(first, length);
            }
            model.check();
        }
    }

    /// With more taken than given back, so that what is free is short and lies anyhow.
    #[test]
    fn runs_with_boundaries_are_found_where_an_array_has_room(
        fill in proptest::collection::vec(1_u32..60, 30..60),
        steps in proptest::collection::vec((0_u32..3, wish(), any::<u32>()), 1..STEPS),
    ) {
        let mut model = Model::new();
        fill.into_iter().for_each(|length| model.take(length, Start::ANY, Side::Low));
        for (what, wish, pick) in steps {
            if what < 2 || model.taken.is_empty() {
                let Wish { length, .. } = wish;
                let side = if pick % 2 == 0 { Side::Low } else { Side::High };
                model.take_where(length, wish.start(), side, |unit| wish.allows(unit));
            } else {
                let (first, length) = model.taken.swap_remove(pick as usize % model.taken.len());
                model.put(first, length);
            }
            model.check();
        }
    }
}

#[test]
fn the_exact_length_is_found_where_no_longer_list_has_a_block() {
    let mut model = Model::new();
    // Leaves one hole of 33 units, which is below the first list that holds 33 and more for certain.
    model.take(100, Start::ANY, Side::Low);
    model.take(33, Start::ANY, Side::Low);
    model.take(UNITS as u32 - 133, Start::ANY, Side::Low);
    let (first, length) = model.taken[1];
    model.put(first, length);
    model.check();
    assert_eq!(
        model.blocks.take(&model.tables, 33, Start::ANY, Side::Low),
        Some(first)
    );
}

#[test]
fn an_aligned_run_is_found_in_a_block_that_is_just_long_enough() {
    let mut model = Model::new();
    let aligned = Start::multiple_of(64);
    model.take(UNITS as u32, Start::ANY, Side::Low);
    // Blocks of several lists that lie badly, and one that lies well.
    for (first, length) in [(1, 66), (130, 70), (257, 100), (640, 64), (1000, 80)] {
        model.put(first, length);
    }
    assert_eq!(
        model.blocks.take(&model.tables, 64, aligned, Side::Low),
        Some(640)
    );
    assert_eq!(
        model.blocks.take(&model.tables, 64, aligned, Side::Low),
        None
    );
}

#[test]
fn sides_keep_apart() {
    let mut model = Model::new();
    model.take(10, Start::ANY, Side::Low);
    model.take(10, Start::ANY, Side::High);
    assert_eq!(model.taken, [(0, 10), (UNITS as u32 - 10, 10)]);
    assert_eq!(
        model
            .blocks
            .take(&model.tables, 0xffff_ffff, Start::multiple_of(4), Side::Low),
        None
    );
}
