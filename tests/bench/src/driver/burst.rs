// SPDX-License-Identifier: MIT OR Apache-2.0
//! Four times the pool at once, in atomic context.

use super::callbacks::{Conversions, conversions, forget_conversions};
use super::clock::{stamp, ticks};
use super::fill::Ballast;
use super::machine::Machine;
use super::session::{Allocator, Session};
use crate::abi::direction::TO_DEVICE;
use crate::abi::{Stats, flags};

/// How much is mapped, in pools.
const POOLS: usize = 4;
/// Most maps that fill the pool up after the burst.
const MOST_EXTRA: u32 = 400_000;
/// Failures in a row that mean "full".
const FULL: u32 = 64;
/// Pairs in the small loops after the burst.
const PAIRS: u32 = 2000;

/// What is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Bytes of every mapping.
    pub size: usize,
    /// Deferred work runs after so many maps; 0: never.
    pub background_every: usize,
    /// Whether payload is copied.
    pub copies: bool,
}

/// What happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Bytes that were to be mapped.
    pub total: usize,
    /// Maps that succeeded.
    pub ok: usize,
    /// Maps that failed.
    pub failed: usize,
    /// Bytes mapped before the first failure, 0 if there was none.
    pub first_fail_at: usize,
    /// Nanoseconds of a map that succeeded: median, 99 %, longest.
    pub map_ns: [f64; 3],
    /// The allocator's account at the end of the burst.
    pub stats: Stats,
    /// Pages converted at init.
    pub init_pages: u64,
    /// Page-state changes of the burst, up to the same moment.
    pub conversions: Conversions,
    /// Mean of unmapping everything, nanoseconds.
    pub unmap_ns: f64,
    /// Bytes that wait to be freed after that.
    pub pending_free: u64,
    /// A pair of 4 KiB after that, nanoseconds.
    pub after_pair_ns: f64,
    /// A pair while everything is full but one mapping, nanoseconds; negative if none succeeded.
    pub full_pair_ns: f64,
    /// Bytes of the pool when everything was unmapped and deferred work done.
    pub pool_bytes_after: u64,
}

impl Outcome {
    /// Share of the maps that failed.
    pub fn fail_rate(&self) -> f64 {
        self.failed as f64 / (self.ok + self.failed).max(1) as f64
    }
}

/// Maps four times the pool without unmapping.
///
/// # Errors
/// A line that says why the allocator did not start.
pub fn measure(allocator: &Allocator, machine: &Machine, plan: Plan) -> Result<Outcome, String> {
    let copies = if plan.copies { 0 } else { flags::NO_COPY };
    let flags = flags::GROW | flags::CONFIDENTIAL | copies;
    let session = Session::open(allocator, machine, flags)
        .map_err(|code| format!("{}: init failed with {code}", allocator.name()))?;
    let init = conversions();
    forget_conversions();

    let total = machine.setup.pool_bytes * POOLS;
    let mut outcome = Outcome {
        total,
        init_pages: init.atomic_shared + init.deferred_shared,
        ..Outcome::default()
    };
    let mut ballast = Ballast::default();
    let mut durations = Vec::with_capacity(total / plan.size);
    for index in 0..total / plan.size {
        session.enter_cpu(index % machine.setup.cpus);
        let begin = stamp();
        let mapped = ballast.add(&session, 0, plan.size);
        let end = stamp();
        if mapped {
            outcome.ok += 1;
            durations.push(ticks(begin, end));
        } else {
            outcome.failed += 1;
            if outcome.first_fail_at == 0 {
                outcome.first_fail_at = index * plan.size;
            }
        }
        let every = plan.background_every;
        if every != 0 && index % every == every - 1 {
            session.background();
        }
    }
    durations.sort_unstable();
    let clock = &machine.clock;
    outcome.map_ns = [0.5, 0.99, 1.0].map(|share| clock.percentile(&durations, share));
    outcome.stats = session.stats();
    outcome.conversions = conversions();
    outcome.full_pair_ns = full_pair(&session, &mut ballast, plan.size);

    let live = ballast.len();
    let begin = stamp();
    ballast.drop_all(&session);
    let end = stamp();
    if live > 0 {
        outcome.unmap_ns = (end - begin) as f64 / clock.ghz / live as f64;
    }
    outcome.pending_free = session.stats().pending_free;
    while session.background() > 0 {}
    outcome.pool_bytes_after = session.stats().pool_bytes;
    outcome.after_pair_ns = pairs(&session, 4096).unwrap_or(-1.0);
    Ok(outcome)
}

/// Fills up what is left, frees the oldest mapping, and measures a pair that has to find it.
fn full_pair(session: &Session<'_>, ballast: &mut Ballast, size: usize) -> f64 {
    let (mut in_a_row, mut tries) = (0, 0);
    while in_a_row < FULL && tries < MOST_EXTRA {
        tries += 1;
        if ballast.add(session, 0, size) {
            in_a_row = 0;
        } else {
            in_a_row += 1;
        }
    }
    if ballast.is_empty() {
        return 0.0;
    }
    ballast.remove(session, 0);
    pairs(session, size).unwrap_or(-1.0)
}

/// Nanoseconds of a pair; [`None`] if every map failed.
fn pairs(session: &Session<'_>, size: usize) -> Option<f64> {
    let buffer = session.machine.ballast_at(0);
    let mut mapped = 0;
    let begin = stamp();
    for _ in 0..PAIRS {
        // SAFETY: The ballast buffer is as long as every size, and outlives the session.
        if let Some(bus) = unsafe { session.map(buffer, size, TO_DEVICE, 0) } {
            mapped += 1;
            // SAFETY: Mapped above.
            unsafe { session.unmap(bus, size, TO_DEVICE) };
        }
    }
    let end = stamp();
    let ns = (end - begin) as f64 / session.machine.clock.ghz;
    (mapped > 0).then_some(ns / f64::from(PAIRS))
}
