// SPDX-License-Identifier: MIT OR Apache-2.0
//! Filling the pool before something is measured.

use std::fmt;
use std::str::FromStr;

use super::random::Random;
use super::rounding::whole;
use super::session::Session;
use crate::abi::direction::TO_DEVICE;

/// Failures in a row that mean "full".
const FULL: u32 = 2000;

/// What the pool holds before something is measured; shares in percent of the pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// Live mappings until the allocator's own used bytes reach this share.
    Used(f64),
    /// Full, then random frees down to this share: fragmented.
    Fragmented(f64),
    /// Live mappings until their payload reaches this share.
    Payload(f64),
    /// Full, then random frees until the payload is at this share.
    FragmentedPayload(f64),
}

impl Fill {
    /// Nothing.
    pub const EMPTY: Self = Self::Used(0.0);
}

impl FromStr for Fill {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = match text.as_bytes().first() {
            Some(b'f' | b'p' | b'q') => text.split_at(1),
            _ => ("", text),
        };
        let share: f64 = number
            .parse()
            .map_err(|_| format!("'{text}' is no fill: write 90, f90, p75 or q75"))?;
        Ok(match kind {
            "f" => Self::Fragmented(share),
            "p" => Self::Payload(share),
            "q" => Self::FragmentedPayload(share),
            _ => Self::Used(share),
        })
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Used(share) => write!(f, "{share}"),
            Self::Fragmented(share) => write!(f, "f{share}"),
            Self::Payload(share) => write!(f, "p{share}"),
            Self::FragmentedPayload(share) => write!(f, "q{share}"),
        }
    }
}

/// Mappings that stay while something is measured.
#[derive(Debug, Default)]
pub struct Ballast {
    live: Vec<(u64, usize)>,
    /// Bytes of the mapped buffers.
    pub payload: usize,
    /// Maps that failed while the pool was filled.
    pub failures: u64,
}

impl Ballast {
    /// How many mappings.
    pub const fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Bus address and length of the oldest ones first.
    pub fn live(&self) -> &[(u64, usize)] {
        &self.live
    }

    /// Maps `length` bytes of the machine's ballast buffer from `offset` on, and keeps the mapping.
    #[inline]
    pub fn add(&mut self, session: &Session<'_>, offset: usize, length: usize) -> bool {
        let buffer = session.machine.ballast_at(offset);
        // SAFETY: Offsets and lengths of the workload stay inside the ballast buffer, which outlives the session.
        match unsafe { session.map(buffer, length, TO_DEVICE, 0) } {
            Some(bus) => {
                self.live.push((bus, length));
                self.payload += length;
                true
            }
            None => false,
        }
    }

    /// Takes a mapping that is unmapped already.
    fn forget(&mut self, index: usize) -> (u64, usize) {
        let (bus, length) = self.live.swap_remove(index);
        self.payload -= length;
        (bus, length)
    }

    /// Unmaps one of them; the last takes its place.
    pub fn remove(&mut self, session: &Session<'_>, index: usize) {
        let (bus, length) = self.forget(index);
        // SAFETY: A live mapping of this direction.
        unsafe { session.unmap(bus, length, TO_DEVICE) };
    }

    /// Unmaps every second one in the order of their addresses.
    pub fn remove_every_second(&mut self, session: &Session<'_>) {
        self.live.sort_unstable();
        let mut index = 0;
        let mut kept = Vec::with_capacity(self.live.len() / 2 + 1);
        for (bus, length) in std::mem::take(&mut self.live) {
            index += 1;
            if index % 2 == 0 {
                kept.push((bus, length));
            } else {
                self.payload -= length;
                // SAFETY: A live mapping of this direction.
                unsafe { session.unmap(bus, length, TO_DEVICE) };
            }
        }
        self.live = kept;
    }

    /// Unmaps all, the newest first.
    pub fn drop_all(&mut self, session: &Session<'_>) {
        while let Some(last) = self.len().checked_sub(1) {
            self.remove(session, last);
        }
    }
}

/// Fills the pool of a session that was just opened.
pub fn fill(session: &Session<'_>, fill: Fill) -> Ballast {
    let mut random = Random::new(session.machine.setup.seed * 7919 + 17);
    let mut ballast = Ballast::default();
    match fill {
        Fill::Used(percent) => fill_used(session, &mut random, &mut ballast, percent / 100.0),
        Fill::Fragmented(percent) => {
            fill_used(session, &mut random, &mut ballast, 2.0);
            // The share is looked at after every 16th, asking costs more than freeing.
            let mut frees: u64 = 0;
            while !ballast.is_empty() {
                let look = frees.is_multiple_of(16);
                frees += 1;
                if look && session.used_share() <= percent / 100.0 {
                    break;
                }
                let index = random.below(ballast.len());
                ballast.remove(session, index);
            }
        }
        Fill::Payload(percent) => {
            let goal = payload_bytes(session, percent);
            fill_payload(session, &mut random, &mut ballast, goal);
        }
        Fill::FragmentedPayload(percent) => {
            fill_payload(session, &mut random, &mut ballast, usize::MAX);
            let goal = payload_bytes(session, percent);
            while !ballast.is_empty() && ballast.payload > goal {
                let index = random.below(ballast.len());
                ballast.remove(session, index);
            }
        }
    }
    ballast
}

fn payload_bytes(session: &Session<'_>, percent: f64) -> usize {
    whole(session.machine.setup.pool_bytes as f64 * (percent / 100.0))
}

/// Something that only copies has no account and is never full.
fn keeps_no_account(session: &Session<'_>, maps: usize) -> bool {
    maps > 64 && session.stats().used_bytes == 0
}

/// By the allocator's own account; a share above 1 means "until nothing fits".
fn fill_used(session: &Session<'_>, random: &mut Random, ballast: &mut Ballast, target: f64) {
    let pool = session.machine.setup.pool_bytes as f64;
    let cpus = session.machine.setup.cpus;
    let precise = target > 0.95 && target < 1.0;
    let (mut failures, mut maps) = (0, 0);
    while target > 0.0 && failures < FULL {
        if keeps_no_account(session, maps) {
            break;
        }
        if (maps % 16 == 0 || precise) && session.used_share() >= target {
            break;
        }
        let length = random.mixed_size();
        session.enter_cpu(maps % cpus);
        maps += 1;
        if target <= 1.0 && session.used_share() + length as f64 / pool > target + 0.002 {
            failures += 1;
            continue;
        }
        if ballast.add(session, random.bits(0xff8), length) {
            failures = 0;
        } else {
            failures += 1;
            ballast.failures += 1;
        }
    }
}

/// By payload: the same requests for every allocator.
fn fill_payload(session: &Session<'_>, random: &mut Random, ballast: &mut Ballast, goal: usize) {
    let cpus = session.machine.setup.cpus;
    let (mut failures, mut maps) = (0, 0);
    while ballast.payload < goal && failures < FULL {
        let length = random.mixed_size();
        let offset = random.bits(0xff8);
        if keeps_no_account(session, maps) {
            break;
        }
        session.enter_cpu(maps % cpus);
        maps += 1;
        if ballast.add(session, offset, length) {
            failures = 0;
        } else {
            failures += 1;
            ballast.failures += 1;
        }
    }
}
