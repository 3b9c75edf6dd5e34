// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which vCPU drives which device, and how long all of them go on.
//!
//! A pass has one work for each device. A work goes on round after round until each work of the
//! machine has done what it has to at least; so all of them are busy at the same time until the
//! slowest is done.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Most vCPUs of the guest.
pub const MAX_CPUS: usize = 16;

/// The vCPU that drives device number `device`.
#[must_use]
pub const fn owner(device: usize, cpus: usize) -> usize {
    match device.checked_rem(cpus) {
        Some(cpu) => cpu,
        None => 0,
    }
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is more to do.
    More,
    /// A round is complete; the next step would begin another one.
    Round,
}

/// A device or anything else that is driven by polling.
pub trait Work {
    /// Does what can be done now, and never waits.
    fn step(&mut self) -> Step;
    /// Rounds that are to be done at least.
    fn least_rounds(&self) -> u32 {
        1
    }
}

/// How many works have not done their least yet, over all vCPUs.
#[derive(Debug)]
pub struct Unfinished(AtomicUsize);

impl Unfinished {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Before a pass: how many works it has. No vCPU may be driving.
    pub fn restart(&self, works: usize) {
        self.0.store(works, Ordering::Release);
    }

    /// Every work has done its least.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    fn one_less(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Default for Unfinished {
    fn default() -> Self {
        Self::new()
    }
}

/// Drives the works of one vCPU in turn until everything is over; returns with no round begun.
pub fn drive<const N: usize>(works: &mut [Option<&mut dyn Work>; N], unfinished: &Unfinished) {
    let mut rounds = [0_u32; N];
    let mut at_rest = [false; N];
    loop {
        let mut all_at_rest = true;
        for ((work, rounds), at_rest) in works.iter_mut().zip(&mut rounds).zip(&mut at_rest) {
            let Some(work) = work.as_mut().filter(|_| !*at_rest) else {
                continue;
            };
            if work.step() == Step::Round {
                *rounds = rounds.saturating_add(1);
                if *rounds == work.least_rounds() {
                    unfinished.one_less();
                }
                *at_rest = unfinished.is_over();
            }
            all_at_rest &= *at_rest;
        }
        if all_at_rest {
            return;
        }
        spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::vec::Vec;

    /// Takes some steps for each round.
    struct Count {
        steps: u32,
        round: u32,
        least: u32,
    }

    impl Work for Count {
        fn step(&mut self) -> Step {
            self.steps += 1;
            if self.steps.is_multiple_of(self.round) {
                Step::Round
            } else {
                Step::More
            }
        }
        fn least_rounds(&self) -> u32 {
            self.least
        }
    }

    fn count(round: u32, least: u32) -> Count {
        Count {
            steps: 0,
            round,
            least,
        }
    }

    #[test]
    fn devices_are_spread_over_the_vcpus() {
        let owners = |cpus| [0, 1, 2].map(|device| owner(device, cpus));
        assert_eq!(owners(1), [0, 0, 0]);
        assert_eq!(owners(2), [0, 1, 0]);
        assert_eq!(owners(4), [0, 1, 2]);
        assert_eq!(owners(0), [0, 0, 0]);
    }

    #[test]
    fn the_quick_one_goes_on_until_the_slow_one_is_done_and_rounds_are_whole() {
        let (mut quick, mut slow) = (count(3, 1), count(100, 2));
        let unfinished = Unfinished::new();
        unfinished.restart(2);
        drive(&mut [Some(&mut quick), Some(&mut slow)], &unfinished);
        assert_eq!(slow.steps, 200);
        assert_eq!(quick.steps, 201, "at rest after the round under way");
    }

    #[test]
    fn vcpus_wait_for_each_other_with_work_in_hand() {
        let unfinished = Unfinished::new();
        unfinished.restart(3);
        let steps: Vec<_> = thread::scope(|scope| {
            let unfinished = &unfinished;
            let handles = [[3, 7], [50_000, 0]].map(|rounds| {
                scope.spawn(move || {
                    let mut works = rounds.map(|round| count(round, 1));
                    let list = works.each_mut();
                    let mut list = list.map(|work| {
                        let busy = work.round > 0;
                        busy.then_some(work as &mut dyn Work)
                    });
                    drive(&mut list, unfinished);
                    works.map(|work| work.steps)
                })
            });
            handles
                .into_iter()
                .map(|one| one.join().expect("ends"))
                .collect()
        });
        assert_eq!(steps[1][0], 50_000);
        assert!(steps[0][0] >= 3 && steps[0][0].is_multiple_of(3));
        assert!(steps[0][1] >= 7 && steps[0][1].is_multiple_of(7));
    }

    #[test]
    fn a_vcpu_without_work_returns_at_once() {
        let unfinished = Unfinished::new();
        unfinished.restart(1);
        drive(&mut [None, None], &unfinished);
        assert!(!unfinished.is_over());
    }
}
