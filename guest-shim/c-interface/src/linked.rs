// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel whose functions are linked with the library, and the shim's view of it (feature `linked-platform`).
//!
//! A call through a table costs a retpoline in a kernel that mistrusts its branch predictor. Functions with fixed names
//! cost a call. The copies are the shim's own: one string instruction, or words below 128 bytes, which read each byte of
//! the pool once. A kernel's `memcpy` may read some of them twice.

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;

use guest_shim::{CallFailed, Platform};

use crate::registers::{CallRegisters, answered};

// SAFETY: The declarations are the contract; the kernel defines these functions (`svsm_swiotlb_attach` says so).
unsafe extern "C" {
    /// Issues the call in `registers` by the guest call sequence (AMD 58019, section 5: calling area, GHCB, VMGEXIT; both
    /// belong to the kernel) with interrupts off, and writes the registers back. Returns 0, or anything else if the
    /// service has not seen the call. Never called under the library's lock.
    ///
    /// Defined by the kernel, like the four functions below. Each of them may be called on any CPU, on several at the same
    /// time, from every context that calls the library. None may call the library, unwind or longjmp out.
    pub fn svsm_swiotlb_platform_call(registers: *mut CallRegisters) -> c_int;

    /// Number of this CPU, counted from 0. Only a hint: a wrong one costs speed, never correctness.
    pub fn svsm_swiotlb_platform_cpu() -> usize;

    /// Turns interrupts off on this CPU and returns what they were. Afterwards nothing that calls the library runs on
    /// this CPU until `svsm_swiotlb_platform_interrupts_restore`.
    pub fn svsm_swiotlb_platform_interrupts_save() -> usize;

    /// Puts interrupts back to what `svsm_swiotlb_platform_interrupts_save` returned.
    pub fn svsm_swiotlb_platform_interrupts_restore(saved: usize);

    /// Where the kernel has mapped `bytes` bytes of guest physical memory at `address` (without the C-bit); null if it
    /// has not. Called once, at attach, for the whole window. The mapping is writable, write-back, shared (C-bit clear),
    /// stays as long as the pool is used, and no C object lies in it.
    pub fn svsm_swiotlb_platform_translate(address: u64, bytes: u64) -> *mut c_void;
}

/// The kernel that the library is linked with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linked;

// SAFETY: The contract of the functions says the same as that of the trait: a mapping of the whole window that nothing
// else overlaps, and interrupts off from save to restore. The copies are the trait's.
unsafe impl Platform for Linked {
    fn call(&self, registers: &mut snp::svsm::CallRegisters) -> Result<(), CallFailed> {
        // SAFETY: The function's contract; the registers are valid for reads and writes.
        answered(registers, |copy| unsafe {
            svsm_swiotlb_platform_call(copy)
        })
    }

    #[inline]
    fn cpu(&self) -> usize {
        // SAFETY: The function's contract.
        unsafe { svsm_swiotlb_platform_cpu() }
    }

    fn interrupts_save(&self) -> usize {
        // SAFETY: The function's contract.
        unsafe { svsm_swiotlb_platform_interrupts_save() }
    }

    fn interrupts_restore(&self, saved: usize) {
        // SAFETY: The function's contract.
        unsafe { svsm_swiotlb_platform_interrupts_restore(saved) }
    }

    fn translate(&self, address: u64, bytes: u64) -> Option<NonNull<u8>> {
        // SAFETY: The function's contract.
        NonNull::new(unsafe { svsm_swiotlb_platform_translate(address, bytes) }.cast())
    }
}
