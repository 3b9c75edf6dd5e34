// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures that the shim is to reach, and whether it does.

use super::published;
use super::results::{Figure, LIMIT, Results, SHIM};
use crate::driver::Fill;
use crate::driver::failing::State;
use crate::driver::pair::{Cell, Mode, Size};
use crate::plan::{FAILING_POOLS, FILLS, SIZES, cell};

mod memory;

/// No copy, empty pool, one thread: nanoseconds.
const EMPTY_NS: f64 = 30.0;
/// More threads cost this many times what one costs.
const THREADS: f64 = 1.1;
/// A filled pool costs this many times what an empty one costs.
const FILLED: f64 = 1.5;
/// A map that must fail: nanoseconds.
const FAILING_NS: f64 = 100.0;
/// Two copies, against the copies alone: below a page, and from a page up.
const RECEIVE_SHORT: f64 = 1.5;
const RECEIVE: f64 = 1.25;
/// Figures are compared as precisely as they are shown.
const ROUNDING: f64 = 0.005;

/// What a figure is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reach {
    /// No larger.
    AtMost(f64),
    /// No smaller.
    AtLeast(f64),
    /// Only shown.
    Shown,
}

impl Reach {
    fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtMost(bound) => figure <= bound + ROUNDING,
            Self::AtLeast(bound) => figure >= bound - ROUNDING,
            Self::Shown => true,
        }
    }
}

/// Whether a figure is what it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Reached,
    /// It is not.
    Missed,
    /// Nothing to compare, or nothing measured.
    Open,
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What was done.
    pub name: String,
    /// The shim's best and median.
    pub ours: Option<(f64, f64)>,
    /// Share of the shim's maps that failed although they should not have.
    pub failed: f64,
    /// What it is to be.
    pub reach: Reach,
    /// The same by the copies alone.
    pub limit: Option<f64>,
    /// The same by the other allocators of the run, as text.
    pub others: Vec<String>,
    /// The same as measured elsewhere.
    pub published: &'static str,
    /// Digits after the point.
    pub digits: usize,
}

impl Line {
    /// The figure in units of what it is to be.
    pub fn ratio(&self) -> Option<f64> {
        let (best, _) = self.ours?;
        match self.reach {
            Reach::AtMost(bound) | Reach::AtLeast(bound) if bound > 0.0 => Some(best / bound),
            _ => None,
        }
    }

    /// Whether the best round reaches it, without failures.
    pub fn verdict(&self) -> Verdict {
        match (self.ours, self.reach) {
            (None, _) | (_, Reach::Shown) => Verdict::Open,
            (Some((best, _)), reach) if reach.is_met(best) && self.failed == 0.0 => {
                Verdict::Reached
            }
            _ => Verdict::Missed,
        }
    }
}

/// Figures of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// What was done, and the unit.
    pub title: String,
    /// What is to be reached, in words.
    pub goal: &'static str,
    /// The figures.
    pub lines: Vec<Line>,
}

/// All figures, as far as the run has measured them.
pub fn sections(results: &Results) -> Vec<Section> {
    let mut sections = vec![empty(results)];
    let threads: Vec<usize> = {
        let cells = results.cells();
        let mut counts: Vec<_> = cells.iter().map(|cell| cell.threads).collect();
        counts.sort_unstable();
        counts.dedup();
        counts
    };
    for count in threads.into_iter().filter(|&count| count > 1) {
        sections.push(more_threads(results, count));
    }
    for fill in FILLS {
        sections.push(filled(results, fill));
    }
    sections.push(failing(results));
    sections.push(received(results));
    sections.push(memory::capacity(results));
    sections.push(memory::burst(results));
    sections.retain(|section| section.lines.iter().any(|line| line.ours.is_some()));
    sections
}

/// A line of a cell; everything but the bound comes from the rounds.
fn pair_line(
    results: &Results,
    cell: &Cell,
    published: &'static str,
    reach: impl FnOnce() -> Option<Reach>,
) -> Line {
    let ours = results.figure(SHIM, cell);
    Line {
        name: cell.size.to_string(),
        ours: ours.map(|figure| (figure.best, figure.median)),
        failed: ours.map_or(0.0, |figure| figure.fail_rate),
        reach: reach().unwrap_or(Reach::Shown),
        limit: results.figure(LIMIT, cell).map(|figure| figure.best),
        others: others(results, |name| results.figure(name, cell).map(shown)),
        published,
        digits: 1,
    }
}

fn others(results: &Results, text: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let texts = results.others().map(text);
    texts.map(|text| text.unwrap_or_default()).collect()
}

