// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether an allocator does its job: no overlap, every byte where it belongs, nothing leaked, alignment kept.

use super::machine::Machine;
use super::memory::Region;
use super::random::{LONGEST, Random};
use super::session::{Allocator, Session};
use crate::abi::direction::FROM_DEVICE;

/// Steps of a pass: each maps or unmaps.
const STEPS: usize = 20_000;
/// Places that hold a mapping or not.
const PLACES: usize = 256;
/// Distance of the places' buffers.
const STRIDE: usize = LONGEST + 8192;
/// Findings that are kept as text.
const KEPT: usize = 3;
/// Longest mapping when the low 12 bits are preserved: alignment costs up to a page at both ends.
const LONGEST_ALIGNED: usize = 200_000;
/// What a partial sync covers, and the byte in it that is looked at.
const SYNC_OFFSET: usize = 4096;
const SYNC_BYTES: usize = 1000;
const SYNCED_BYTE: usize = 4500;

/// Alignment mask of the maps and low bits that the device wants preserved, by pass.
const PASSES: [(u32, u32); 3] = [(0, 0), (0, 0), (4095, 4095)];

/// What one pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Maps that succeeded.
    pub maps: usize,
    /// Maps that failed.
    pub full: usize,
    /// Errors found.
    pub errors: usize,
    /// The first of them.
    pub findings: Vec<String>,
}

impl Pass {
    fn error(&mut self, finding: impl FnOnce() -> String) {
        self.errors += 1;
        if self.findings.len() < KEPT {
            self.findings.push(finding());
        }
    }
}

/// Runs all passes.
///
/// # Errors
/// A line that says why the allocator did not start.
pub fn run(allocator: &Allocator, machine: &Machine) -> Result<Vec<Pass>, String> {
    let passes = PASSES.iter().zip(99..);
    passes
        .map(|(&(align_mask, min_align_mask), seed)| {
            let mut config = machine.config(0);
            config.min_align_mask = min_align_mask;
            let session = Session::open_with(allocator, machine, &config)
                .map_err(|code| format!("{}: init failed with {code}", allocator.name()))?;
            Ok(Test::new(&session, align_mask, min_align_mask, seed).run())
        })
        .collect()
}

/// A mapping and what its buffer must hold.
#[derive(Clone, Copy)]
struct Live {
    bus: u64,
    length: usize,
    buffer: *mut u8,
    pattern: u8,
}

struct Test<'a> {
    session: &'a Session<'a>,
    align_mask: u32,
    min_align_mask: u32,
    random: Random,
    memory: Region,
    places: Vec<Option<Live>>,
    pass: Pass,
}

impl<'a> Test<'a> {
    fn new(session: &'a Session<'a>, align_mask: u32, min_align_mask: u32, seed: u64) -> Self {
        Self {
            session,
            align_mask,
            min_align_mask,
            random: Random::new(seed),
            memory: Region::reserve(PLACES * STRIDE),
            places: vec![None; PLACES],
            pass: Pass::default(),
        }
    }

    fn run(mut self) -> Pass {
        self.session.enter_cpu(0);
        for _ in 0..STEPS {
            let place = self.random.below(PLACES);
            match self.places[place].take() {
                None => self.places[place] = self.map(place),
                Some(live) => self.unmap(live),
            }
        }
        for live in std::mem::take(&mut self.places).into_iter().flatten() {
            // SAFETY: A live mapping of this direction.
            unsafe { self.session.unmap(live.bus, live.length, FROM_DEVICE) };
        }
        let used = self.session.stats().used_bytes;
        if used != 0 {
            self.pass
                .error(|| format!("leak: {used} bytes in use after the last unmap"));
        }
        self.pass
    }

