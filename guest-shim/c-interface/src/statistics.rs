// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the pool has done, and how close it is to failing.

use core::ffi::{c_int, c_void};
use core::ptr;

use guest_shim::MapError;

use crate::argument::Output;
use crate::error::{Error, Outcome, number_of};
use crate::pool::PoolStorage;

/// Counters since attach, and the present fill. Sizes in bytes. Later versions append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Statistics {
    /// Mappings made.
    pub maps: u64,
    /// Mappings ended.
    pub unmaps: u64,
    /// Partial syncs.
    pub syncs: u64,
    /// Mappings and shared buffers refused.
    pub failures: u64,
    /// Shared buffers handed out and not freed yet.
    pub shared_buffers: u64,
    /// Copied into the pool at map.
    pub bytes_in: u64,
    /// Copied out of the pool at unmap.
    pub bytes_out: u64,
    /// Held now.
    pub granted_bytes: u64,
    /// The most ever held.
    pub peak_granted_bytes: u64,
    /// Slots of live mappings, shared buffers and reservations now.
    pub used_bytes: u64,
    /// The most that ever were.
    pub peak_used_bytes: u64,
    /// Given up so far.
    pub released_bytes: u64,
    /// Taken back by the host so far, by its own account.
    pub acknowledged_bytes: u64,
    /// Lost to answers that leave their owner open; never used again.
    pub lost_bytes: u64,
    /// Growths that gave memory.
    pub growths: u64,
    /// Growths that were refused.
    pub refused_growths: u64,
    /// Metadata in use.
    pub metadata_bytes: u64,
    /// Calls of the protocol issued, by number (docs/PROTOCOL.md, clause P-4.1).
    pub calls: [u64; 16],
    /// `failures` by cause: at index n those for which a function returned -n, an `enum svsm_swiotlb_error`.
    pub failures_by_error: [u64; 32],
}

impl Statistics {
    fn of(statistics: &guest_shim::Statistics) -> Self {
        let mut failures_by_error = [0; 32];
        for cause in MapError::ALL {
            let number = Error::from(cause).number().unsigned_abs() as usize;
            if let Some(count) = failures_by_error.get_mut(number) {
                *count += statistics.failures_for(cause);
            }
        }
        Self {
            maps: statistics.maps,
            unmaps: statistics.unmaps,
            syncs: statistics.syncs,
            failures: statistics.failures,
            shared_buffers: statistics.shared_buffers,
            bytes_in: statistics.bytes_in,
            bytes_out: statistics.bytes_out,
            granted_bytes: statistics.granted_bytes,
            peak_granted_bytes: statistics.peak_granted_bytes,
            used_bytes: statistics.used_bytes,
            peak_used_bytes: statistics.peak_used_bytes,
            released_bytes: statistics.released_bytes,
            acknowledged_bytes: statistics.acknowledged_bytes,
            lost_bytes: statistics.lost_bytes,
            growths: statistics.growths,
            refused_growths: statistics.refused_growths,
            metadata_bytes: statistics.metadata_bytes,
            calls: statistics.calls,
            failures_by_error,
        }
    }
}

/// How close the pool is to failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum PressureLevel {
    /// Less than 3/4 of what the pool can have is in use.
    Low = 0,
    /// At least 3/4.
    Elevated = 1,
    /// At least 7/8: large mappings may fail soon.
    High = 2,
    /// The last request failed for want of memory.
    Exhausted = 3,
}

/// How close the pool is to failing, and why it cannot have more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Pressure {
    /// `enum svsm_swiotlb_pressure_level`.
    pub level: i32,
    /// What limits the pool at present, an `enum svsm_swiotlb_error`: the last failure, a refusal that still stands, or
    /// the cap. 0 if nothing does.
    pub cause: i32,
    /// In use, in whole slots.
    pub used_bytes: u64,
    /// What the pool can have: the cap, or what it holds while the service refuses more.
    pub reachable_bytes: u64,
}

impl Pressure {
    fn of(pressure: &guest_shim::Pressure) -> Self {
        let level = match pressure.level {
            guest_shim::PressureLevel::Low => PressureLevel::Low,
            guest_shim::PressureLevel::Elevated => PressureLevel::Elevated,
            guest_shim::PressureLevel::High => PressureLevel::High,
            guest_shim::PressureLevel::Exhausted => PressureLevel::Exhausted,
        };
        Self {
            level: level as i32,
            cause: pressure
                .cause
                .map_or(0, |cause| Error::from(cause).number()),
            used_bytes: pressure.used_bytes,
            reachable_bytes: pressure.reachable_bytes,
        }
    }
}

/// The counters and the present fill. Issues no call.
///
/// `statistics_bytes` is `sizeof *statistics`: as much is written, and what this library does not know is 0 there.
///
/// # Safety
/// `pool` is null or a pool; `statistics` is null or points to `statistics_bytes` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_statistics(
    pool: *const PoolStorage,
    statistics: *mut Statistics,
    statistics_bytes: usize,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        let misfit = statistics_bytes == 0 || !statistics_bytes.is_multiple_of(size_of::<u64>());
        if statistics.is_null() || !statistics.is_aligned() || misfit {
            return Err(Error::InvalidArgument);
        }
        let known = Statistics::of(&pool.statistics());
        let bytes = statistics_bytes.min(size_of::<Statistics>());
        let start = statistics.cast::<c_void>().cast::<u8>();
        // SAFETY: The caller's structure has `statistics_bytes` bytes, ours at least `bytes`.
        unsafe {
            ptr::copy_nonoverlapping(ptr::from_ref(&known).cast(), start, bytes);
            start
                .add(bytes)
                .write_bytes(0, statistics_bytes.saturating_sub(bytes));
        }
        Ok(())
    };
    number_of(answer())
}

/// How close the pool is to failing, and why. Issues no call.
///
/// # Safety
/// `pool` is null or a pool; `pressure` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_pressure(
    pool: *const PoolStorage,
    pressure: *mut Pressure,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let pool = unsafe { PoolStorage::get(pool)? };
        let output = Output::required(pressure)?;
        let now = Pressure::of(&pool.pressure());
        // SAFETY: The caller's contract.
        unsafe { output.set(now) };
        Ok(())
    };
    number_of(answer())
}
