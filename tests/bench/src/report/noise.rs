// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far a run can be believed: timings of a machine that does other things too.

use std::fmt;
use std::fs;

use super::results::{LIMIT, Results, SHIM};

/// A median that is so many times the best round means that the machine was busy.
const NOISY: f64 = 1.25;

/// What the machine was like.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Name of the processor, by the kernel.
    pub processor: String,
    /// CPUs that this program may use.
    pub cpus: usize,
    /// Load averages of the last minute: when the run began and when it ended.
    pub load: (f64, f64),
}

impl Machine {
    /// The machine now.
    pub fn look() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown processor", |(_, name)| name);
        let load = load();
        Self {
            processor: name.trim().into(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            load: (load, load),
        }
    }

    /// Looks at the load again.
    pub fn end(&mut self) {
        self.load.1 = load();
    }
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// How much the rounds of one allocator differ.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Differences {
    /// Median over best: the cell in the middle, and the worst one.
    median: (f64, f64),
    /// The worst round of all, over the best of its cell.
    worst: f64,
}

impl Differences {
    fn of(results: &Results, allocator: &str) -> Option<Self> {
        let figures: Vec<_> = results
            .cells()
            .iter()
            .filter_map(|cell| results.figure(allocator, cell))
            .collect();
        let mut medians: Vec<f64> = figures.iter().map(|one| one.median / one.best).collect();
        medians.sort_by(f64::total_cmp);
        Some(Self {
            median: (*medians.get(medians.len() / 2)?, *medians.last()?),
            worst: figures
                .iter()
                .map(|one| one.worst / one.best)
                .fold(1.0, f64::max),
        })
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((middle, most), worst) = (self.median, self.worst);
        write!(
            f,
            "median {middle:.2} x best (worst cell {most:.2} x), worst round {worst:.2} x best"
        )
    }
}

/// What to say about a run.
pub fn describe(results: &Results, machine: &Machine, rounds: u64) -> String {
    let Machine {
        processor,
        cpus,
        load: (begin, end),
    } = machine;
    let mut text = format!(
        "\nnoise\n  machine      {processor}, {cpus} CPUs, load average {begin:.2} at the start, {end:.2} at the end\n"
    );
    let mut noisy = false;
    for allocator in [LIMIT, SHIM] {
        if let Some(differences) = Differences::of(results, allocator) {
            text += &format!("  {allocator:<12} {differences}, {rounds} rounds\n");
            noisy |= differences.median.0 > NOISY;
        }
    }
    // The run itself is a load of one or two.
    let busy = *begin > 0.5 || *end > *cpus as f64 + 0.5;
    text += match (noisy, busy) {
        (true, _) => {
            "  a noisy run: compare best with best, and repeat it before you believe a small difference\n"
        }
        (false, true) => "  other work ran beside: medians are worse than the machine can do\n",
        (false, false) => "  a quiet run\n",
    };
    text
}
