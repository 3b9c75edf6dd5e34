// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the shim needs from its kernel: the attach table.
//!
//! A kernel owns its calling areas, its GHCBs, its page tables and its interrupt flag. The shim touches none of them; it
//! asks through these few functions. That is what lets the same library live in a kernel that keeps those pages itself.

use core::fmt;
use core::ptr::NonNull;

use snp::svsm::CallRegisters;

use crate::shared_memory;

/// The host resumed the vCPU without running the service, or the kernel could not make the call: the registers mean
/// nothing and the service has done nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallFailed;

impl fmt::Display for CallFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the service was not run")
    }
}

impl core::error::Error for CallFailed {}

/// A kernel, as the shim sees it.
///
/// # Safety
/// Implementations guarantee, for as long as a pool over them or a [`SharedBuffer`](crate::SharedBuffer) of it is used:
/// 1. [`translate`](Platform::translate) of the window returns a writable mapping of all of it, shared (C-bit clear) and
///    write-back, that no Rust object and no other mapping in the program overlaps. Memory behind it need only exist
///    where the service has granted it.
/// 2. After [`interrupts_save`](Platform::interrupts_save) no code that may call the shim runs on this CPU until
///    [`interrupts_restore`](Platform::interrupts_restore).
/// 3. The copy functions access exactly the bytes they are given and form no Rust reference to pool memory.
pub unsafe trait Platform {
    /// Issues an SVSM call by the guest call sequence (AMD 58019 section 5), interrupts off around it, and writes the
    /// service's registers back. Called with no lock held, possibly with interrupts off.
    ///
    /// # Errors
    /// [`CallFailed`] when the service did not see the call.
    fn call(&self, registers: &mut CallRegisters) -> Result<(), CallFailed>;

    /// Number of this CPU, from 0; which cache a map and an unmap use. A hint: a wrong or stale one costs speed and never
    /// correctness, and any number is allowed. Asked with interrupts in whatever state the caller has them.
    fn cpu(&self) -> usize {
        0
    }

    /// Turns interrupts off on this CPU and returns what they were.
    fn interrupts_save(&self) -> usize;

    /// Puts interrupts back to a state that [`interrupts_save`](Platform::interrupts_save) returned.
    fn interrupts_restore(&self, saved: usize);

    /// Where the kernel has mapped a range of guest physical addresses; `None` if it has not.
    fn translate(&self, address: u64, bytes: u64) -> Option<NonNull<u8>>;

    /// Copies into the pool. A kernel with a faster copy for memory that a device writes to at the same time overrides
    /// it.
    ///
    /// # Safety
    /// `buffer` is valid for reads and `pool` is pool memory, both for `bytes` bytes.
    unsafe fn copy_to_pool(&self, pool: NonNull<u8>, buffer: *const u8, bytes: usize) {
        // SAFETY: Passed on.
        unsafe { shared_memory::copy_to_pool(pool, buffer, bytes) }
    }

    /// Copies out of the pool, reading every pool byte exactly once.
    ///
    /// # Safety
    /// `buffer` is valid for writes and `pool` is pool memory, both for `bytes` bytes.
    unsafe fn copy_from_pool(&self, buffer: *mut u8, pool: NonNull<u8>, bytes: usize) {
        // SAFETY: Passed on.
        unsafe { shared_memory::copy_from_pool(buffer, pool, bytes) }
    }
}

// SAFETY: Every function is passed on to an implementation that keeps the contract.
unsafe impl<P: Platform + ?Sized> Platform for &P {
    fn call(&self, registers: &mut CallRegisters) -> Result<(), CallFailed> {
        (**self).call(registers)
    }

    fn cpu(&self) -> usize {
        (**self).cpu()
    }

    fn interrupts_save(&self) -> usize {
        (**self).interrupts_save()
    }

    fn interrupts_restore(&self, saved: usize) {
        (**self).interrupts_restore(saved);
    }

    fn translate(&self, address: u64, bytes: u64) -> Option<NonNull<u8>> {
        (**self).translate(address, bytes)
    }

    unsafe fn copy_to_pool(&self, pool: NonNull<u8>, buffer: *const u8, bytes: usize) {
        // SAFETY: Passed on.
        unsafe { (**self).copy_to_pool(pool, buffer, bytes) }
    }

    unsafe fn copy_from_pool(&self, buffer: *mut u8, pool: NonNull<u8>, bytes: usize) {
        // SAFETY: Passed on.
        unsafe { (**self).copy_from_pool(buffer, pool, bytes) }
    }
}
