// SPDX-License-Identifier: MIT OR Apache-2.0
//! The classic algorithm behind the interface.

use std::ffi::{CStr, c_int};
use std::ptr;
use std::sync::atomic::AtomicPtr;

use super::{SLOT, Slots};
use crate::abi::direction::TO_DEVICE;
use crate::abi::{Config, Operations, Stats};
use crate::allocators::table::{Implementation, operations};

/// Slots over a driver's pool.
#[derive(Debug)]
struct Classic {
    config: Config,
    slots: Slots,
}

impl Classic {
    fn copy_at(&self, offset: usize, length: usize, to_device: bool) {
        let original = self.slots.original_of(offset);
        self.copy(offset, original, length, to_device);
    }
}

impl Implementation for Classic {
    const NAME: &'static CStr = c"classic";

    #[inline]
    fn place() -> &'static AtomicPtr<Self> {
        static PLACE: AtomicPtr<Classic> = AtomicPtr::new(ptr::null_mut());
        &PLACE
    }

    fn start(config: &Config) -> Result<Self, String> {
        Ok(Self {
            config: *config,
            slots: Slots::new(config.pool_size, config.ncpus.max(1) as usize),
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
        align_mask: u32,
    ) -> Option<u64> {
        let cpu = (self.config.this_cpu)() as usize;
        let min_align_mask = self.config.min_align_mask as usize;
        let align_mask = align_mask as usize;
        let offset = self
            .slots
            .take(original, length, min_align_mask, align_mask, cpu)?;
        self.copy_at(offset, length, true);
        Some(self.config.pool_bus + offset as u64)
    }

    unsafe fn unmap(&self, bus: u64, length: usize, direction: c_int) {
        let offset = self.offset_of(bus);
        if direction != TO_DEVICE {
            self.copy_at(offset, length, false);
        }
        self.slots.free(offset);
    }

    unsafe fn sync(&self, bus: u64, length: usize, direction: c_int) {
        self.copy_at(self.offset_of(bus), length, direction == TO_DEVICE);
    }

    fn stats(&self) -> Stats {
        Stats {
            pool_bytes: self.config.pool_size as u64,
            used_bytes: (self.slots.used() * SLOT) as u64,
            meta_bytes: self.slots.metadata_bytes() as u64,
            ..Stats::default()
        }
    }
}

/// The allocator.
pub static OPERATIONS: Operations = operations::<Classic>();
