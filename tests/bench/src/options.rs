// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line of the benchmark.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use bench_abi::driver::failing::State;
use bench_abi::driver::pair::{Cell, Mode, Size};
use bench_abi::driver::{CopyRoutine, Fill, Setup};
use bench_abi::plan::{FAILING_POOLS, FILLS, Plan, SIZES, burst_plans, thread_counts};

/// Bytes of a mebibyte.
const MIB: usize = 1 << 20;

/// Measures bounce-buffer allocators side by side: the guest shim, a model of the algorithm that guests run today,
/// limits, and any shared object of the interface in tests/bench/include/bb_abi.h.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Options {
    /// Fewer sizes and rounds: about 40 seconds.
    #[arg(long)]
    pub quick: bool,
    /// Folder for CSV files and drawings; made if it is missing.
    #[arg(long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// A shared object to measure beside; may be given several times.
    #[arg(long = "peer", value_name = "FILE")]
    pub peers: Vec<PathBuf>,
    /// Measure only these allocators (see --list); default: all.
    #[arg(long = "allocator", value_name = "NAME", value_delimiter = ',')]
    pub allocators: Vec<String>,
    /// Print the names of the allocators and end.
    #[arg(long)]
    pub list: bool,
    /// One scenario by the lists below, instead of what the table of figures needs.
    #[arg(long, value_enum)]
    pub scenario: Option<Scenario>,
    /// Sizes in bytes, or mix.
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<Size>,
    /// Percent of the pool in use before: 90, f90 (fragmented), p75 (by payload), q75 (by payload, fragmented).
    #[arg(long, value_delimiter = ',')]
    fills: Vec<Fill>,
    /// Numbers of threads.
    #[arg(long, value_delimiter = ',')]
    threads: Vec<usize>,
    /// nocopy, tx (one copy), rx (two copies).
    #[arg(long, value_delimiter = ',', default_value = "nocopy,rx")]
    modes: Vec<Mode>,
    /// Mappings that a thread keeps at a time.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    depths: Vec<usize>,
    /// Repetitions; the best one counts.
    #[arg(long)]
    rounds: Option<u64>,
    /// Pool size in MiB, a multiple of 4.
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    pool_mib: usize,
    /// CPUs of the modelled guest; default: those of this machine, at least 2.
    #[arg(long)]
    cpus: Option<usize>,
    /// Low address bits that the device wants preserved, for example 4095.
    #[arg(long, value_name = "MASK", default_value_t = 0)]
    min_align: u32,
    /// Seed of the workload.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Milliseconds of the loop that gives the mean.
    #[arg(long, value_name = "MS")]
    bulk_ms: Option<f64>,
    /// Operations that are timed one by one.
    #[arg(long, value_name = "COUNT")]
    lat_ops: Option<usize>,
    /// Copy by memcpy of the C library instead of rep movsb.
    #[arg(long)]
    copy_by_library: bool,
    /// Nanoseconds that the conversion of a 4 KiB page takes.
    #[arg(long, value_name = "NS", default_value_t = 0.0)]
    pub conversion_ns: f64,
    /// Let the guest shim call maintain() as deferred work.
    #[arg(long)]
    pub maintain: bool,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Whether the allocator does its job.
    Selftest,
    /// Cost of a map and its unmap.
    Pair,
    /// How much fits.
    Capacity,
    /// Four times the pool at once.
    Burst,
    /// Cost of a map that must fail.
    Failing,
}

impl Options {
    /// What to measure.
    ///
    /// # Errors
    /// A line that says which option is wrong.
    pub fn plan(&self) -> Result<Plan, String> {
        let setup = self.setup()?;
        let mut plan = match self.scenario {
            None if self.quick => Plan::quick(setup),
            None => Plan::full(setup),
            Some(scenario) => self.one(scenario, setup)?,
        };
        if let Some(rounds) = self.rounds {
            plan.rounds = rounds.max(1);
        }
        if let Some(bulk_ms) = self.bulk_ms {
            plan.setup.bulk_ms = bulk_ms;
        }
        if let Some(operations) = self.lat_ops {
            plan.setup.timed_operations = operations;
        }
        Ok(plan)
    }

