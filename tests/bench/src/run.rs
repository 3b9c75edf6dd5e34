// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carries a plan out: the allocators take turns, so that a machine that changes its speed changes it for all of them.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::driver::pair::Cell;
use crate::driver::{Allocator, Clock, Machine, Setup, burst, capacity, failing, pair, selftest};
use crate::plan::Plan;
use crate::report::{Results, Row, SHIM_SMALL};

/// A run in progress.
#[derive(Debug)]
pub struct Run<'a> {
    plan: &'a Plan,
    allocators: &'a [Allocator],
    clock: Clock,
    bar: ProgressBar,
    /// Without a bar, a line per stage says that something happens.
    lines: bool,
    results: Results,
}

impl<'a> Run<'a> {
    /// A run over these allocators. Its progress shows where standard error is a terminal.
    pub fn new(plan: &'a Plan, allocators: &'a [Allocator], clock: Clock) -> Self {
        let bar = ProgressBar::new(0);
        let style =
            ProgressStyle::with_template("{msg:28} {wide_bar} {percent:>3}%  {eta:>4} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        Self {
            plan,
            allocators,
            clock,
            bar,
            lines: !std::io::stderr().is_terminal(),
            results: Results {
                allocators: allocators.iter().map(Allocator::name).collect(),
                ..Results::default()
            },
        }
    }

    /// Everything in the plan.
    ///
    /// # Errors
    /// A line that says which allocator did not start.
    pub fn carry_out(mut self) -> Result<Results, String> {
        self.bar.set_length(self.work());
        let machine = Machine::new(self.plan.setup, self.clock);
        if self.plan.selftest {
            self.selftests(&machine)?;
        }
        if !self.plan.capacities.is_empty() || !self.plan.bursts.is_empty() {
            self.stage("capacity and bursts");
        }
        for &size in &self.plan.capacities {
            self.bar.set_message(format!("capacity, {size}"));
            for allocator in self.allocators.iter().filter(|one| !one.is_limit()) {
                let outcome = capacity::measure(allocator, &machine, size)?;
                self.results
                    .capacities
                    .push(row(allocator, size, 0, outcome));
                self.bar.inc(4);
            }
        }
        for plan in &self.plan.bursts {
            self.bar.set_message("burst of 4 pools");
            for allocator in self.allocators.iter().filter(|one| !one.is_limit()) {
                for round in 0..self.plan.rounds {
                    let outcome = burst::measure(allocator, &machine, *plan)?;
                    self.results
                        .bursts
                        .push(row(allocator, *plan, round, outcome));
                }
                self.bar.inc(4);
            }
        }
        self.pairs(&machine)?;
        drop(machine);
        if !self.plan.failing.is_empty() {
            self.stage("maps that must fail");
        }
        for &(pool_bytes, state) in &self.plan.failing {
            self.failing(pool_bytes, state)?;
        }
        self.bar.finish_and_clear();
        Ok(self.results)
    }

    fn stage(&self, text: &str) {
        if self.lines {
            eprintln!("bench: {text}");
        }
    }

    /// Steps of the bar; roughly 30 ms each.
    fn work(&self) -> u64 {
        let plan = self.plan;
        let all = self.allocators.len() as u64;
        let real = self.allocators.iter().filter(|one| !one.is_limit()).count() as u64;
        let paired = self.paired().count() as u64;
        plan.cells.len() as u64 * plan.rounds * paired
            + (plan.capacities.len() + plan.bursts.len()) as u64 * real * 4
            + plan.failing.len() as u64 * real * 20
            + if plan.selftest { all * 40 } else { 0 }
    }

    fn selftests(&mut self, machine: &Machine) -> Result<(), String> {
        self.stage("self-test");
        self.bar.set_message("self-test");
        for allocator in self.allocators {
            self.bar.inc(40);
            // A limit hands out overlapping memory: that is what makes it one.
            if allocator.is_limit() {
                continue;
            }
            let passes = selftest::run(allocator, machine)?;
            self.results.selftests.push(row(allocator, (), 0, passes));
        }
        Ok(())
    }

    /// More metadata changes what fits, not what a pair costs: the second shim is only measured where that matters, and
    /// where it is asked for alone.
    fn paired(&self) -> impl Iterator<Item = &'a Allocator> + use<'a> {
        let many = self.allocators.len() > 2;
        self.allocators
            .iter()
            .filter(move |one| !many || one.name() != SHIM_SMALL)
    }

    fn pairs(&mut self, machine: &Machine) -> Result<(), String> {
        let mut allocators: Vec<&Allocator> = self.paired().collect();
        for round in 0..self.plan.rounds {
            if !self.plan.cells.is_empty() {
                let (round, rounds, cells) = (round + 1, self.plan.rounds, self.plan.cells.len());
                self.stage(&format!("{cells} cells, round {round} of {rounds}"));
            }
            for cell in &self.plan.cells {
                self.bar.set_message(title(cell));
                for allocator in &allocators {
                    let outcome = pair::measure(allocator, machine, cell, round)?;
                    self.results
                        .pairs
                        .push(row(allocator, *cell, round, outcome));
                    self.bar.inc(1);
                }
            }
            // Somebody else comes first in the next round.
            allocators.rotate_left(1);
        }
        Ok(())
    }

    fn failing(&mut self, pool_bytes: usize, state: failing::State) -> Result<(), String> {
        let mebibytes = pool_bytes >> 20;
        self.bar
            .set_message(format!("failing map, {mebibytes} MiB"));
        let setup = Setup {
            pool_bytes,
            ..self.plan.setup
        };
        let machine = Machine::untouched(setup, self.clock);
        for allocator in self.paired().filter(|one| !one.is_limit()) {
            let outcome = failing::measure(allocator, &machine, state)?;
            let of = (pool_bytes, state);
            self.results.failing.push(row(allocator, of, 0, outcome));
            self.bar.inc(20);
        }
        Ok(())
    }
}

fn title(cell: &Cell) -> String {
    let Cell {
        size,
        mode,
        threads,
        fill,
        depth,
    } = cell;
    match depth {
        1 => format!("{mode} {size}, fill {fill}, {threads}T"),
        _ => format!("{mode} {size}, fill {fill}, {threads}T x{depth}"),
    }
}

fn row<Of, Outcome>(
    allocator: &Allocator,
    of: Of,
    round: u64,
    outcome: Outcome,
) -> Row<Of, Outcome> {
    Row {
        allocator: allocator.name(),
        of,
        round,
        outcome,
    }
}
