// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time: the kernel's raw clock for long stretches, the time-stamp counter for single operations.

use std::arch::x86_64::{_mm_lfence, _rdtsc};

use super::rounding::whole;

/// Seconds of a clock that nobody adjusts.
#[inline]
pub fn seconds() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: A valid place for the answer; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_RAW, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The time-stamp counter, ordered after everything before and before everything after.
#[inline]
pub fn stamp() -> u64 {
    // SAFETY: Both instructions are part of x86-64, and user space may read the counter.
    unsafe {
        _mm_lfence();
        let ticks = _rdtsc();
        _mm_lfence();
        ticks
    }
}

/// How fast the counter runs and what reading it costs.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Ticks per nanosecond.
    pub ghz: f64,
    /// What two readings in a row cost, nanoseconds.
    pub overhead_ns: f64,
}

impl Clock {
    /// Compares the counter with the kernel's clock for a tenth of a second.
    pub fn calibrate() -> Self {
        let (begin, from) = (seconds(), stamp());
        while seconds() - begin < 0.1 {}
        let (to, end) = (stamp(), seconds());
        let ghz = (to - from) as f64 / ((end - begin) * 1e9);
        let shortest = (0..20_000)
            .map(|_| {
                let before = stamp();
                stamp() - before
            })
            .min()
            .unwrap_or(0);
        Self {
            ghz,
            overhead_ns: shortest as f64 / ghz,
        }
    }

    /// Nanoseconds of so many ticks, less what one measurement costs.
    pub fn net_ns(&self, ticks: u32) -> f64 {
        (f64::from(ticks) / self.ghz - self.overhead_ns).max(0.0)
    }

    /// A share of a sorted list of durations, in nanoseconds: 0.5 is the median, 1 the longest.
    pub fn percentile(&self, sorted: &[u32], share: f64) -> f64 {
        let last = sorted.len().saturating_sub(1);
        let index = whole(share * last as f64);
        sorted.get(index).map_or(0.0, |&ticks| self.net_ns(ticks))
    }
}

/// The difference of two readings, as far as 32 bits hold it.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a stretch of more than 32 bits of ticks is a stalled machine, and only its length is lost"
)]
pub const fn ticks(from: u64, to: u64) -> u32 {
    to.wrapping_sub(from) as u32
}
