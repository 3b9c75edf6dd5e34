// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cost of a map that must fail.
//!
//! Only book-keeping: the pool is address space without memory, so that pools of any size can be measured.

use super::clock::{stamp, ticks};
use super::fill::Ballast;
use super::machine::Machine;
use super::pair::Spread;
use super::random::Random;
use super::session::{Allocator, Session};
use crate::abi::direction::TO_DEVICE;
use crate::abi::flags;

/// Length of the map that must fail.
pub const LENGTH: usize = 256 << 10;
/// Shortest mapping that the pool is filled with.
const SHORTEST: usize = 64 << 10;
/// Failures in a row that mean "nothing of that length fits". Few: some allocators take milliseconds for each.
const FULL: u32 = 8;
/// Percent of the pool that is filled with mappings of every length; a search for the last gaps would take minutes.
const MIXED: usize = 85;
/// Rounds, most failing maps of one, and how long it lasts.
const ROUNDS: usize = 5;
const MOST_TRIES: usize = 10_000;
const LONGEST_NS: f64 = 5e7;

/// How the pool got into a state in which the map must fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Mappings of 64 to 256 KiB, then of 256 KiB until none fits.
    Full,
    /// Mappings of 64 KiB until none fits, then every second one freed: half of the pool is free, in pieces.
    Comb,
}

/// What it cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Maps that were tried.
    pub tries: usize,
    /// Maps that succeeded although nothing should have fitted: then the state was not reached.
    pub succeeded: usize,
    /// Mean nanoseconds of the best round.
    pub mean_ns: f64,
    /// The same of the round in the middle.
    pub median_ns: f64,
    /// Single maps.
    pub map: Spread,
    /// Share of the pool in use.
    pub used: f64,
}

/// Brings a pool into the state and times maps that fail.
///
/// # Errors
/// A line that says why the allocator did not start.
pub fn measure(allocator: &Allocator, machine: &Machine, state: State) -> Result<Outcome, String> {
    let session = Session::open(allocator, machine, flags::NO_COPY)
        .map_err(|code| format!("{}: init failed with {code}", allocator.name()))?;
    let mut ballast = bring_to(&session, state);
    session.enter_cpu(0);
    let outcome = time(&session);
    ballast.drop_all(&session);
    Ok(outcome)
}

/// Brings the pool of a session that was just opened into the state.
pub fn bring_to(session: &Session<'_>, state: State) -> Ballast {
    let setup = &session.machine.setup;
    let mut ballast = Ballast::default();
    match state {
        State::Full => {
            let mut random = Random::new(setup.seed * 131 + 7);
            let lengths = LENGTH - SHORTEST + 1;
            let mixed = setup.pool_bytes / 100 * MIXED;
            fill(session, &mut ballast, mixed, || {
                SHORTEST + random.below(lengths)
            });
            fill(session, &mut ballast, usize::MAX, || LENGTH);
        }
        State::Comb => {
            fill(session, &mut ballast, usize::MAX, || SHORTEST);
            ballast.remove_every_second(session);
        }
    }
    ballast
}

/// Maps until that much payload lives, or nothing fits.
fn fill(
    session: &Session<'_>,
    ballast: &mut Ballast,
    payload: usize,
    mut length: impl FnMut() -> usize,
) {
    let cpus = session.machine.setup.cpus;
    let (mut in_a_row, mut maps) = (0, 0);
    while in_a_row < FULL && ballast.payload < payload {
        session.enter_cpu(maps % cpus);
        maps += 1;
        if ballast.add(session, 0, length()) {
            in_a_row = 0;
        } else {
            in_a_row += 1;
        }
    }
}

fn time(session: &Session<'_>) -> Outcome {
    let clock = &session.machine.clock;
    let buffer = session.machine.ballast_at(0);
    let try_one = || {
        // SAFETY: The ballast buffer is that long and outlives the session.
        let bus = unsafe { session.map(buffer, LENGTH, TO_DEVICE, 0) };
        if let Some(bus) = bus {
            // SAFETY: Mapped above.
            unsafe { session.unmap(bus, LENGTH, TO_DEVICE) };
        }
        bus.is_some()
    };
    let (mut tries, mut succeeded) = (0, 0);
    let mut means = [0.0; ROUNDS];
    for mean in &mut means {
        let begin = stamp();
        let mut here: usize = 0;
        // The clock is read every 16th time: reading costs as much as a quick failure.
        while here < MOST_TRIES && ((stamp() - begin) as f64) < LONGEST_NS * clock.ghz {
            for _ in 0..16 {
                succeeded += usize::from(try_one());
            }
            here += 16;
        }
        *mean = (stamp() - begin) as f64 / clock.ghz / here as f64;
        tries += here;
    }
    means.sort_by(f64::total_cmp);
    let mut durations = Vec::with_capacity(tries);
    let begin = stamp();
    while durations.len() < tries && ((stamp() - begin) as f64) < LONGEST_NS * clock.ghz {
        let before = stamp();
        try_one();
        durations.push(ticks(before, stamp()));
    }
    Outcome {
        tries,
        succeeded,
        mean_ns: means[0],
        median_ns: means[ROUNDS / 2],
        map: Spread::of(&mut durations, clock),
        used: session.used_share(),
    }
}
