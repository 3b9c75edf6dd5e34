// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was measured.

use crate::driver::pair::{self, Cell, Size};
use crate::driver::{burst, capacity, failing, selftest};

/// The name of the shim with its default metadata.
pub const SHIM: &str = "guest_shim";
/// The name of the shim with records for small slots.
pub const SHIM_SMALL: &str = "guest_shim_small";
/// The limit that figures are compared with.
pub const LIMIT: &str = "memcpy_hot";

/// One measurement: whose, of what, in which round, and what came out.
#[derive(Clone, Debug)]
pub struct Row<Of, Outcome> {
    /// The allocator.
    pub allocator: &'static str,
    /// What was done.
    pub of: Of,
    /// Which repetition.
    pub round: u64,
    /// What came out.
    pub outcome: Outcome,
}

/// The rounds of one cell and allocator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Nanoseconds of the best round.
    pub best: f64,
    /// Nanoseconds of the middle round.
    pub median: f64,
    /// Nanoseconds of the worst round.
    pub worst: f64,
    /// The largest share of maps that failed in a round.
    pub fail_rate: f64,
}

/// Everything that a run measured.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// The allocators, in the order of the run.
    pub allocators: Vec<&'static str>,
    /// Self-tests.
    pub selftests: Vec<Row<(), Vec<selftest::Pass>>>,
    /// Pairs of map and unmap.
    pub pairs: Vec<Row<Cell, pair::Outcome>>,
    /// How much fits.
    pub capacities: Vec<Row<Size, capacity::Outcome>>,
    /// Bursts.
    pub bursts: Vec<Row<burst::Plan, burst::Outcome>>,
    /// Failing maps, by pool size and state.
    pub failing: Vec<Row<(usize, failing::State), failing::Outcome>>,
}

impl Results {
    /// The rounds of a cell, the shortest first.
    fn rounds(&self, allocator: &str, cell: &Cell) -> Vec<&pair::Outcome> {
        let rows = self.pairs.iter();
        let mut rounds: Vec<_> = rows
            .filter(|row| row.allocator == allocator && row.of == *cell)
            .map(|row| &row.outcome)
            .collect();
        rounds.sort_by(|a, b| a.mean_ns.total_cmp(&b.mean_ns));
        rounds
    }

    /// Cost of a pair.
    pub fn figure(&self, allocator: &str, cell: &Cell) -> Option<Figure> {
        let rounds = self.rounds(allocator, cell);
        let ns = |round: &&pair::Outcome| round.mean_ns;
        Some(Figure {
            best: rounds.first().map(ns)?,
            median: rounds.get(rounds.len() / 2).map(ns)?,
            worst: rounds.last().map(ns)?,
            fail_rate: rounds
                .iter()
                .map(|round| round.fail_rate)
                .fold(0.0, f64::max),
        })
    }

    /// Cells that were measured, in the order of the run.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = Vec::new();
        for row in &self.pairs {
            if !cells.contains(&row.of) {
                cells.push(row.of);
            }
        }
        cells
    }

    /// What fitted.
    pub fn capacity(&self, allocator: &str, size: Size) -> Option<&capacity::Outcome> {
        find(&self.capacities, allocator, &size)
    }

    /// The round of a burst whose longest map was the shortest: the others were interrupted.
    pub fn burst(&self, allocator: &str, plan: &burst::Plan) -> Option<&burst::Outcome> {
        let rows = self.bursts.iter();
        rows.filter(|row| row.allocator == allocator && row.of == *plan)
            .map(|row| &row.outcome)
            .min_by(|a, b| a.map_ns[2].total_cmp(&b.map_ns[2]))
    }

    /// A failing map.
    pub fn failing(
        &self,
        allocator: &str,
        pool: usize,
        state: failing::State,
    ) -> Option<&failing::Outcome> {
        find(&self.failing, allocator, &(pool, state))
    }

    /// Allocators to compare the shim with: no limits, and not the shim itself.
    pub fn others(&self) -> impl Iterator<Item = &'static str> {
        let allocators = self.allocators.iter().copied();
        allocators
            .filter(|name| !name.starts_with("memcpy_") && *name != SHIM && *name != SHIM_SMALL)
    }
}

fn find<'a, Of: PartialEq, Outcome>(
    rows: &'a [Row<Of, Outcome>],
    allocator: &str,
    of: &Of,
) -> Option<&'a Outcome> {
    rows.iter()
        .find(|row| row.allocator == allocator && row.of == *of)
        .map(|row| &row.outcome)
}
