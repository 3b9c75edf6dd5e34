// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modelled guest: its pool, its drivers' buffers, and what is the same for every allocator.

use std::ptr::NonNull;

use super::callbacks::{copy_library, copy_string_move};
use super::clock::Clock;
use super::memory::{PoolMemory, Region};
use super::random::LONGEST;
use crate::abi;

/// Buffers that one thread maps in turn.
pub const BUFFERS: usize = 16;
/// Distance of those buffers.
pub const BUFFER_STRIDE: usize = LONGEST + 4096;
/// What a thread's buffers begin at a multiple of.
const BUFFER_ALIGN: usize = 2 << 20;
/// Bus address of the pool's first byte.
const POOL_BUS: u64 = 1 << 32;

/// The routine that copies payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyRoutine {
    /// `rep movsb`.
    #[default]
    StringMove,
    /// `memcpy` of the C library.
    Library,
}

/// What a run is made with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Size of the pool in bytes, a multiple of 4 MiB.
    pub pool_bytes: usize,
    /// CPUs of the modelled guest.
    pub cpus: usize,
    /// Low address bits that the device wants preserved.
    pub min_align_mask: u32,
    /// Memory of the modelled guest in bytes.
    pub guest_ram: u64,
    /// Seed of the workload.
    pub seed: u64,
    /// Who copies.
    pub copy: CopyRoutine,
    /// How long the loop that gives the mean runs, milliseconds.
    pub bulk_ms: f64,
    /// Most operations that are timed one by one.
    pub timed_operations: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            pool_bytes: 64 << 20,
            cpus: 2,
            min_align_mask: 0,
            guest_ram: 16 << 30,
            seed: 1,
            copy: CopyRoutine::default(),
            bulk_ms: 15.0,
            timed_operations: 20_000,
        }
    }
}

/// A driver's memory: private to the guest, valid as long as the machine.
#[derive(Debug)]
pub struct Buffers(Region);

impl Buffers {
    fn new(bytes: usize, fill: u8) -> Self {
        let region = Region::reserve(bytes + BUFFER_ALIGN);
        let buffers = Self(region);
        // SAFETY: Inside the region, which only this function knows so far.
        unsafe { buffers.base().write_bytes(fill, bytes) };
        buffers
    }

    /// The first byte.
    pub fn base(&self) -> NonNull<u8> {
        let base = self.0.base();
        // SAFETY: `new` reserves one alignment more than is used.
        unsafe { base.add(base.align_offset(BUFFER_ALIGN)) }
    }

    /// The buffer whose turn it is.
    #[inline]
    pub fn turn(&self, turn: usize) -> NonNull<u8> {
        // SAFETY: A thread's memory holds all of its buffers.
        unsafe { self.base().add(turn % BUFFERS * BUFFER_STRIDE) }
    }
}

/// Memory of the modelled guest.
#[derive(Debug)]
pub struct Machine {
    /// What the run is made with.
    pub setup: Setup,
    /// The time.
    pub clock: Clock,
    pub(super) memory: PoolMemory,
    /// What pre-filled mappings are made of.
    pub(super) ballast: Buffers,
    /// What measuring threads map.
    pub(super) threads: Vec<Buffers>,
}

impl Machine {
    /// A guest whose pool is backed by memory.
    pub fn new(setup: Setup, clock: Clock) -> Self {
        Self::with_pool(setup, clock, true)
    }

    /// A guest whose pool is only address space: for what copies nothing.
    pub fn untouched(setup: Setup, clock: Clock) -> Self {
        Self::with_pool(setup, clock, false)
    }

    fn with_pool(setup: Setup, clock: Clock, touched: bool) -> Self {
        let threads = (0..setup.cpus)
            .map(|thread| Buffers::new(BUFFERS * BUFFER_STRIDE, thread.to_le_bytes()[0]))
            .collect();
        Self {
            setup,
            clock,
            memory: PoolMemory::new(setup.pool_bytes, touched),
            ballast: Buffers::new(LONGEST + 8192, 0x11),
            threads,
        }
    }

    /// What an allocator is started with.
    pub fn config(&self, flags: u32) -> abi::Config {
        use super::callbacks::{convert, get_pages, put_pages, this_cpu};
        abi::Config {
            abi: abi::VERSION,
            flags,
            pool: self.memory.pool().as_ptr(),
            pool_size: self.memory.bytes(),
            pool_bus: POOL_BUS,
            ncpus: super::rounding::cpu_number(self.setup.cpus),
            min_align_mask: self.setup.min_align_mask,
            guest_ram: self.setup.guest_ram,
            copy: match self.setup.copy {
                CopyRoutine::StringMove => copy_string_move,
                CopyRoutine::Library => copy_library,
            },
            convert,
            get_pages,
            put_pages,
            this_cpu,
        }
    }

    /// The guest's pages for growth are all free again; a session does this when it opens.
    pub fn hand_out_growth_pages_again(&self) {
        super::callbacks::reset_arena(self.memory.arena().as_ptr());
    }

    /// A buffer for mappings that nobody looks into: 264 KiB, less the offset.
    #[inline]
    pub fn ballast_at(&self, offset: usize) -> *mut u8 {
        self.ballast.base().as_ptr().wrapping_add(offset)
    }
}
