// SPDX-License-Identifier: MIT OR Apache-2.0
//! One thread of a measurement: warm-up, the loop that gives the mean, the operations that are timed one by one.

use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::Barrier;
use std::thread;

use super::{Cell, DEEPEST, Size};
use crate::driver::clock::{seconds, stamp, ticks};
use crate::driver::machine::Buffers;
use crate::driver::random::Random;
use crate::driver::rounding::whole;
use crate::driver::session::Session;

/// What a thread brings home.
pub(super) struct Run {
    pub(super) pairs: u64,
    pub(super) failures: u64,
    pub(super) seconds: f64,
    /// Ticks of the first and the second half of each pair: map and unmap, with a depth unmap and map.
    pub(super) first: Vec<u32>,
    pub(super) second: Vec<u32>,
}

/// A thread that measures.
pub(super) struct Worker<'a> {
    session: &'a Session<'a>,
    buffers: &'a Buffers,
    random: Random,
    size: Size,
    direction: c_int,
    thread: usize,
    turn: usize,
    ring: Vec<Option<(u64, usize)>>,
    failures: u64,
}

impl<'a> Worker<'a> {
    pub(super) fn new(session: &'a Session<'a>, cell: &Cell, thread: usize, seed: u64) -> Self {
        Self {
            session,
            buffers: &session.machine.threads[thread],
            random: Random::new(seed),
            size: cell.size,
            direction: cell.mode.direction(),
            thread,
            turn: 0,
            ring: vec![None; cell.depth.clamp(1, DEEPEST)],
            failures: 0,
        }
    }

    pub(super) fn run(self, start: &Barrier) -> Run {
        pin(self.thread);
        self.session.enter_cpu(self.thread);
        if self.ring.len() == 1 {
            self.measure::<true>(start)
        } else {
            self.measure::<false>(start)
        }
    }

    /// Warms up, runs the loop that gives the mean, then times operations one by one.
    fn measure<const AT_ONCE: bool>(mut self, start: &Barrier) -> Run {
        start.wait();
        let begin = seconds();
        let mut warm: u32 = 0;
        while seconds() - begin < 0.004 || warm < 64 {
            self.pair::<AT_ONCE, false>();
            warm += 1;
            if warm >= 64 && seconds() - begin > 0.05 {
                break;
            }
        }
        let estimate = (seconds() - begin) / f64::from(warm);
        let setup = &self.session.machine.setup;
        let pairs = whole(setup.bulk_ms * 1e-3 / estimate).clamp(50, 2_000_000);

        start.wait();
        self.failures = 0;
        let begin = seconds();
        for _ in 0..pairs {
            self.pair::<AT_ONCE, false>();
        }
        let took = seconds() - begin;
        let failures = self.failures;
        start.wait();

        // Never longer than 40 ms, but enough for a percentile.
        let timed = setup.timed_operations;
        let fits = whole(0.04 / estimate).max(300).min(timed);
        let timed = if estimate * timed as f64 > 0.04 {
            fits
        } else {
            timed
        };
        let mut first = Vec::with_capacity(timed);
        let mut second = Vec::with_capacity(timed);
        start.wait();
        for _ in 0..timed {
            let [begin, middle] = self.pair::<AT_ONCE, true>();
            let end = stamp();
            first.push(ticks(begin, middle));
            second.push(ticks(middle, end));
        }
        start.wait();
        for (bus, length) in self.ring.iter_mut().filter_map(Option::take) {
            // SAFETY: Mapped by this thread and still live.
            unsafe { self.session.unmap(bus, length, self.direction) };
        }
        Run {
            pairs: pairs as u64,
            failures,
            seconds: took,
            first,
            second,
        }
    }

    /// One pair; time stamps before and between its halves.
    #[inline(always)]
    fn pair<const AT_ONCE: bool, const TIMED: bool>(&mut self) -> [u64; 2] {
        let now = || if TIMED { stamp() } else { 0 };
        let length = self.size.next(&mut self.random);
        let buffer: NonNull<u8> = self.buffers.turn(self.turn);
        self.turn = self.turn.wrapping_add(1);
        if AT_ONCE {
            let begin = now();
            // SAFETY: A buffer of this thread, long enough for every size and alive with the machine.
            let bus = unsafe { self.session.map(buffer.as_ptr(), length, self.direction, 0) };
            let middle = now();
            match bus {
                // SAFETY: Mapped above.
                Some(bus) => unsafe { self.session.unmap(bus, length, self.direction) },
                None => self.failures += 1,
            }
            [begin, middle]
        } else {
            let place = self.random.below(self.ring.len());
            let Some(slot) = self.ring.get_mut(place) else {
                return [0; 2];
            };
            let begin = now();
            if let Some((bus, length)) = slot.take() {
                // SAFETY: Mapped by this thread and still live.
                unsafe { self.session.unmap(bus, length, self.direction) };
            }
            let middle = now();
            // SAFETY: As above.
            let bus = unsafe { self.session.map(buffer.as_ptr(), length, self.direction, 0) };
            *slot = bus.map(|bus| (bus, length));
            if bus.is_none() {
                self.failures += 1;
            }
            [begin, middle]
        }
    }
}

/// Keeps the calling thread on one CPU; a machine that does not allow it only measures less exactly.
fn pin(thread: usize) {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    // SAFETY: A CPU set is plain bits, all zero is the empty one; the kernel reads it only.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(thread % processors, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}
