// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a map and its unmap cost in instructions, counted by valgrind: no clock, so the same on a busy machine.
//!
//! Every case runs in a process of its own under callgrind, which counts only inside [`counted_pairs`] or [`counted_rounds`]. The counts
//! include the driver's loop, which `memcpy_hot` shows.

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

use bench_abi::abi::direction::TO_DEVICE;
use bench_abi::abi::flags;
use bench_abi::allocators;
use bench_abi::driver::constrained::{Case, ROUND};
use bench_abi::driver::failing::{self, State};
use bench_abi::driver::pair::Size;
use bench_abi::driver::{Clock, Fill, Guest, Machine, Random, Session, Setup, fill};

use crate::count::{Count, count, judge};

mod count;

/// Pairs before the count, and in it.
const WARM_UP: usize = 200;
const PAIRS: usize = 2000;
const MIB: usize = 1 << 20;

/// What costs may grow by as the pool fills, and as it is larger.
const MOST_BY_FILL: f64 = 1.5;
const MOST_BY_POOL: f64 = 1.1;
/// A map that must fail costs at most this many times a pair that succeeds.
const MOST_BY_FAILING: f64 = 2.5;

/// The allocator whose costs are judged.
const JUDGED: &str = "guest_shim";
const ALLOCATORS: [&str; 4] = ["memcpy_hot", "locked_lifo", "classic", JUDGED];
const SIZES: [&str; 6] = ["64", "1500", "4096", "65536", "262144", "mix"];
const FILLS: [&str; 4] = ["0", "90", "98", "f90"];
const POOLS_MIB: [usize; 3] = [64, 1024, 16384];
/// Mappings with a segment boundary: bytes, boundary, low bits kept, and what the room lies between.
const CONSTRAINED: [[usize; 4]; 9] = [
    [20_000, 0, 0, 0],
    [1500, 65_536, 0, 0],
    [20_000, 65_536, 0, 0],
    [20_000, 65_536, 4095, 0],
    [65_536, 65_536, 0, 0],
    [262_145, MIB, 0, 0],
    [20_000, 0, 0, 22_528],
    [20_000, 65_536, 0, 22_528],
    [20_000, 65_536, 4095, 26_624],
];
const POOL_OF_CONSTRAINED_MIB: usize = 64;

/// Counts the instructions of map and unmap at several sizes, fills and pool sizes, under valgrind.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    case: Option<Worker>,
}

/// One case, to be run under callgrind.
#[derive(Debug, Subcommand)]
enum Worker {
    /// Pairs of map and unmap.
    #[command(hide = true)]
    Pair {
        /// Allocator.
        allocator: String,
        /// Pool in MiB.
        pool: usize,
        /// What the pool holds already.
        fill: Fill,
        /// What is mapped.
        size: Size,
    },
    /// Maps that must fail.
    #[command(hide = true)]
    Failing {
        /// Allocator.
        allocator: String,
        /// Pool in MiB.
        pool: usize,
    },
    /// Pairs for a device with constraints.
    #[command(hide = true)]
    Constrained {
        /// Bytes of a mapping.
        bytes: usize,
        /// Segment boundary in bytes, or 0.
        boundary: u64,
        /// Low bits of the address that are kept.
        min_align_mask: u64,
        /// Bytes of mappings between which the room lies, or 0.
        comb: usize,
        /// Mappings that live at a time.
        round: usize,
    },
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.case {
        Some(worker) => work(worker).map(|()| Vec::new()),
        None => count_all(),
    };
    match outcome {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            for fault in faults {
                eprintln!("bench-instructions: {fault}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench-instructions: {error}");
            ExitCode::from(2)
        }
    }
}

/// Maps and unmaps; the one function that is counted, found by its name. The cases differ only in what `session` is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn counted_pairs(session: &Session<'_>, random: &mut Random, size: &Size) -> usize {
    pairs(session, random, size, PAIRS)
}

/// How many of the maps succeeded.
#[inline(always)]
fn pairs(session: &Session<'_>, random: &mut Random, size: &Size, count: usize) -> usize {
    let buffer = session.machine.ballast_at(0);
    let mut succeeded = 0;
    for _ in 0..count {
        let length = size.next(random);
        // SAFETY: The ballast buffer is as long as every size, and outlives the session.
        if let Some(bus) = unsafe { session.map(buffer, length, TO_DEVICE, 0) } {
            // SAFETY: Mapped above.
            unsafe { session.unmap(bus, length, TO_DEVICE) };
            succeeded += 1;
        }
    }
    succeeded
}

/// The same for a device with constraints.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn counted_rounds(guest: &Guest, case: &Case) -> usize {
    case.pairs(guest, PAIRS / case.round)
}

/// A machine of which nothing is timed.
fn machine(pool_mib: usize) -> Machine {
    let setup = Setup {
        pool_bytes: pool_mib * MIB,
        ..Setup::default()
    };
    let clock = Clock {
        ghz: 1.0,
        overhead_ns: 0.0,
    };
    Machine::untouched(setup, clock)
}

