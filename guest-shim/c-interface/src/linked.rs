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

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicUsize, Ordering};

    static INTERRUPTS_OFF: AtomicUsize = AtomicUsize::new(0);

    /// A kernel that answers what it is asked, and does not know protocol 7.
    #[unsafe(no_mangle)]
    extern "C" fn svsm_swiotlb_platform_call(registers: *mut CallRegisters) -> c_int {
        // SAFETY: `Linked` passes registers of its own.
        let registers = unsafe { &mut *registers };
        if registers.rax >> 32 == 7 {
            registers.rcx = 99;
            return -1;
        }
        *registers = CallRegisters {
            rax: 0,
            rcx: registers.rcx + 1,
            rdx: registers.rdx + 2,
            r8: registers.r8 + 3,
        };
        0
    }

    #[unsafe(no_mangle)]
    extern "C" fn svsm_swiotlb_platform_cpu() -> usize {
        5
    }

    #[unsafe(no_mangle)]
    extern "C" fn svsm_swiotlb_platform_interrupts_save() -> usize {
        INTERRUPTS_OFF.swap(1, Ordering::Relaxed)
    }

    #[unsafe(no_mangle)]
    extern "C" fn svsm_swiotlb_platform_interrupts_restore(saved: usize) {
        INTERRUPTS_OFF.store(saved, Ordering::Relaxed);
    }

    #[unsafe(no_mangle)]
    extern "C" fn svsm_swiotlb_platform_translate(address: u64, bytes: u64) -> *mut c_void {
        let place = usize::try_from(address).map_or(0, |address| address + 8);
        core::ptr::without_provenance_mut(if bytes == 0 { 0 } else { place })
    }

    #[test]
    fn the_kernels_functions_are_what_the_shim_calls() {
        let asked = snp::svsm::CallRegisters::new(6 << 32, [10, 20, 30]);
        let mut registers = asked;
        assert_eq!(Linked.call(&mut registers), Ok(()));
        let answer = (registers.rax, registers.rcx, registers.rdx, registers.r8);
        assert_eq!(answer, (0, 11, 22, 33));
        let refused = snp::svsm::CallRegisters {
            rax: 7 << 32,
            ..asked
        };
        registers = refused;
        assert_eq!(Linked.call(&mut registers), Err(CallFailed));
        assert_eq!(registers, refused, "what a call that was not run left");
        assert_eq!(Linked.cpu(), 5);
        let saved = Linked.interrupts_save();
        assert_eq!((saved, Linked.interrupts_save()), (0, 1));
        Linked.interrupts_restore(saved);
        assert_eq!(INTERRUPTS_OFF.load(Ordering::Relaxed), 0);
        let place = Linked.translate(4096, 1).map(|place| place.addr().get());
        assert_eq!((place, Linked.translate(4096, 0)), (Some(4104), None));
    }
}
