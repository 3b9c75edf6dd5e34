// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ending a mapping, by handle or by bare device address.

use core::ffi::c_int;

use crate::argument::input;
use crate::error::{Outcome, number_of};
use crate::mapping::{Mapping, direction_of};
use crate::pool::PoolStorage;

/// Ends a mapping, as `dma_unmap_single` does. Where the device writes, all of it is copied to the buffer; a mapping made
/// with DEVICE_WRITTEN copies nothing, because which bytes the device has written is not known.
///
/// The caller has seen the device's completion with acquire ordering; the copies come after it.
///
/// Errors: INVALID_ARGUMENT, and those that `enum svsm_swiotlb_error` names for unmap; nothing has changed then. Every
/// misuse of a handle is detected.
///
/// # Safety
/// `pool` is null or a pool; `mapping` is null or initialised.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_unmap(
    pool: *mut PoolStorage,
    mapping: *const Mapping,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let (pool, mapping) = unsafe { (PoolStorage::get(pool)?, input(mapping)?) };
        Ok(pool.unmap(mapping.handle()?)?)
    };
    number_of(answer())
}

/// Ends a mapping of which the device has written the first `written` bytes; only those are copied to the buffer. In a
/// mapping made with DEVICE_WRITTEN no byte beyond them was ever the buffer's, and none reaches it; so `written` is never
/// more than what the device has written for certain.
///
/// Errors: OUT_OF_RANGE if `written` exceeds the mapping, else as `svsm_swiotlb_unmap`.
///
/// # Safety
/// As for `svsm_swiotlb_unmap`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_unmap_written(
    pool: *mut PoolStorage,
    mapping: *const Mapping,
    written: u64,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let (pool, mapping) = unsafe { (PoolStorage::get(pool)?, input(mapping)?) };
        Ok(pool.unmap_written(mapping.handle()?, written)?)
    };
    number_of(answer())
}

/// Ends the mapping that begins at a device address, for callers that keep nothing else. `length` and `direction` are
/// those of the map.
///
/// Errors: as `svsm_swiotlb_unmap`. One misuse is not detected: the address has been handed out again with equal length
/// and direction.
///
/// # Safety
/// `pool` is null or a pool.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_unmap_address(
    pool: *mut PoolStorage,
    address: u64,
    length: u64,
    direction: c_int,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        Ok(pool.unmap_address(address, length, direction_of(direction)?)?)
    };
    number_of(answer())
}

/// `svsm_swiotlb_unmap_written` by device address.
///
/// Errors: as `svsm_swiotlb_unmap_address`, and OUT_OF_RANGE if `written` exceeds the mapping.
///
/// # Safety
/// `pool` is null or a pool.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_unmap_address_written(
    pool: *mut PoolStorage,
    address: u64,
    length: u64,
    direction: c_int,
    written: u64,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        let direction = direction_of(direction)?;
        Ok(pool.unmap_address_written(address, length, direction, written)?)
    };
    number_of(answer())
}
