// SPDX-License-Identifier: MIT OR Apache-2.0
//! No allocator: only the copies, through one fixed buffer per CPU (`memcpy_hot`, the best that a cache allows) or
//! through the CPU's whole share of the pool (`memcpy_walk`, the footprint of a next-fit search).

use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::table::{Implementation, operations};
use crate::abi::direction::TO_DEVICE;
use crate::abi::{Config, Operations, Stats};

/// What original addresses are kept per.
const GRAIN_SHIFT: u32 = 9;
/// Kept original addresses; a longer pool wraps round, which only matters to a walk that is longer than this.
const ORIGINALS: usize = 1 << 20;
/// CPUs with a position of their own.
const CPUS: usize = 64;

std::thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// Where a CPU's walk has come to, on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Position(AtomicUsize);

/// The copies alone.
#[derive(Debug)]
struct Copies<const WALK: bool> {
    config: Config,
    share: usize,
    positions: [Position; CPUS],
    originals: Vec<AtomicPtr<u8>>,
}

impl<const WALK: bool> Copies<WALK> {
    #[inline]
    fn original(&self, offset: usize) -> &AtomicPtr<u8> {
        &self.originals[(offset >> GRAIN_SHIFT) % ORIGINALS]
    }
}

/// What both kinds share.
trait Kind: Sized {
    const NAME: &'static CStr;
    fn place() -> &'static AtomicPtr<Self>;
}

impl Kind for Copies<false> {
    const NAME: &'static CStr = c"memcpy_hot";

    #[inline]
    fn place() -> &'static AtomicPtr<Self> {
        static PLACE: AtomicPtr<Copies<false>> = AtomicPtr::new(ptr::null_mut());
        &PLACE
    }
}

impl Kind for Copies<true> {
    const NAME: &'static CStr = c"memcpy_walk";

    #[inline]
    fn place() -> &'static AtomicPtr<Self> {
        static PLACE: AtomicPtr<Copies<true>> = AtomicPtr::new(ptr::null_mut());
        &PLACE
    }
}

impl<const WALK: bool> Implementation for Copies<WALK>
where
    Self: Kind,
{
    const NAME: &'static CStr = <Self as Kind>::NAME;

    #[inline]
    fn place() -> &'static AtomicPtr<Self> {
        <Self as Kind>::place()
    }

    fn start(config: &Config) -> Result<Self, String> {
        Ok(Self {
            config: *config,
            share: config.pool_size / config.ncpus.max(1) as usize,
            positions: [const { Position(AtomicUsize::new(0)) }; CPUS],
            originals: std::iter::repeat_with(|| AtomicPtr::new(ptr::null_mut()))
                .take(ORIGINALS)
                .collect(),
        })
    }

    #[inline]
    fn config(&self) -> &Config {
        &self.config
    }

    #[inline]
    fn enter_cpu(cpu: usize) {
        CPU.set(cpu % CPUS);
    }

    #[inline]
    unsafe fn map(&self, original: *mut u8, length: usize, _: c_int, _: u32) -> Option<u64> {
        let cpu = CPU.get();
        let mut offset = 0;
        if WALK {
            let position = &self.positions[cpu].0;
            offset = position.load(Ordering::Relaxed);
            if offset + length > self.share {
                offset = 0;
            }
            let next = offset + length.next_multiple_of(1 << GRAIN_SHIFT);
            position.store(next, Ordering::Relaxed);
        }
        offset += self.share * cpu;
        self.original(offset).store(original, Ordering::Relaxed);
        self.copy(offset, original, length, true);
        Some(self.config.pool_bus + offset as u64)
    }

    #[inline]
    unsafe fn unmap(&self, bus: u64, length: usize, direction: c_int) {
        if direction != TO_DEVICE {
            let offset = self.offset_of(bus);
            let original = self.original(offset).load(Ordering::Relaxed);
            self.copy(offset, original, length, false);
        }
    }

    unsafe fn sync(&self, _: u64, _: usize, _: c_int) {}

    fn stats(&self) -> Stats {
        Stats {
            pool_bytes: self.config.pool_size as u64,
            ..Stats::default()
        }
    }
}

/// One buffer per CPU.
pub static HOT: Operations = operations::<Copies<false>>();

/// Through the CPU's share of the pool.
pub static WALK: Operations = operations::<Copies<true>>();
