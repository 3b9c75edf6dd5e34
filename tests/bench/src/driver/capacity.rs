// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much payload fits before maps fail.

use super::fill::Ballast;
use super::machine::Machine;
use super::pair::Size;
use super::random::Random;
use super::session::{Allocator, Session};
use crate::abi::flags;

/// Failures in a row that end the scenario.
const FULL: u32 = 2000;
/// Most maps that are tried.
const MOST_TRIES: u64 = 4_000_000;

/// What fitted; sizes in bytes, shares of the pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Payload when the first map failed.
    pub first_fail_payload: usize,
    /// Share in use at that moment.
    pub used_at_first_fail: f64,
    /// Payload when 1 of 100 maps had failed.
    pub payload_at_1pct_fail: usize,
    /// Payload at the end.
    pub payload_at_end: usize,
    /// Share in use at the end.
    pub used_at_end: f64,
    /// The pool.
    pub pool: usize,
    /// Mappings at the end.
    pub mappings: usize,
    /// Metadata at the end.
    pub meta_end: u64,
    /// Heap allocations made inside `map`.
    pub map_allocs: u64,
}

impl Outcome {
    /// Pool bytes in use per payload byte when the first map failed.
    pub fn used_per_payload(&self) -> f64 {
        self.used_at_first_fail * self.pool as f64 / self.first_fail_payload as f64
    }

    /// Pool bytes per payload byte when nothing fits any more.
    pub fn pool_per_payload(&self) -> f64 {
        self.pool as f64 / self.payload_at_end as f64
    }
}

/// Maps without unmapping until nothing fits.
///
/// # Errors
/// A line that says why the allocator did not start.
pub fn measure(allocator: &Allocator, machine: &Machine, size: Size) -> Result<Outcome, String> {
    let session = Session::open(allocator, machine, flags::NO_COPY)
        .map_err(|code| format!("{}: init failed with {code}", allocator.name()))?;
    let mut random = Random::new(machine.setup.seed * 31 + 3);
    let mut ballast = Ballast::default();
    let mut outcome = Outcome {
        pool: machine.setup.pool_bytes,
        ..Outcome::default()
    };
    let (mut tries, mut failures, mut in_a_row) = (0_u64, 0_u64, 0);
    let mut cpu = (0..machine.setup.cpus).cycle();
    while in_a_row < FULL && tries < MOST_TRIES {
        let length = size.next(&mut random);
        session.enter_cpu(cpu.next().unwrap_or(0));
        tries += 1;
        if ballast.add(&session, 0, length) {
            in_a_row = 0;
            continue;
        }
        in_a_row += 1;
        failures += 1;
        if outcome.first_fail_payload == 0 {
            outcome.first_fail_payload = ballast.payload;
            outcome.used_at_first_fail = session.used_share();
        }
        if outcome.payload_at_1pct_fail == 0 && tries > 200 && failures * 100 >= tries {
            outcome.payload_at_1pct_fail = ballast.payload;
        }
    }
    let stats = session.stats();
    outcome.payload_at_end = ballast.payload;
    outcome.used_at_end = session.used_share();
    outcome.mappings = ballast.len();
    outcome.meta_end = stats.meta_bytes;
    outcome.map_allocs = stats.map_allocs;
    ballast.drop_all(&session);
    Ok(outcome)
}
