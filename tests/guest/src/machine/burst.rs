// SPDX-License-Identifier: MIT OR Apache-2.0
//! A burst: mappings of all lengths from each vCPU at once, until the pool has to grow; then all of
//! them end, and what is empty is given back. Devices go on meanwhile.

use core::ptr::NonNull;

use guest_shim::virtio::GlobalPool;
use guest_shim::{Constraints, CopyIn, Direction, MapError, Mapping};
use test_guest::record::Record;
use test_guest::schedule::{Step, Work};
use test_guest::stop::Stop;

use super::calling::{GROWS, GuestPool, RELEASES};
use super::cpu;
use super::ending::fail;
use super::pass_watch::{emit, sample_pool};

/// Bytes of a vCPU's pattern, and the longest mapping.
pub const PATTERN_BYTES: usize = 1 << 20;
/// Most mappings at a time.
const MOST: usize = 64;
/// Rounds that each vCPU does at least.
const ROUNDS: u32 = 3;
/// Lengths, small slots and long runs mixed.
const LENGTHS: [usize; 8] = [700, 300 << 10, 4096, 1 << 20, 64, 20_000, 512 << 10, 9001];

#[derive(Debug, Clone, Copy)]
struct Mapped {
    mapping: Mapping,
    offset: usize,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Fill,
    Drain,
}

/// The burst of one vCPU.
#[derive(Debug)]
pub struct Burst {
    pattern: &'static mut [u8],
    mapped: [Option<Mapped>; MOST],
    count: usize,
    /// Bytes mapped at a time, at most.
    budget: usize,
    in_use: usize,
    way: Way,
    turn: usize,
    rounds: u32,
    maps: u64,
    refused: u64,
    released: u64,
}

impl Burst {
    /// A burst over `pattern`, of [`PATTERN_BYTES`], with at most `budget` bytes mapped.
    pub fn new(pattern: &'static mut [u8], number: usize, budget: usize) -> Self {
        for (index, byte) in pattern.iter_mut().enumerate() {
            *byte = expected(number, index);
        }
        Self {
            pattern,
            mapped: [None; MOST],
            count: 0,
            budget,
            in_use: 0,
            way: Way::Fill,
            turn: 7 * number,
            rounds: 0,
            maps: 0,
            refused: 0,
            released: 0,
        }
    }

    /// Says what was done; on any vCPU.
    pub fn report(&self, number: usize) {
        emit(Record::Burst {
            cpu: number as u64,
            rounds: u64::from(self.rounds),
            maps: self.maps,
            refused: self.refused,
            grows: GROWS.of(number),
            releases: RELEASES.of(number),
            released: self.released,
        });
    }

    /// One more mapping; false when this round has enough.
    fn fill(&mut self) -> bool {
        self.turn += 1;
        let bytes = LENGTHS[self.turn % LENGTHS.len()].min(self.pattern.len());
        if self.count == MOST || self.in_use + bytes > self.budget {
            return false;
        }
        // Another part of the pattern each time: a slot handed out twice shows.
        let offset = (self.turn * 4099) % (self.pattern.len() - bytes + 1);
        let Some(part) = self.pattern.get_mut(offset..offset + bytes) else {
            return false;
        };
        // SAFETY: The pattern is leaked, and only this vCPU touches it.
        let mapping = unsafe {
            GuestPool::pool().map(
                NonNull::from(part),
                Direction::Bidirectional,
                CopyIn::Keep,
                &Constraints::NONE,
            )
        };
        let mapping = match mapping {
            Ok(mapping) => mapping,
            // The devices come first; this is no more than a burst.
            Err(MapError::CapReached | MapError::NoContiguousRun | MapError::Busy) => {
                self.refused += 1;
                return false;
            }
            Err(cause) => fail(Stop::Burst, format_args!("map: {cause:?}")),
        };
        if let Some(slot) = self.mapped.get_mut(self.count) {
            *slot = Some(Mapped {
                mapping,
                offset,
                bytes,
            });
        }
        self.count += 1;
        self.in_use += bytes;
        true
    }

    /// Ends the youngest mapping and compares what comes back; false when there is none.
    fn drain(&mut self) -> bool {
        let Some(last) = self.count.checked_sub(1) else {
            return false;
        };
        self.count = last;
        let Some(one) = self.mapped.get_mut(last).and_then(Option::take) else {
            return false;
        };
        let number = cpu::number();
        let Some(part) = self.pattern.get_mut(one.offset..one.offset + one.bytes) else {
            return false;
        };
        part.fill(0);
        if let Err(cause) = GuestPool::pool().unmap(one.mapping) {
            fail(Stop::Burst, format_args!("unmap: {cause:?}"));
        }
        let mut bytes = (one.offset..).zip(part.iter());
        if let Some((index, _)) = bytes.find(|(index, byte)| **byte != expected(number, *index)) {
            fail(
                Stop::Burst,
                format_args!("vCPU {number}: byte {index} of a mapping came back changed"),
            );
        }
        self.in_use -= one.bytes;
        self.maps += 1;
        true
    }

    fn give_back(&mut self) {
        let given = GuestPool::pool().give_back();
        self.released += given.released_bytes;
        // Another vCPU may be at the same chunks.
        if let Some(cause) = given.stopped_by.filter(|cause| *cause != MapError::Busy) {
            fail(Stop::Burst, format_args!("give-back: {cause:?}"));
        }
    }
}

impl Work for Burst {
    fn step(&mut self) -> Step {
        match self.way {
            Way::Fill => {
                if !self.fill() {
                    self.way = Way::Drain;
                    sample_pool();
                }
                Step::More
            }
            Way::Drain => {
                if self.drain() {
                    return Step::More;
                }
                self.give_back();
                sample_pool();
                self.way = Way::Fill;
                self.rounds += 1;
                Step::Round
            }
        }
    }

    fn least_rounds(&self) -> u32 {
        ROUNDS
    }
}

/// What a byte of a vCPU's pattern is.
fn expected(number: usize, index: usize) -> u8 {
    let mixed = (index as u64 ^ (number as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_le_bytes()[6]
}
