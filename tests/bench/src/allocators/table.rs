// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a Rust type to the interface's table of functions.
//!
//! The interface passes no context, so each type has one place where its running instance stands.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::abi::{self, Config, FAIL, Operations, Stats};

/// An allocator in Rust.
pub trait Implementation: Sized + Sync + 'static {
    /// Name in tables.
    const NAME: &'static CStr;

    /// Where the running instance stands: a static of the type's own.
    fn place() -> &'static AtomicPtr<Self>;

    /// An instance over what the driver lends.
    ///
    /// # Errors
    /// Why there is none.
    fn start(config: &Config) -> Result<Self, String>;

    /// What the driver lent.
    fn config(&self) -> &Config;

    /// The calling thread stands for this CPU; for those that do not ask the driver.
    fn enter_cpu(_cpu: usize) {}

    /// Maps a buffer and copies in; the bus address, or [`None`] if there is no memory.
    ///
    /// # Safety
    /// The buffer is valid for `length` bytes until it is unmapped.
    unsafe fn map(
        &self,
        original: *mut u8,
        length: usize,
        direction: c_int,
        align_mask: u32,
    ) -> Option<u64>;

    /// Ends a mapping; copies out unless the device only reads.
    ///
    /// # Safety
    /// `map` has returned this address for this length and direction, and nobody has unmapped it.
    unsafe fn unmap(&self, bus: u64, length: usize, direction: c_int);

    /// Copies part of a mapping: to the device if it only reads, else from it.
    ///
    /// # Safety
    /// The range lies in a mapping of that direction.
    unsafe fn sync(&self, bus: u64, length: usize, direction: c_int);

    /// Runs deferred work; how many items were done.
    fn background(&self) -> c_int {
        0
    }

    /// The allocator's own account.
    fn stats(&self) -> Stats;

    /// Distance of a bus address from the pool's first byte.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "addresses of the pool are 64 bits wide, as is usize"
    )]
    fn offset_of(&self, bus: u64) -> usize {
        (bus - self.config().pool_bus) as usize
    }

    /// Where the driver sees a byte of the pool.
    #[inline]
    fn pool_at(&self, offset: usize) -> *mut u8 {
        self.config().pool.wrapping_add(offset)
    }

    /// Copies between a pool byte and what it stands for, unless the driver wants no copies.
    #[inline]
    fn copy(&self, offset: usize, original: *mut u8, length: usize, to_device: bool) {
        let config = self.config();
        if config.flags & abi::flags::NO_COPY != 0 {
            return;
        }
        let (pool, original) = (self.pool_at(offset).cast(), original.cast());
        if to_device {
            (config.copy)(pool, original, length);
        } else {
            (config.copy)(original, pool, length);
        }
    }
}

/// The table of an implementation.
pub const fn operations<I: Implementation>() -> Operations {
    Operations {
        abi: abi::VERSION,
        name: I::NAME.as_ptr(),
        init: init::<I>,
        fini: fini::<I>,
        thread_init: thread_init::<I>,
        map: map::<I>,
        unmap: unmap::<I>,
        sync: sync::<I>,
        bus_to_va: bus_to_va::<I>,
        background: background::<I>,
        stats: stats::<I>,
    }
}

#[inline]
fn running<I: Implementation>() -> &'static I {
    // SAFETY: By the interface nothing is called before `init` has stored an instance, or after `fini`.
    unsafe { &*I::place().load(Ordering::Relaxed) }
}

/// # Safety
/// A valid configuration, and nothing else of this implementation runs.
unsafe extern "C" fn init<I: Implementation>(config: *const Config) -> c_int {
    // SAFETY: The caller's contract.
    let config = unsafe { &*config };
    if config.abi != abi::VERSION {
        return -1;
    }
    match I::start(config) {
        Ok(instance) => {
            let instance = Box::into_raw(Box::new(instance));
            I::place().store(instance, Ordering::Release);
            0
        }
        Err(error) => {
            eprintln!("{}: {error}", I::NAME.to_string_lossy());
            -1
        }
    }
}

/// # Safety
/// After an `init` that succeeded, and nothing else of this implementation runs.
unsafe extern "C" fn fini<I: Implementation>() {
    let instance = I::place().swap(ptr::null_mut(), Ordering::AcqRel);
    // SAFETY: Made by `init`, and taken out by this swap.
    drop(unsafe { Box::from_raw(instance) });
}

/// # Safety
/// None beyond the interface's.
unsafe extern "C" fn thread_init<I: Implementation>(cpu: c_int) {
    I::enter_cpu(usize::try_from(cpu).unwrap_or(0));
}

/// # Safety
/// As [`Implementation::map`].
unsafe extern "C" fn map<I: Implementation>(
    original: *mut c_void,
    length: usize,
    direction: c_int,
    align_mask: u32,
) -> u64 {
    // SAFETY: The caller's contract.
    let bus = unsafe { running::<I>().map(original.cast(), length, direction, align_mask) };
    bus.unwrap_or(FAIL)
}

/// # Safety
/// As [`Implementation::unmap`].
unsafe extern "C" fn unmap<I: Implementation>(bus: u64, length: usize, direction: c_int) {
    // SAFETY: The caller's contract.
    unsafe { running::<I>().unmap(bus, length, direction) }
}

/// # Safety
/// As [`Implementation::sync`].
unsafe extern "C" fn sync<I: Implementation>(bus: u64, length: usize, direction: c_int) {
    // SAFETY: The caller's contract.
    unsafe { running::<I>().sync(bus, length, direction) }
}

/// # Safety
/// Between `init` and `fini`.
unsafe extern "C" fn bus_to_va<I: Implementation>(bus: u64) -> *mut c_void {
    let instance = running::<I>();
    instance.pool_at(instance.offset_of(bus)).cast()
}

/// # Safety
/// Between `init` and `fini`.
unsafe extern "C" fn background<I: Implementation>() -> c_int {
    running::<I>().background()
}

/// # Safety
/// A valid place for the answer.
unsafe extern "C" fn stats<I: Implementation>(stats: *mut Stats) {
    // SAFETY: The caller's contract.
    unsafe { stats.write(running::<I>().stats()) };
}