    fn setup(&self) -> Result<Setup, String> {
        if self.pool_mib == 0 || !self.pool_mib.is_multiple_of(4) {
            return Err(format!(
                "--pool-mib {}: take a multiple of 4",
                self.pool_mib
            ));
        }
        if !(self.min_align.wrapping_add(1)).is_power_of_two() || self.min_align > 4095 {
            let mask = self.min_align;
            return Err(format!(
                "--min-align {mask}: take 0, or a power of two minus 1 up to 4095"
            ));
        }
        let machine = std::thread::available_parallelism().map_or(1, usize::from);
        let asked = self.threads.iter().copied().max().unwrap_or(0);
        let cpus = self.cpus.unwrap_or(machine.clamp(2, 16)).max(asked);
        if cpus == 0 || cpus > 64 || self.threads.contains(&0) {
            return Err("--cpus and --threads: take 1 to 64".into());
        }
        Ok(Setup {
            pool_bytes: self.pool_mib * MIB,
            cpus,
            min_align_mask: self.min_align,
            seed: self.seed,
            copy: if self.copy_by_library {
                CopyRoutine::Library
            } else {
                CopyRoutine::StringMove
            },
            ..Setup::default()
        })
    }

    fn one(&self, scenario: Scenario, setup: Setup) -> Result<Plan, String> {
        let sizes = or(&self.sizes, &SIZES);
        let mut plan = Plan::empty(setup, 3);
        match scenario {
            Scenario::Selftest => plan.selftest = true,
            Scenario::Pair => plan.cells = self.cells(&sizes, setup.cpus)?,
            Scenario::Capacity => plan.capacities = sizes,
            Scenario::Burst => {
                for size in sizes {
                    match size {
                        Size::Bytes(bytes) => plan.bursts.extend(burst_plans(bytes)),
                        Size::Mix if self.sizes.is_empty() => {}
                        Size::Mix => return Err("--scenario burst: --sizes takes no mix".into()),
                    }
                }
            }
            Scenario::Failing => {
                for pool in FAILING_POOLS {
                    plan.failing
                        .extend([(pool, State::Full), (pool, State::Comb)]);
                }
            }
        }
        Ok(plan)
    }

    fn cells(&self, sizes: &[Size], cpus: usize) -> Result<Vec<Cell>, String> {
        let mut fills = vec![Fill::EMPTY];
        fills.extend(FILLS);
        let fills = or(&self.fills, &fills);
        let threads = or(&self.threads, &thread_counts(cpus));
        if self.depths.iter().any(|depth| !(1..=256).contains(depth)) {
            return Err("--depths: take 1 to 256".into());
        }
        let mut cells = Vec::new();
        for &fill in &fills {
            for &depth in &self.depths {
                for &threads in &threads {
                    for &mode in &self.modes {
                        cells.extend(sizes.iter().map(|&size| Cell {
                            size,
                            mode,
                            threads,
                            fill,
                            depth,
                        }));
                    }
                }
            }
        }
        Ok(cells)
    }
}

fn or<T: Clone>(given: &[T], default: &[T]) -> Vec<T> {
    if given.is_empty() { default } else { given }.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(arguments: &[&str]) -> Result<Plan, String> {
        let all = ["bench"].iter().chain(arguments);
        Options::try_parse_from(all)
            .map_err(|error| error.to_string())?
            .plan()
    }

    #[test]
    fn a_pair_scenario_is_the_product_of_its_lists() {
        let plan = plan(&[
            "--scenario",
            "pair",
            "--sizes",
            "64,mix",
            "--fills",
            "0,f90",
            "--threads",
            "1,2",
            "--modes",
            "nocopy,tx,rx",
            "--depths",
            "1,32",
            "--rounds",
            "2",
        ])
        .expect("a plan");
        assert_eq!(plan.cells.len(), 2 * 2 * 2 * 3 * 2);
        assert_eq!(plan.rounds, 2);
        assert!(!plan.selftest && plan.failing.is_empty());
    }

    #[test]
    fn the_default_run_has_every_cell_once_and_passes_the_self_test() {
        let plan = plan(&["--cpus", "2"]).expect("a plan");
        assert!(plan.selftest);
        for (index, cell) in plan.cells.iter().enumerate() {
            assert!(!plan.cells[..index].contains(cell), "{cell:?} twice");
        }
    }

    #[test]
    fn wrong_options_are_named() {
        for (arguments, part) in [
            (&["--pool-mib", "3"][..], "--pool-mib"),
            (&["--min-align", "4096"], "--min-align"),
            (&["--threads", "0"], "--threads"),
            (&["--scenario", "pair", "--depths", "0"], "--depths"),
            (&["--scenario", "burst", "--sizes", "mix"], "--sizes"),
            (&["--sizes", "many"], "no size"),
        ] {
            let error = plan(arguments).expect_err("no plan");
            assert!(error.contains(part), "{error}");
        }
    }
}
