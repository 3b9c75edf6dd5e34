// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cost of a map and its unmap.

use std::fmt;
use std::str::FromStr;
use std::sync::Barrier;
use std::thread;

use super::clock::Clock;
use super::fill::{self, Fill};
use super::random::Random;
use super::session::{Allocator, Session};
use crate::abi::direction::{FROM_DEVICE, TO_DEVICE};
use crate::abi::flags;

mod worker;

use worker::{Run, Worker};

/// Most mappings that a thread keeps at a time.
pub const DEEPEST: usize = 256;

/// What is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Size {
    /// So many bytes each time.
    Bytes(usize),
    /// The mixture of a guest that boots.
    Mix,
}

impl Size {
    /// The next length of a sequence.
    #[inline]
    pub fn next(self, random: &mut Random) -> usize {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Mix => random.mixed_size(),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "mix" => Ok(Self::Mix),
            _ => match text.parse() {
                Ok(bytes) if (1..=super::LONGEST).contains(&bytes) => Ok(Self::Bytes(bytes)),
                _ => Err(format!(
                    "'{text}' is no size: write mix or 1 to {} bytes",
                    super::LONGEST
                )),
            },
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Mix => f.write_str("mix"),
        }
    }
}

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Nothing: the book-keeping alone.
    NoCopy,
    /// In at map: a transmission.
    Transmit,
    /// In at map, out at unmap: a reception.
    Receive,
}

impl Mode {
    const fn direction(self) -> std::ffi::c_int {
        match self {
            Self::Receive => FROM_DEVICE,
            Self::NoCopy | Self::Transmit => TO_DEVICE,
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "nocopy" => Ok(Self::NoCopy),
            "tx" => Ok(Self::Transmit),
            "rx" => Ok(Self::Receive),
            _ => Err(format!("'{text}' is no mode: write nocopy, tx or rx")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCopy => "nocopy",
            Self::Transmit => "tx",
            Self::Receive => "rx",
        })
    }
}

/// One measurement of every allocator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// What is mapped.
    pub size: Size,
    /// What is copied.
    pub mode: Mode,
    /// Threads, each on a CPU of its own.
    pub threads: usize,
    /// What the pool holds already.
    pub fill: Fill,
    /// Mappings that a thread keeps at a time; 1: each is unmapped at once.
    pub depth: usize,
}

/// Durations of one kind of operation in nanoseconds: median, 99 %, 99.9 %, longest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// Median.
    pub p50: f64,
    /// 99 of 100 are no longer.
    pub p99: f64,
    /// 999 of 1000 are no longer.
    pub p999: f64,
    /// Longest; includes the preemptions of the thread.
    pub max: f64,
}

impl Spread {
    pub(super) fn of(durations: &mut [u32], clock: &Clock) -> Self {
        durations.sort_unstable();
        let at = |share| clock.percentile(durations, share);
        Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }

    /// Without what one more reading of the clock costs.
    fn less(self, ns: f64) -> Self {
        let less = |value: f64| (value - ns).max(0.0);
        Self {
            p50: less(self.p50),
            p99: less(self.p99),
            p999: less(self.p999),
            max: less(self.max),
        }
    }
}

/// What one measurement of one allocator gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Share of the pool in use before, by the allocator's account.
    pub fill_reached: f64,
    /// Pairs in the loop that gives the mean, all threads.
    pub pairs: u64,
    /// Nanoseconds per pair and thread.
    pub mean_ns: f64,
    /// Maps alone.
    pub map: Spread,
    /// Unmaps alone.
    pub unmap: Spread,
    /// Both.
    pub pair: Spread,
    /// Share of the maps that failed.
    pub fail_rate: f64,
    /// Pool bytes that became unavailable per payload byte, over 8 mappings.
    pub pool_per_payload: f64,
    /// Payload of the mappings before.
    pub ballast_payload: usize,
    /// Maps that failed while the pool was filled.
    pub ballast_failures: u64,
    /// Metadata bytes.
    pub meta_bytes: u64,
}