/// A figure of another allocator, with its failures.
fn shown(figure: Figure) -> String {
    let ns = if figure.best < 100.0 {
        format!("{:.1}", figure.best)
    } else {
        format!("{:.0}", figure.best)
    };
    match figure.fail_rate {
        0.0 => ns,
        rate if rate > 0.995 => format!("{ns}, all fail"),
        rate => format!("{ns}, {:.1} % fail", rate * 100.0),
    }
}

fn measured_sizes(results: &Results) -> impl Iterator<Item = Size> {
    let cells = results.cells();
    SIZES
        .into_iter()
        .filter(move |size| cells.iter().any(|cell| cell.size == *size))
}

fn empty(results: &Results) -> Section {
    let lines = measured_sizes(results).map(|size| {
        let reach = || Some(Reach::AtMost(EMPTY_NS));
        let cell = cell(size, Mode::NoCopy);
        pair_line(results, &cell, published::empty(size, 1), reach)
    });
    Section {
        title: "map + unmap without copies, 1 thread, empty pool: ns per pair, by size".into(),
        goal: "30 ns for every size",
        lines: lines.collect(),
    }
}

fn more_threads(results: &Results, threads: usize) -> Section {
    let lines = measured_sizes(results).map(|size| {
        let one = cell(size, Mode::NoCopy);
        let reach = || {
            let alone = results.figure(SHIM, &one)?;
            Some(Reach::AtMost(alone.best * THREADS))
        };
        let cell = Cell { threads, ..one };
        pair_line(results, &cell, published::empty(size, threads), reach)
    });
    Section {
        title: format!("the same with {threads} threads: ns per pair and thread"),
        goal: "1.1 times what 1 thread needs",
        lines: lines.collect(),
    }
}

fn filled(results: &Results, fill: Fill) -> Section {
    let lines = measured_sizes(results).map(|size| {
        let empty = cell(size, Mode::NoCopy);
        let reach = || {
            let alone = results.figure(SHIM, &empty)?;
            Some(Reach::AtMost(alone.best * FILLED))
        };
        let cell = Cell { fill, ..empty };
        pair_line(results, &cell, published::filled(size, fill), reach)
    });
    let how = match fill {
        Fill::Fragmented(share) | Fill::FragmentedPayload(share) => {
            format!("{share} % full and fragmented")
        }
        Fill::Used(share) | Fill::Payload(share) => format!("{share} % full"),
    };
    Section {
        title: format!("the same, 1 thread, pool {how}: ns per pair"),
        goal: "1.5 times what an empty pool needs, no failure",
        lines: lines.collect(),
    }
}

fn failing(results: &Results) -> Section {
    let mut lines = Vec::new();
    for pool in FAILING_POOLS {
        for state in [State::Full, State::Comb] {
            let how = match state {
                State::Full => "full",
                State::Comb => "every second 64 KiB free",
            };
            let ours = results.failing(SHIM, pool, state);
            lines.push(Line {
                name: format!("{} MiB, {how}", pool >> 20),
                ours: ours.map(|outcome| (outcome.mean_ns, outcome.median_ns)),
                // A map that succeeds here means that the state was not reached.
                failed: ours.map_or(0.0, |outcome| outcome.succeeded as f64),
                reach: Reach::AtMost(FAILING_NS),
                limit: None,
                others: others(results, |name| {
                    let outcome = results.failing(name, pool, state)?;
                    Some(match outcome.succeeded {
                        0 => format!("{:.0}", outcome.mean_ns),
                        _ => "does not fail".into(),
                    })
                }),
                published: published::failing(pool, state),
                digits: 1,
            });
        }
    }
    lines.retain(|line| line.ours.is_some());
    Section {
        title: "a map of 256 KiB that must fail: ns, by pool".into(),
        goal: "100 ns for every pool",
        lines,
    }
}

fn received(results: &Results) -> Section {
    let lines = measured_sizes(results).map(|size| {
        let cell = cell(size, Mode::Receive);
        let reach = || {
            let limit = results.figure(LIMIT, &cell)?.best;
            match size {
                Size::Bytes(1500) => Some(Reach::AtMost(limit * RECEIVE_SHORT)),
                Size::Bytes(bytes) if bytes < 4096 => None,
                Size::Bytes(_) | Size::Mix => Some(Reach::AtMost(limit * RECEIVE)),
            }
        };
        pair_line(results, &cell, published::received(size), reach)
    });
    Section {
        title: "map + unmap with two copies, 1 thread, empty pool: ns per pair, by size".into(),
        goal: "1.5 times the copies alone at 1500 bytes, 1.25 times from 4 KiB up",
        lines: lines.collect(),
    }
}
