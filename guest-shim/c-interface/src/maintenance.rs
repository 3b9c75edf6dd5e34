// SPDX-License-Identifier: MIT OR Apache-2.0
//! Giving memory back to the host, and the cap on what the pool may hold.

use core::ffi::c_int;

use crate::argument::Output;
use crate::error::{Error, Outcome, number_of};
use crate::pool::PoolStorage;

/// What a give-back achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GivenBack {
    /// Bytes the pool no longer holds.
    pub released_bytes: u64,
    /// Bytes of those that the host says it took back; on hosts without separate shared memory a hint at best.
    pub acknowledged_bytes: u64,
    /// Why not more, if the service stopped it: an `enum svsm_swiotlb_error`, else 0.
    pub stopped_by: i32,
    /// 0.
    pub reserved: u32,
}

impl GivenBack {
    pub(crate) fn of(given: &guest_shim::GivenBack) -> Self {
        Self {
            released_bytes: given.released_bytes,
            acknowledged_bytes: given.acknowledged_bytes,
            stopped_by: given
                .stopped_by
                .map_or(0, |cause| Error::from(cause).number()),
            reserved: 0,
        }
    }
}

/// Gives back empty chunks that the load of the recent past did not need, as far as they exceed the configuration's
/// `minimum_bytes`. Nothing depends on this being called; a kernel calls it now and then, from a context that may take a
/// few calls' time.
///
/// `given_back` may be null. A service that stops it is no error, see `stopped_by`.
///
/// # Safety
/// `pool` is null or a pool; `given_back` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_maintain(
    pool: *mut PoolStorage,
    given_back: *mut GivenBack,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        let output = Output::optional(given_back)?;
        let given = GivenBack::of(&pool.maintain());
        // SAFETY: The caller's contract.
        unsafe { output.set(given) };
        Ok(())
    };
    number_of(answer())
}

/// Gives back every empty chunk, for a kernel that stops using the pool. What is still mapped stays granted and usable,
/// and the pool grows again when it is used again.
///
/// `given_back` may be null. A service that stops it is no error, see `stopped_by`.
///
/// # Safety
/// As for `svsm_swiotlb_maintain`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_give_back(
    pool: *mut PoolStorage,
    given_back: *mut GivenBack,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        let output = Output::optional(given_back)?;
        let given = GivenBack::of(&pool.give_back());
        // SAFETY: The caller's contract.
        unsafe { output.set(given) };
        Ok(())
    };
    number_of(answer())
}

/// Sets the cap on granted bytes, a multiple of 2 MiB. A cap below what is granted stops growth and takes nothing away.
/// `previous` may be null; it receives the cap that held before.
///
/// Errors: INVALID_ARGUMENT; INVALID_REQUEST for a cap that is no multiple; TOO_LARGE above the window or the service's
/// hard cap; else what kept the call from being answered (BUSY, NOT_ATTACHED, SERVICE_FAULT).
///
/// # Safety
/// `pool` is null or a pool; `previous` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_set_cap(
    pool: *mut PoolStorage,
    bytes: u64,
    previous: *mut u64,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        let output = Output::optional(previous)?;
        let before = pool.set_cap(bytes)?;
        // SAFETY: The caller's contract.
        unsafe { output.set(before) };
        Ok(())
    };
    number_of(answer())
}