/// Measures a cell on an allocator. `round` changes the seed of the threads and nothing else.
///
/// # Errors
/// A line that says why the allocator did not start.
pub fn measure(
    allocator: &Allocator,
    machine: &super::Machine,
    cell: &Cell,
    round: u64,
) -> Result<Outcome, String> {
    let flags = match cell.mode {
        Mode::NoCopy => flags::NO_COPY,
        Mode::Transmit | Mode::Receive => 0,
    };
    let session = Session::open(allocator, machine, flags)
        .map_err(|code| format!("{}: init failed with {code}", allocator.name()))?;
    let mut ballast = fill::fill(&session, cell.fill);
    let before = session.stats();
    let fill_reached = session.used_share();
    let pool_per_payload = amplification(&session, cell.size, before.used_bytes);

    let start = Barrier::new(cell.threads);
    let seed = machine.setup.seed * 1000 + round;
    let mut runs: Vec<Run> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cell.threads)
            .map(|thread| {
                let seed = seed + thread as u64 * 77;
                let (session, start) = (&session, &start);
                scope.spawn(move || Worker::new(session, cell, thread, seed).run(start))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(run) => run,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    });

    let pairs = runs.iter().map(|run| run.pairs).sum();
    let failures: u64 = runs.iter().map(|run| run.failures).sum();
    let mean_ns = runs
        .iter()
        .map(|run| run.seconds * 1e9 / run.pairs as f64 / cell.threads as f64)
        .sum();
    let mut first: Vec<u32> = runs
        .iter_mut()
        .flat_map(|run| run.first.drain(..))
        .collect();
    let mut second: Vec<u32> = runs
        .iter_mut()
        .flat_map(|run| run.second.drain(..))
        .collect();
    let mut both: Vec<u32> = first.iter().zip(&second).map(|(a, b)| a + b).collect();
    if cell.depth > 1 {
        std::mem::swap(&mut first, &mut second);
    }
    let clock = &machine.clock;
    let outcome = Outcome {
        fill_reached,
        pairs,
        mean_ns,
        map: Spread::of(&mut first, clock),
        unmap: Spread::of(&mut second, clock),
        pair: Spread::of(&mut both, clock).less(clock.overhead_ns),
        fail_rate: failures as f64 / pairs as f64,
        pool_per_payload,
        ballast_payload: ballast.payload,
        ballast_failures: ballast.failures,
        meta_bytes: before.meta_bytes,
    };
    ballast.drop_all(&session);
    Ok(outcome)
}

/// Pool bytes per payload byte over 8 mappings.
fn amplification(session: &Session<'_>, size: Size, used_before: u64) -> f64 {
    let mut random = Random::new(session.machine.setup.seed + 5);
    session.enter_cpu(0);
    let mut mapped = fill::Ballast::default();
    for _ in 0..8 {
        if !mapped.add(session, 0, size.next(&mut random)) {
            break;
        }
    }
    let used = session.stats().used_bytes as f64 - used_before as f64;
    let share = if mapped.is_empty() {
        0.0
    } else {
        used / mapped.payload as f64
    };
    mapped.drop_all(session);
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_modes_are_read_as_they_are_written() {
        for text in ["64", "262144", "mix"] {
            assert_eq!(
                text.parse::<Size>().map(|size| size.to_string()),
                Ok(text.into())
            );
        }
        for text in ["nocopy", "tx", "rx"] {
            assert_eq!(
                text.parse::<Mode>().map(|mode| mode.to_string()),
                Ok(text.into())
            );
        }
        for text in ["0", "262145", "many"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        for text in ["0", "98", "f90", "p75", "q75"] {
            assert_eq!(
                text.parse::<Fill>().map(|fill| fill.to_string()),
                Ok(text.into())
            );
        }
        assert!("x90".parse::<Fill>().is_err());
    }
}
