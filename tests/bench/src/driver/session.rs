// SPDX-License-Identifier: MIT OR Apache-2.0
//! One allocator at work in one machine.

use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::callbacks::{self, forget_conversions, set_cpu};
use super::machine::Machine;
use super::rounding::cpu_number;
use crate::abi::{Config, FAIL, Operations, Stats};

/// Something to measure.
#[derive(Clone, Copy, Debug)]
pub struct Allocator {
    operations: &'static Operations,
    name: &'static str,
}

/// The driver's call-backs and most allocators are state of the program: one session at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

impl Allocator {
    /// An allocator behind the interface.
    ///
    /// # Safety
    /// The functions do what `include/bb_abi.h` says, for the rest of the program.
    pub unsafe fn new(operations: &'static Operations) -> Self {
        Self {
            operations,
            name: operations.name(),
        }
    }

    /// The same under another name, where two have the same.
    pub const fn renamed(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// The name in tables.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Only copies and hands out overlapping memory: a limit, not an allocator.
    pub fn is_limit(&self) -> bool {
        self.name().starts_with("memcpy_")
    }
}

/// An allocator between `init` and `fini`.
#[derive(Debug)]
pub struct Session<'a> {
    /// The guest it serves.
    pub machine: &'a Machine,
    operations: &'static Operations,
    _one: MutexGuard<'static, ()>,
}

impl<'a> Session<'a> {
    /// Starts an allocator in a machine, with these [flags](crate::abi::flags).
    ///
    /// # Errors
    /// What `init` returned, if it was not 0.
    pub fn open(allocator: &Allocator, machine: &'a Machine, flags: u32) -> Result<Self, c_int> {
        Self::open_with(allocator, machine, &machine.config(flags))
    }

    /// The same with a configuration that is not the machine's own in all points.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open_with(
        allocator: &Allocator,
        machine: &'a Machine,
        config: &Config,
    ) -> Result<Self, c_int> {
        let one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        forget_conversions();
        callbacks::refuse_conversions(false);
        machine.hand_out_growth_pages_again();
        // SAFETY: The configuration describes memory that lives as long as the machine, which outlives the session.
        match unsafe { (allocator.operations.init)(config) } {
            0 => Ok(Self {
                machine,
                operations: allocator.operations,
                _one: one,
            }),
            code => Err(code),
        }
    }

    /// The calling thread stands for this CPU.
    #[inline]
    pub fn enter_cpu(&self, cpu: usize) {
        let cpu = cpu_number(cpu);
        set_cpu(cpu);
        // SAFETY: The allocator is started.
        unsafe { (self.operations.thread_init)(cpu.cast_signed()) }
    }

    /// Maps a buffer; [`None`] if there is no memory.
    ///
    /// # Safety
    /// `buffer` is valid for reads and writes of `length` bytes until it is unmapped or the session ends.
    #[inline]
    pub unsafe fn map(
        &self,
        buffer: *mut u8,
        length: usize,
        direction: c_int,
        align_mask: u32,
    ) -> Option<u64> {
        // SAFETY: The allocator is started; the buffer by the caller's contract.
        let bus = unsafe { (self.operations.map)(buffer.cast(), length, direction, align_mask) };
        (bus != FAIL).then_some(bus)
    }

    /// Ends a mapping.
    ///
    /// # Safety
    /// `bus` is what `map` returned for this length and direction, and has not been unmapped.
    #[inline]
    pub unsafe fn unmap(&self, bus: u64, length: usize, direction: c_int) {
        // SAFETY: Passed on.
        unsafe { (self.operations.unmap)(bus, length, direction) }
    }

    /// Syncs part of a mapping.
    ///
    /// # Safety
    /// The range lies in a mapping of that direction.
    #[inline]
    pub unsafe fn sync(&self, bus: u64, length: usize, direction: c_int) {
        // SAFETY: Passed on.
        unsafe { (self.operations.sync)(bus, length, direction) }
    }

    /// Where the device sees a bus address.
    pub fn device_view(&self, bus: u64) -> *mut u8 {
        // SAFETY: The allocator is started; the answer is only an address.
        unsafe { (self.operations.bus_to_va)(bus).cast() }
    }

    /// Runs deferred work; how many items were done.
    pub fn background(&self) -> c_int {
        // SAFETY: The allocator is started, and no other thread is in it.
        unsafe { (self.operations.background)() }
    }

    /// The allocator's own account.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        // SAFETY: The allocator is started; a valid place for the answer.
        unsafe { (self.operations.stats)(&raw mut stats) };
        stats
    }

    /// Share of the pool that is in use, by the allocator's own account.
    pub fn used_share(&self) -> f64 {
        self.stats().used_bytes as f64 / self.machine.setup.pool_bytes as f64
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // SAFETY: The allocator is started, and no thread can name the session any more.
        unsafe { (self.operations.fini)() }
    }
}