    fn map(&mut self, place: usize) -> Option<Live> {
        let mut length = self.random.mixed_size();
        if self.min_align_mask != 0 {
            length = length.min(LONGEST_ALIGNED);
        }
        let offset = self.random.bits(4095);
        let pattern = self.random.byte();
        // SAFETY: A place's buffer has room for the longest mapping at every offset below 8192.
        let buffer = unsafe { self.memory.base().add(place * STRIDE + offset).as_ptr() };
        // SAFETY: Inside the buffer, which nothing else uses now.
        unsafe {
            buffer.write(pattern);
            buffer.add(length - 1).write(pattern ^ 0x5a);
            if length > 9 {
                buffer.add(length / 2).write(pattern.wrapping_add(1));
            }
        }
        let cpu = self.random.below(self.session.machine.setup.cpus);
        self.session.enter_cpu(cpu);
        // SAFETY: The buffer stays until the end of the pass.
        let bus = unsafe {
            self.session
                .map(buffer, length, FROM_DEVICE, self.align_mask)
        };
        let Some(bus) = bus else {
            self.pass.full += 1;
            return None;
        };
        self.pass.maps += 1;
        let live = Live {
            bus,
            length,
            buffer,
            pattern,
        };
        self.check_map(&live);
        Some(live)
    }

    fn check_map(&mut self, live: &Live) {
        let (bus, length, pattern) = (live.bus, live.length, live.pattern);
        let view = self.session.device_view(bus);
        // SAFETY: The device's view of the mapping.
        let (first, last) = unsafe { (view.read(), view.add(length - 1).read()) };
        if first != pattern || last != pattern ^ 0x5a {
            self.pass
                .error(|| format!("a mapping of {length} bytes does not hold its buffer"));
        }
        if self.min_align_mask == 0 && bus & u64::from(self.align_mask) != 0 {
            self.pass.error(|| format!("{bus:#x} is not aligned"));
        }
        if (bus ^ live.buffer.addr() as u64) & u64::from(self.min_align_mask) != 0 {
            self.pass
                .error(|| format!("{bus:#x} does not preserve the low address bits"));
        }
        let overlaps = |other: &&Live| {
            bus < other.bus + other.length as u64 && other.bus < bus + length as u64
        };
        for other in self.places.iter().flatten().filter(overlaps) {
            let other = other.bus;
            self.pass
                .error(|| format!("{bus:#x}, {length} bytes, overlaps {other:#x}"));
        }
    }

    /// The device writes some bytes, then the mapping ends.
    fn unmap(&mut self, live: Live) {
        let Live {
            bus,
            length,
            buffer,
            pattern,
        } = live;
        let view = self.session.device_view(bus);
        let written = self.random.byte();
        // SAFETY: The device's view of the mapping.
        unsafe {
            view.write(written);
            view.add(length - 1).write(written ^ 1);
        }
        if length > 6000 && self.random.bits(1) != 0 {
            let value = written.wrapping_add(7);
            // SAFETY: The mapping is longer than what is synced; the buffer is read when the sync has returned.
            let arrived = unsafe {
                view.add(SYNCED_BYTE).write(value);
                let from = bus + SYNC_OFFSET as u64;
                self.session.sync(from, SYNC_BYTES, FROM_DEVICE);
                buffer.add(SYNCED_BYTE).read()
            };
            if arrived != value {
                self.pass
                    .error(|| format!("a partial sync of {length} bytes lost a byte"));
            }
        }
        // SAFETY: A live mapping; its buffer is read when it has ended.
        let (first, last, middle) = unsafe {
            self.session.unmap(bus, length, FROM_DEVICE);
            (
                buffer.read(),
                buffer.add(length - 1).read(),
                buffer.add(length / 2).read(),
            )
        };
        if first != written || last != written ^ 1 {
            self.pass
                .error(|| format!("{length} bytes did not come back"));
        }
        let untouched = length > 9 && length / 2 != SYNCED_BYTE;
        if untouched && middle != pattern.wrapping_add(1) {
            self.pass
                .error(|| format!("of {length} bytes, one that nobody wrote is lost"));
        }
    }
}
