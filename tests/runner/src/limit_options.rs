// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long a run may take, on a machine that may be slower than usual.
//!
//! What the user says holds as it is said. The usual limits are for a machine of usual speed that emulates a guest with 1 GiB:
//! they are longer on a slower machine, which a short measurement tells, and for a guest with more memory, which takes its
//! time to be accepted before the guest says a word.

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use clap::Args;

use crate::follow::Limits;

/// Multiplications of which each needs the one before.
const ROUNDS: u32 = 20_000_000;
/// What they take at usual speed, in nanoseconds.
const USUAL_NANOSECONDS: u64 = 40_000_000;
/// How often they are done: another program may have the processor meanwhile, and it will have it again.
const SAMPLES: u32 = 4;
/// A machine so many times as slow gets no more time.
const SLOWEST: u64 = 8;
/// More time for each GiB of the guest behind the first one.
const SECONDS_FOR_A_GIB: u64 = 10;

/// How long a run may take.
#[derive(Debug, Clone, Copy, Args)]
pub struct LimitOptions {
    /// Most seconds the run may take [default: the usual ones, and more on a slow machine]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Most seconds without a new record or console line [default: the usual ones, and more on a slow machine]
    #[arg(long, value_name = "SECONDS")]
    pub idle: Option<u64>,
    /// Most seconds that it takes with 1 GiB on a machine of usual speed
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub usual_timeout: u64,
    /// Most seconds without a new record or console line there
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    pub usual_idle: u64,
}

/// The limits, and how they came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasuredLimits {
    /// What holds.
    pub limits: Limits,
    /// How many times as long as usual this machine takes, in percent.
    percent: u64,
}

impl LimitOptions {
    /// What holds on this machine for a guest with so much memory.
    #[must_use]
    pub fn limits(&self, memory: u64) -> MeasuredLimits {
        self.at(memory, percent())
    }

    fn at(&self, memory: u64, percent: u64) -> MeasuredLimits {
        let percent = percent.clamp(100, SLOWEST * 100);
        let more = (memory >> 30).saturating_sub(1) * SECONDS_FOR_A_GIB;
        let limit = |own: Option<u64>, usual: u64| {
            let usual = usual.saturating_add(more).saturating_mul(percent) / 100;
            Duration::from_secs(own.unwrap_or(usual))
        };
        MeasuredLimits {
            limits: Limits {
                total: limit(self.timeout, self.usual_timeout),
                idle: limit(self.idle, self.usual_idle),
            },
            percent,
        }
    }
}

impl fmt::Display for MeasuredLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "limits: {} s in all, {} s without a word; this machine takes {}.{:02} times as long as usual",
            self.limits.total.as_secs(),
            self.limits.idle.as_secs(),
            self.percent / 100,
            self.percent % 100,
        )
    }
}

/// How many times as long as usual this machine takes, in percent.
fn percent() -> u64 {
    // What a build without optimization takes says nothing about emulation.
    if cfg!(debug_assertions) {
        return 100;
    }
    let start = Instant::now();
    for _ in 0..SAMPLES {
        let mut word = black_box(1_u64);
        for _ in 0..ROUNDS {
            word = black_box(word.wrapping_mul(0x5851_f42d_4c95_7f2d));
        }
    }
    let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    nanoseconds / (USUAL_NANOSECONDS * u64::from(SAMPLES) / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn seconds(limits: MeasuredLimits) -> (u64, u64) {
        (limits.limits.total.as_secs(), limits.limits.idle.as_secs())
    }

    #[test]
    fn a_slow_machine_and_a_large_guest_get_more_time_up_to_a_bound() {
        let usual = LimitOptions {
            timeout: None,
            idle: None,
            usual_timeout: 300,
            usual_idle: 60,
        };
        for (memory, percent, want) in [
            (GIB, 100, (300, 60)),
            (GIB / 2, 30, (300, 60)),
            (GIB, 250, (750, 150)),
            (8 * GIB, 100, (370, 130)),
            (8 * GIB, 200, (740, 260)),
            (GIB, u64::MAX, (2400, 480)),
        ] {
            assert_eq!(seconds(usual.at(memory, percent)), want, "{percent}");
        }
    }

    #[test]
    fn what_the_user_says_holds_as_it_is() {
        let own = LimitOptions {
            timeout: Some(7),
            idle: None,
            usual_timeout: 300,
            usual_idle: 60,
        };
        assert_eq!(seconds(own.at(8 * GIB, 800)), (7, 1040));
        let line = own.at(GIB, 123).to_string();
        assert_eq!(
            line,
            "limits: 7 s in all, 73 s without a word; this machine takes 1.23 times as long as usual"
        );
    }
}
