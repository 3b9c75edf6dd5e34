// SPDX-License-Identifier: MIT OR Apache-2.0
//! The attach table, and the shim's view of it.

use core::ffi::{c_int, c_void};
use core::fmt;
use core::ptr::NonNull;

use guest_shim::{CallFailed, Platform};

use crate::error::Error;
use crate::registers::{CallRegisters, answered};

/// What the kernel lends the library. Copied by attach; `context` is passed to every function and may be null.
///
/// Each function may be called on any CPU, on several at the same time, from every context that calls the library.
/// None may call the library for the same pool, unwind or longjmp out.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PlatformTable {
    /// Whatever the functions need.
    pub context: *mut c_void,
    /// Issues the call in `registers` by the guest call sequence (AMD 58019, section 5: calling area, GHCB, VMGEXIT; both
    /// belong to the kernel) with interrupts off, and writes the registers back. Returns 0, or anything else if the
    /// service has not seen the call. Never called under the library's lock.
    pub call:
        Option<unsafe extern "C" fn(context: *mut c_void, registers: *mut CallRegisters) -> c_int>,
    /// Number of this CPU, counted from 0. Only a hint: a wrong one costs speed, never correctness. May be null: 0.
    pub cpu: Option<unsafe extern "C" fn(context: *mut c_void) -> usize>,
    /// Turns interrupts off on this CPU and returns what they were. Afterwards nothing that calls the library runs on
    /// this CPU until `interrupts_restore`.
    pub interrupts_save: Option<unsafe extern "C" fn(context: *mut c_void) -> usize>,
    /// Puts interrupts back to what `interrupts_save` returned.
    pub interrupts_restore: Option<unsafe extern "C" fn(context: *mut c_void, saved: usize)>,
    /// Where the kernel has mapped `bytes` bytes of guest physical memory at `address` (without the C-bit); null if it
    /// has not. Called once, at attach, for the whole window. The mapping is writable, write-back, shared (C-bit clear),
    /// stays as long as the pool is used, and no C object lies in it.
    pub translate:
        Option<unsafe extern "C" fn(context: *mut c_void, address: u64, bytes: u64) -> *mut c_void>,
    /// Copies `bytes` bytes into the pool; the device may write to them at the same time. May be null.
    pub copy_to_pool: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            pool: *mut c_void,
            buffer: *const c_void,
            bytes: usize,
        ),
    >,
    /// Copies `bytes` bytes out of the pool and reads each of them once. May be null.
    pub copy_from_pool: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            buffer: *mut c_void,
            pool: *const c_void,
            bytes: usize,
        ),
    >,
}

/// The functions a kernel must have, under their types as the shim calls them.
#[derive(Clone, Copy)]
struct Required {
    context: *mut c_void,
    call: unsafe extern "C" fn(*mut c_void, *mut CallRegisters) -> c_int,
    cpu: Option<unsafe extern "C" fn(*mut c_void) -> usize>,
    interrupts_save: unsafe extern "C" fn(*mut c_void) -> usize,
    interrupts_restore: unsafe extern "C" fn(*mut c_void, usize),
    translate: unsafe extern "C" fn(*mut c_void, u64, u64) -> *mut c_void,
}

/// A kernel behind an attach table. The copies are separate, so that those a kernel leaves out are the shim's own.
#[derive(Clone, Copy)]
pub(crate) struct Callbacks {
    required: Required,
    copy_to_pool: Option<unsafe extern "C" fn(*mut c_void, *mut c_void, *const c_void, usize)>,
    copy_from_pool: Option<unsafe extern "C" fn(*mut c_void, *mut c_void, *const c_void, usize)>,
}

// SAFETY: The table's contract: its functions may be called on any CPU, at the same time.
unsafe impl Send for Callbacks {}
// SAFETY: As above.
unsafe impl Sync for Callbacks {}

impl Callbacks {
    /// # Errors
    /// [`Error::InvalidArgument`] if a function is missing that may not be.
    ///
    /// # Safety
    /// The functions keep the contract stated at [`PlatformTable`] as long as the result is used.
    pub(crate) unsafe fn new(table: &PlatformTable) -> Result<Self, Error> {
        Ok(Self {
            required: Required {
                context: table.context,
                call: table.call.ok_or(Error::InvalidArgument)?,
                cpu: table.cpu,
                interrupts_save: table.interrupts_save.ok_or(Error::InvalidArgument)?,
                interrupts_restore: table.interrupts_restore.ok_or(Error::InvalidArgument)?,
                translate: table.translate.ok_or(Error::InvalidArgument)?,
            },
            copy_to_pool: table.copy_to_pool,
            copy_from_pool: table.copy_from_pool,
        })
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks")
            .field("context", &self.required.context)
            .finish_non_exhaustive()
    }
}

// SAFETY: The C contract of the table says the same as that of the trait: a mapping of the whole window that nothing else
// overlaps, and interrupts off from save to restore. The copies are the trait's.
unsafe impl Platform for Required {
    fn call(&self, registers: &mut snp::svsm::CallRegisters) -> Result<(), CallFailed> {
        // SAFETY: The table's contract; the registers are valid for reads and writes.
        answered(registers, |copy| unsafe { (self.call)(self.context, copy) })
    }

    fn cpu(&self) -> usize {
        // SAFETY: The table's contract.
        self.cpu.map_or(0, |cpu| unsafe { cpu(self.context) })
    }

    fn interrupts_save(&self) -> usize {
        // SAFETY: The table's contract.
        unsafe { (self.interrupts_save)(self.context) }
    }

    fn interrupts_restore(&self, saved: usize) {
        // SAFETY: The table's contract.
        unsafe { (self.interrupts_restore)(self.context, saved) }
    }

    fn translate(&self, address: u64, bytes: u64) -> Option<NonNull<u8>> {
        // SAFETY: The table's contract.
        NonNull::new(unsafe { (self.translate)(self.context, address, bytes) }.cast())
    }
}

// SAFETY: As for `Required`. The kernel's copies access exactly the bytes they are given, by the table's contract.
unsafe impl Platform for Callbacks {
    fn call(&self, registers: &mut snp::svsm::CallRegisters) -> Result<(), CallFailed> {
        self.required.call(registers)
    }

    fn cpu(&self) -> usize {
        self.required.cpu()
    }

    fn interrupts_save(&self) -> usize {
        self.required.interrupts_save()
    }

    fn interrupts_restore(&self, saved: usize) {
        self.required.interrupts_restore(saved);
    }

    fn translate(&self, address: u64, bytes: u64) -> Option<NonNull<u8>> {
        self.required.translate(address, bytes)
    }

    unsafe fn copy_to_pool(&self, pool: NonNull<u8>, buffer: *const u8, bytes: usize) {
        let context = self.required.context;
        match self.copy_to_pool {
            // SAFETY: The caller's contract is that of the table's function.
            Some(copy) => unsafe { copy(context, pool.as_ptr().cast(), buffer.cast(), bytes) },
            // SAFETY: Passed on.
            None => unsafe { self.required.copy_to_pool(pool, buffer, bytes) },
        }
    }

    unsafe fn copy_from_pool(&self, buffer: *mut u8, pool: NonNull<u8>, bytes: usize) {
        let context = self.required.context;
        match self.copy_from_pool {
            // SAFETY: The caller's contract is that of the table's function.
            Some(copy) => unsafe { copy(context, buffer.cast(), pool.as_ptr().cast(), bytes) },
            // SAFETY: Passed on.
            None => unsafe { self.required.copy_from_pool(buffer, pool, bytes) },
        }
    }
}
