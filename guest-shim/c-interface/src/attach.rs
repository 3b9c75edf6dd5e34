// SPDX-License-Identifier: MIT OR Apache-2.0
//! Becoming the holder of the service's grants, and the memory that takes.

use core::ffi::{c_int, c_void};
use core::slice;

use crate::Kernel;
use crate::argument::Output;
#[cfg(not(feature = "linked-platform"))]
use crate::argument::input;
#[cfg(not(feature = "linked-platform"))]
use crate::callbacks::PlatformTable;
use crate::config::Config;
use crate::error::{Error, Outcome, number_of};
use crate::pool::{PoolStorage, Window};

/// Bytes of storage that a pool needs, at most `SVSM_SWIOTLB_POOL_BYTES`.
#[unsafe(no_mangle)]
pub extern "C" fn svsm_swiotlb_pool_bytes() -> usize {
    size_of::<PoolStorage>()
}

/// Alignment of that storage in bytes, at most `SVSM_SWIOTLB_POOL_ALIGNMENT`.
#[unsafe(no_mangle)]
pub extern "C" fn svsm_swiotlb_pool_alignment() -> usize {
    align_of::<PoolStorage>()
}

/// Bytes of metadata for a window of `window_bytes` used by `cpus` CPUs: 1 % of it, or what the caches of the CPUs and one
/// record for each 2 KiB need where that is more (small windows, many CPUs). When the records for mappings below 2 KiB
/// run out, such mappings take 2 KiB each.
#[unsafe(no_mangle)]
pub extern "C" fn svsm_swiotlb_metadata_bytes(window_bytes: u64, cpus: usize) -> usize {
    guest_shim::metadata_bytes(window_bytes, cpus)
}

/// The same, with records for `small_mappings` mappings below 2 KiB at the same time. To fill W bytes with slots of 64
/// bytes takes W / 64 of them.
#[unsafe(no_mangle)]
pub extern "C" fn svsm_swiotlb_metadata_bytes_with_small(
    window_bytes: u64,
    cpus: usize,
    small_mappings: usize,
) -> usize {
    guest_shim::metadata_bytes_with_small(window_bytes, cpus, small_mappings)
}

/// Finds the service, checks its identity, learns the window and attaches; `*pool` is what the other functions take.
///
/// Called once, at boot, on one CPU. Everything that can be checked is checked before the call ATTACH, which ends the
/// attachment of an earlier kernel. A first growth that is refused is no error here: `svsm_swiotlb_pressure` tells, and
/// later mappings ask again.
///
/// `storage` becomes the pool: `svsm_swiotlb_pool_bytes()` bytes, aligned to `svsm_swiotlb_pool_alignment()`.
/// `metadata` holds all records, which only this library writes: guest-private memory, of any alignment and content. An
/// area smaller than `svsm_swiotlb_metadata_bytes` says is used for as much of the window as it covers. `platform` and
/// `config` are only read here.
///
/// A kernel that stops using a pool unmaps everything, calls `svsm_swiotlb_give_back` and `svsm_swiotlb_detach`, and may then
/// use storage and metadata for something else.
///
/// Errors: INVALID_ARGUMENT, and those that `enum svsm_swiotlb_error` names for attach.
///
/// # Safety
/// `platform` and `config` are null or initialised, and the platform's functions keep their contracts; `storage` and
/// `metadata` are null or writable with the given sizes, guest-private, and for as long as the pool is used nobody else
/// touches them; `pool` is null or writable.
#[cfg(not(feature = "linked-platform"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_attach(
    platform: *const PlatformTable,
    config: *const Config,
    storage: *mut c_void,
    storage_bytes: usize,
    metadata: *mut c_void,
    metadata_bytes: usize,
    pool: *mut *mut PoolStorage,
) -> c_int {
    // SAFETY: The caller's contract, for the table and for its functions.
    let kernel = unsafe { input(platform).and_then(|table| Kernel::new(table)) };
    let memory = Memory {
        storage,
        storage_bytes,
        metadata,
        metadata_bytes,
    };
    number_of(kernel.and_then(|kernel| {
        // SAFETY: The caller's contract.
        unsafe { attach(kernel, config, &memory, pool) }
    }))
}

/// Finds the service, checks its identity, learns the window and attaches; `*pool` is what the other functions take.
///
/// Called once, at boot, on one CPU. Everything that can be checked is checked before the call ATTACH, which ends the
/// attachment of an earlier kernel. A first growth that is refused is no error here: `svsm_swiotlb_pressure` tells, and
/// later mappings ask again.
///
/// `storage` becomes the pool: `svsm_swiotlb_pool_bytes()` bytes, aligned to `svsm_swiotlb_pool_alignment()`.
/// `metadata` holds all records, which only this library writes: guest-private memory, of any alignment and content. An
/// area smaller than `svsm_swiotlb_metadata_bytes` says is used for as much of the window as it covers. `config` is only
/// read here.
///
/// A kernel that stops using a pool unmaps everything, calls `svsm_swiotlb_give_back` and `svsm_swiotlb_detach`, and may then
/// use storage and metadata for something else.
///
/// Errors: INVALID_ARGUMENT, and those that `enum svsm_swiotlb_error` names for attach.
///
/// # Safety
/// `config` is null or initialised, and the functions `svsm_swiotlb_platform_*` keep their contracts; `storage` and
/// `metadata` are null or writable with the given sizes, guest-private, and for as long as the pool is used nobody else
/// touches them; `pool` is null or writable.
#[cfg(feature = "linked-platform")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_attach(
    config: *const Config,
    storage: *mut c_void,
    storage_bytes: usize,
    metadata: *mut c_void,
    metadata_bytes: usize,
    pool: *mut *mut PoolStorage,
) -> c_int {
    let memory = Memory {
        storage,
        storage_bytes,
        metadata,
        metadata_bytes,
    };
    // SAFETY: The caller's contract.
    number_of(unsafe { attach(Kernel, config, &memory, pool) })
}

