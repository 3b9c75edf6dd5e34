// SPDX-License-Identifier: MIT OR Apache-2.0
//! `locked_lifo`: slots of 256 KiB on a stack under one lock. What the simplest allocator costs, and what it wastes.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::spin_lock::SpinLock;
use super::table::{Implementation, operations};
use crate::abi::direction::TO_DEVICE;
use crate::abi::{Config, Operations, Stats};

const SLOT: usize = 256 << 10;

/// The slots.
#[derive(Debug)]
struct LockedLifo {
    config: Config,
    lock: SpinLock,
    free: UnsafeCell<Vec<u32>>,
    /// What a slot's first byte stands for in the driver's memory.
    originals: Vec<AtomicPtr<u8>>,
}

// SAFETY: The stack is only touched under the lock.
unsafe impl Sync for LockedLifo {}

impl LockedLifo {
    fn with_free<R>(&self, body: impl FnOnce(&mut Vec<u32>) -> R) -> R {
        // SAFETY: The lock is held, so this is the only reference.
        self.lock.with(|| body(unsafe { &mut *self.free.get() }))
    }

    fn copy_at(&self, bus: u64, length: usize, to_device: bool) {
        let offset = self.offset_of(bus);
        let first = self.originals[offset / SLOT].load(Ordering::Relaxed);
        self.copy(offset, first.wrapping_add(offset % SLOT), length, to_device);
    }
}

impl Implementation for LockedLifo {
    const NAME: &'static CStr = c"locked_lifo";

    #[inline]
    fn place() -> &'static AtomicPtr<Self> {
        static PLACE: AtomicPtr<LockedLifo> = AtomicPtr::new(ptr::null_mut());
        &PLACE
    }

    fn start(config: &Config) -> Result<Self, String> {
        let slots = u32::try_from(config.pool_size / SLOT).map_err(|error| error.to_string())?;
        Ok(Self {
            config: *config,
            lock: SpinLock::new(),
            free: UnsafeCell::new((0..slots).rev().collect()),
            originals: (0..slots)
                .map(|_| AtomicPtr::new(ptr::null_mut()))
                .collect(),
        })
    }

    #[inline]
    fn config(&self) -> &Config {
        &self.config
    }

    unsafe fn map(
        &self,
        original: *mut u8,
        length: usize,
        _direction: c_int,
        _align_mask: u32,
    ) -> Option<u64> {
        let low_bits = original.addr() & self.config.min_align_mask as usize;
        if low_bits + length > SLOT {
            return None;
        }
        let slot = self.with_free(Vec::pop)? as usize;
        let first = original.wrapping_sub(low_bits);
        self.originals[slot].store(first, Ordering::Relaxed);
        let offset = slot * SLOT + low_bits;
        self.copy(offset, original, length, true);
        Some(self.config.pool_bus + offset as u64)
    }

    unsafe fn unmap(&self, bus: u64, length: usize, direction: c_int) {
        if direction != TO_DEVICE {
            self.copy_at(bus, length, false);
        }
        let slot = u32::try_from(self.offset_of(bus) / SLOT).unwrap_or(u32::MAX);
        self.with_free(|free| free.push(slot));
    }

    unsafe fn sync(&self, bus: u64, length: usize, direction: c_int) {
        self.copy_at(bus, length, direction == TO_DEVICE);
    }

    fn stats(&self) -> Stats {
        let slots = self.originals.len();
        let free = self.with_free(|free| free.len());
        Stats {
            pool_bytes: (slots * SLOT) as u64,
            used_bytes: ((slots - free) * SLOT) as u64,
            meta_bytes: (slots * (size_of::<u32>() + size_of::<usize>())) as u64,
            ..Stats::default()
        }
    }
}

/// The allocator.
pub static OPERATIONS: Operations = operations::<LockedLifo>();
