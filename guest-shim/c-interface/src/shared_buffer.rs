// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that is built and read in place, in the pool.

use core::ffi::{c_int, c_void};

use crate::argument::{Output, input};
use crate::error::{Error, Outcome, number_of};
use crate::mapping::Constraints;
use crate::pool::PoolStorage;

/// Shared memory without an original: queues, descriptor tables, data that needs no second copy. The host and its devices
/// may change every byte at any time, so each byte is read once, through a volatile pointer, before it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SharedBuffer {
    /// The address to give to the device.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
    /// What tells this buffer from others at the same address, before and after.
    pub generation: u64,
    /// Where the kernel reaches it: inside the mapping that `translate` returned.
    pub pointer: *mut c_void,
}

impl SharedBuffer {
    fn of(shared: &guest_shim::SharedBuffer) -> Self {
        Self {
            address: shared.address(),
            length: shared.length() as u64,
            generation: shared.generation(),
            pointer: shared.as_ptr().as_ptr().cast(),
        }
    }
}

/// Hands out `length` bytes of zeroed shared memory at a multiple of `align`, a power of two; as `dma_alloc_coherent`.
///
/// Errors: INVALID_ARGUMENT, INVALID_REQUEST, and those that `enum svsm_swiotlb_error` names for map.
///
/// # Safety
/// `pool` is null or a pool; `buffer` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_alloc_shared(
    pool: *mut PoolStorage,
    length: usize,
    align: u64,
    buffer: *mut SharedBuffer,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        let output = Output::required(buffer)?;
        let buffer = SharedBuffer::of(&pool.alloc_shared(length, align)?);
        // SAFETY: The caller's contract.
        unsafe { output.set(buffer) };
        Ok(())
    };
    number_of(answer())
}

/// The same where a device reaches it; `constraints` may be null. `alignment` is what the address is a multiple of, and so
/// is one more than `min_align_mask`.
///
/// Errors: as `svsm_swiotlb_alloc_shared`.
///
/// # Safety
/// `pool` is null or a pool; `constraints` is null or initialised; `buffer` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_alloc_shared_within(
    pool: *mut PoolStorage,
    length: usize,
    constraints: *const Constraints,
    buffer: *mut SharedBuffer,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let (pool, version) = unsafe { PoolStorage::get_versioned(pool)? };
        let output = Output::required(buffer)?;
        // SAFETY: The caller's contract.
        let constraints = unsafe { Constraints::read(constraints, version)? };
        let buffer = SharedBuffer::of(&pool.alloc_shared_within(length, &constraints)?);
        // SAFETY: The caller's contract.
        unsafe { output.set(buffer) };
        Ok(())
    };
    number_of(answer())
}

/// Ends the use of shared memory. The caller has made sure that no device uses it any more.
///
/// Errors: INVALID_ARGUMENT, and those that `enum svsm_swiotlb_error` names for free; nothing has changed then.
///
/// # Safety
/// `pool` is null or a pool; `buffer` is null or initialised. Nobody uses the memory any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_free_shared(
    pool: *mut PoolStorage,
    buffer: *const SharedBuffer,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let buffer = unsafe { input(buffer)? };
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        let length = usize::try_from(buffer.length).map_err(|_| Error::WrongLength)?;
        // SAFETY: No `SharedBuffer` object of the shim's is kept here, and C uses the memory no more by the caller's
        // contract.
        unsafe { pool.free_shared_parts(buffer.address, length, buffer.generation)? };
        Ok(())
    };
    number_of(answer())
}

/// The same for callers that keep only address and length.
///
/// Errors: INVALID_ARGUMENT, and those that `enum svsm_swiotlb_error` names for free; nothing has changed then. One misuse
/// is not detected: the address has been handed out again, as a shared buffer of equal length.
///
/// # Safety
/// `pool` is null or a pool. Nobody uses the memory any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_free_shared_address(
    pool: *mut PoolStorage,
    address: u64,
    length: u64,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        let length = usize::try_from(length).map_err(|_| Error::WrongLength)?;
        // SAFETY: As in `svsm_swiotlb_free_shared`.
        unsafe { pool.free_shared_address(address, length)? };
        Ok(())
    };
    number_of(answer())
}
