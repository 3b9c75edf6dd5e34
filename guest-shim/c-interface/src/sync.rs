// SPDX-License-Identifier: MIT OR Apache-2.0
//! Passing ownership of part of a mapping to and fro without unmapping it.

use core::ffi::c_int;

use crate::argument::input;
use crate::error::{Outcome, number_of};
use crate::mapping::Mapping;
use crate::pool::PoolStorage;

/// Shows the device what the driver has written to `length` bytes at `offset`, as `dma_sync_single_range_for_device`
/// does. Copies where the device reads.
///
/// Any number of syncs of a mapping up to 61 may run at the same time, in interrupt handlers in the middle of others too:
/// none waits for another, and none is refused for another's sake. Only an unmap at the same time, a driver's mistake, is.
///
/// Errors: INVALID_ARGUMENT; OUT_OF_RANGE for bytes beyond the mapping; else those that `enum svsm_swiotlb_error` names
/// for sync. Nothing has changed then.
///
/// # Safety
/// `pool` is null or a pool; `mapping` is null or initialised.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_sync_for_device(
    pool: *mut PoolStorage,
    mapping: *const Mapping,
    offset: u64,
    length: u64,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let (pool, mapping) = unsafe { (PoolStorage::get(pool)?, input(mapping)?) };
        Ok(pool.sync_for_device(&mapping.handle()?, offset, length)?)
    };
    number_of(answer())
}

/// Shows the driver what the device has written to `length` bytes at `offset`, as `dma_sync_single_range_for_cpu` does.
/// Copies where the device writes: exactly these bytes, whatever lies there. In a mapping made with KEEP what the device has
/// not written is the buffer's own; in one made with DEVICE_WRITTEN it may be another mapping's, so these are bytes that
/// the device has written.
///
/// Errors: as `svsm_swiotlb_sync_for_device`.
///
/// # Safety
/// As for `svsm_swiotlb_sync_for_device`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_sync_for_cpu(
    pool: *mut PoolStorage,
    mapping: *const Mapping,
    offset: u64,
    length: u64,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let (pool, mapping) = unsafe { (PoolStorage::get(pool)?, input(mapping)?) };
        Ok(pool.sync_for_cpu(&mapping.handle()?, offset, length)?)
    };
    number_of(answer())
}

/// `svsm_swiotlb_sync_for_device` by device address, which may lie anywhere inside a mapping; all `length` bytes from it
/// must.
///
/// Errors: as `svsm_swiotlb_sync_for_device`, but for a mapping that has ended and whose address is in use again.
///
/// # Safety
/// `pool` is null or a pool.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_sync_address_for_device(
    pool: *mut PoolStorage,
    address: u64,
    length: u64,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        Ok(pool.sync_address_for_device(address, length)?)
    };
    number_of(answer())
}

/// `svsm_swiotlb_sync_for_cpu` by device address.
///
/// Errors: as `svsm_swiotlb_sync_address_for_device`.
///
/// # Safety
/// `pool` is null or a pool.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_sync_address_for_cpu(
    pool: *mut PoolStorage,
    address: u64,
    length: u64,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        Ok(pool.sync_address_for_cpu(address, length)?)
    };
    number_of(answer())
}