fn work(worker: &Worker) -> Result<(), String> {
    let (allocator, pool) = match *worker {
        Worker::Pair {
            ref allocator,
            pool,
            ..
        }
        | Worker::Failing {
            ref allocator,
            pool,
        } => (allocator, pool),
        Worker::Constrained {
            bytes,
            boundary,
            min_align_mask,
            comb,
            round,
        } => {
            let case = Case {
                bytes,
                boundary,
                min_align_mask,
                comb,
                round,
            };
            let machine = machine(POOL_OF_CONSTRAINED_MIB);
            let guest = case.guest(&machine);
            let capacity = case.capacity(&guest);
            case.pairs(&guest, WARM_UP.div_ceil(round));
            let succeeded = counted_rounds(&guest, &case);
            println!("succeeded {succeeded}\ncapacity {capacity}");
            return Ok(());
        }
    };
    let machine = machine(pool);
    let setup = &machine.setup;
    let all = allocators::all();
    let known = all.iter().find(|one| one.name() == allocator);
    let known = known.ok_or_else(|| format!("no allocator {allocator}"))?;
    let session = Session::open(known, &machine, flags::NO_COPY)
        .map_err(|code| format!("{allocator}: init failed with {code}"))?;
    let (mut ballast, size) = match worker {
        Worker::Pair {
            fill: share, size, ..
        } => (fill(&session, *share), *size),
        Worker::Failing { .. } | Worker::Constrained { .. } => {
            let ballast = failing::bring_to(&session, State::Full);
            (ballast, Size::Bytes(failing::LENGTH))
        }
    };
    session.enter_cpu(0);
    let mut random = Random::new(setup.seed * 1000);
    pairs(&session, &mut random, &size, WARM_UP);
    let succeeded = counted_pairs(&session, &mut random, &size);
    println!("succeeded {succeeded}");
    ballast.drop_all(&session);
    Ok(())
}

/// Prints the tables; what is wrong with the judged allocator.
fn count_all() -> Result<Vec<String>, String> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return Err(
            "valgrind is missing: install it (apt-get install valgrind), then run this again"
                .into(),
        );
    }
    let mut faults = Vec::new();
    println!("instructions per map and unmap, no copies, pool of 64 MiB, by share in use");
    let fills = FILLS.map(|fill| if fill == "0" { "empty" } else { fill });
    println!(
        "  {:<12} {:>7} {}",
        "",
        "size",
        columns(fills.map(String::from))
    );
    for allocator in ALLOCATORS {
        for size in SIZES {
            let mut counts = Vec::new();
            for fill in FILLS {
                counts.push(count(&["pair", allocator, "64", fill, size])?);
            }
            println!(
                "  {allocator:<12} {size:>7} {}",
                columns(counts.iter().map(shown))
            );
            if allocator == JUDGED {
                let cases = FILLS.map(|fill| format!("{size} bytes, {fill} % full"));
                judge(&mut faults, &counts, &cases, MOST_BY_FILL);
            }
        }
    }
    println!("\nthe same, empty pool, by pool size in MiB");
    println!(
        "  {:<12} {:>7} {}",
        "",
        "size",
        columns(POOLS_MIB.map(|pool| pool.to_string()))
    );
    for allocator in ["classic", JUDGED] {
        for size in ["4096", "262144"] {
            let mut counts = Vec::new();
            for pool in POOLS_MIB {
                counts.push(count(&["pair", allocator, &pool.to_string(), "0", size])?);
            }
            println!(
                "  {allocator:<12} {size:>7} {}",
                columns(counts.iter().map(shown))
            );
            if allocator == JUDGED {
                let cases = POOLS_MIB.map(|pool| format!("{size} bytes, pool of {pool} MiB"));
                judge(&mut faults, &counts, &cases, MOST_BY_POOL);
            }
        }
    }
    println!("\na map of 262144 that must fail, by pool size in MiB");
    for allocator in ["classic", JUDGED] {
        // The classic search takes milliseconds, and valgrind makes them seconds.
        let pools = if allocator == JUDGED {
            &POOLS_MIB[..2]
        } else {
            &POOLS_MIB[..1]
        };
        let mut counts = Vec::new();
        for pool in pools {
            counts.push(count(&["failing", allocator, &pool.to_string()])?);
        }
        let instructions = counts
            .iter()
            .map(|count| format!("{:.1}", count.instructions));
        println!(
            "  {allocator:<12} {:>7} {}",
            "262144",
            columns(instructions)
        );
        if allocator == JUDGED {
            let pair = count(&["pair", JUDGED, "64", "0", "262144"])?;
            for (count, pool) in counts.iter().zip(pools) {
                if count.failed != PAIRS {
                    faults.push(format!("{pool} MiB: a map that must fail succeeded"));
                }
                if count.instructions > pair.instructions * MOST_BY_FAILING {
                    let (fails, succeeds) = (count.instructions, pair.instructions);
                    faults.push(format!(
                        "{pool} MiB: a failing map takes {fails:.1} instructions, a pair that succeeds {succeeds:.1}"
                    ));
                }
            }
        }
    }
    println!(
        "\nwith a segment boundary, pool of {POOL_OF_CONSTRAINED_MIB} MiB, between mappings of a size of which every second was freed"
    );
    let heads = [
        "boundary", "low bits", "between", "one live", "50 live", "room for",
    ];
    println!(
        "  {JUDGED:<12} {:>7} {}",
        "size",
        columns(heads.map(String::from))
    );
    for case in CONSTRAINED {
        let [size, boundary, mask, comb] = case.map(|number| number.to_string());
        let run = |round: usize| {
            count(&[
                "constrained",
                &size,
                &boundary,
                &mask,
                &comb,
                &round.to_string(),
            ])
        };
        let (one, many) = (run(1)?, run(ROUND)?);
        let room = many.capacity.to_string();
        let shown = [
            boundary.clone(),
            mask.clone(),
            comb.clone(),
            shown(&one),
            shown(&many),
            room,
        ];
        println!("  {:<12} {size:>7} {}", "", columns(shown));
    }
    println!("\n'!' marks cases in which maps fail");
    Ok(faults)
}

fn shown(count: &Count) -> String {
    let mark = if count.failed > 0 { "!" } else { "" };
    format!("{:.1}{mark}", count.instructions)
}

fn columns(texts: impl IntoIterator<Item = String>) -> String {
    texts
        .into_iter()
        .map(|text| format!("{text:>11}"))
        .collect()
}