/// What a caller lends the pool.
struct Memory {
    storage: *mut c_void,
    storage_bytes: usize,
    metadata: *mut c_void,
    metadata_bytes: usize,
}

/// # Safety
/// As for [`svsm_swiotlb_attach`].
unsafe fn attach(
    kernel: Kernel,
    config: *const Config,
    memory: &Memory,
    pool: *mut *mut PoolStorage,
) -> Outcome {
    // SAFETY: The caller's contract.
    let config = unsafe { Config::read(config)? };
    let output = Output::required(pool)?;
    // SAFETY: The caller's contract.
    let (storage, metadata) = unsafe { memory.take()? };
    // SAFETY: The storage is large enough, aligned, and the caller's contract hands it over.
    unsafe { PoolStorage::attach(storage, kernel, metadata, config)? };
    // SAFETY: The caller's contract.
    unsafe { output.set(storage) };
    Ok(())
}

impl Memory {
    /// Storage and metadata, checked.
    ///
    /// # Safety
    /// As for [`svsm_swiotlb_attach`].
    unsafe fn take(&self) -> Result<(*mut PoolStorage, &'static mut [u8]), Error> {
        let storage = self.storage.cast::<PoolStorage>();
        let too_small = self.storage_bytes < size_of::<PoolStorage>();
        if storage.is_null() || !storage.is_aligned() || too_small {
            return Err(Error::InvalidArgument);
        }
        // SAFETY: The caller's contract: nobody else touches it, and as long as the pool is used.
        let metadata = unsafe { area(self.metadata.cast(), self.metadata_bytes)? };
        Ok((storage, metadata))
    }
}

/// Another window of the service, by its index: `*window` has 0 bytes where there is none. A paravisor may place a second window,
/// index 1, below 4 GiB for devices that do not reach the first.
///
/// Errors: INVALID_ARGUMENT, UNUSABLE_WINDOW, SERVICE_REFUSED, NOT_RUN, MALFORMED.
///
/// # Safety
/// `first` is null or a pool; `window` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_window_beside(
    first: *const PoolStorage,
    index: u32,
    window: *mut Window,
) -> c_int {
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let first = unsafe { PoolStorage::get(first)? };
        let output = Output::required(window)?;
        let found = first.window_beside(number(index)?)?;
        let found = found.map_or((0, 0), |window| (window.base(), window.bytes()));
        let (base, bytes) = found;
        // SAFETY: The caller's contract.
        unsafe { output.set(Window { base, bytes }) };
        Ok(())
    };
    number_of(answer())
}

/// Attaches a pool of another window to the attachment of `first`; `*pool` is what the other functions take.
///
/// The platform is that of `first`, and `translate` is asked for this window too. Storage, metadata and `config` are as for
/// `svsm_swiotlb_attach`, about this window; `protocol` and `skip_query_protocol` are not looked at. A kernel chooses the pool
/// for each device by what the device reaches (`svsm_swiotlb_window`), and for an address by `svsm_swiotlb_contains`. There is one
/// attachment: `svsm_swiotlb_detach` of either pool ends both, and `svsm_swiotlb_release_orphans` is about all windows.
///
/// Errors: INVALID_ARGUMENT, and those that `enum svsm_swiotlb_error` names for attach; SERVICE_REFUSED where there is no such
/// window.
///
/// # Safety
/// `first` is null or a pool; for the rest as for `svsm_swiotlb_attach`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn svsm_swiotlb_attach_beside(
    first: *const PoolStorage,
    index: u32,
    config: *const Config,
    storage: *mut c_void,
    storage_bytes: usize,
    metadata: *mut c_void,
    metadata_bytes: usize,
    pool: *mut *mut PoolStorage,
) -> c_int {
    let memory = Memory {
        storage,
        storage_bytes,
        metadata,
        metadata_bytes,
    };
    let answer = || -> Outcome {
        // SAFETY: The caller's contract.
        let first = unsafe { PoolStorage::get(first)? };
        // SAFETY: The caller's contract.
        let config = unsafe { Config::read(config)? };
        let output = Output::required(pool)?;
        let index = number(index)?;
        // SAFETY: The caller's contract.
        let (storage, metadata) = unsafe { memory.take()? };
        // SAFETY: The storage is large enough, aligned, and the caller's contract hands it over.
        unsafe { PoolStorage::attach_beside(first, index, storage, metadata, config)? };
        // SAFETY: The caller's contract.
        unsafe { output.set(storage) };
        Ok(())
    };
    number_of(answer())
}

/// The index of a window; there is room for eight (docs/PROTOCOL.md, P-3.2).
fn number(index: u32) -> Result<u8, Error> {
    match u8::try_from(index) {
        Ok(index) if index < 8 => Ok(index),
        _ => Err(Error::InvalidArgument),
    }
}

/// The metadata as the shim takes it.
///
/// # Safety
/// A pointer that is not null is valid for reads and writes of `bytes` bytes and used by nobody else.
unsafe fn area(start: *mut u8, bytes: usize) -> Result<&'static mut [u8], Error> {
    let wraps = start.addr().checked_add(bytes).is_none();
    if start.is_null() || wraps || isize::try_from(bytes).is_err() {
        return Err(Error::InvalidArgument);
    }
    // SAFETY: By the caller's contract; the size was checked.
    Ok(unsafe { slice::from_raw_parts_mut(start, bytes) })
}
