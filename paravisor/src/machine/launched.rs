// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that boot reads or hands out as plain Rust memory: the fixed launch pages and the service's
//! storage.

use core::sync::atomic::{AtomicU8, AtomicU64};

use paravisor::acceptance::OwnMemory;
use paravisor::layout::{
    BOOT_BLOCK, CPUID_PAGE, MADT_BYTES, MEMORY_MAP_BYTES, PARAM_GENERAL, PARAM_MADT,
    PARAM_MEMORY_MAP, PageBytes, SECRETS_PAGE,
};
use paravisor::termination::Reason;

use super::pointer;

/// A fixed page.
fn page(gpa: u64) -> &'static PageBytes {
    // SAFETY: The fixed pages are launch pages: private, valid and mapped from the first instruction
    // on. Nobody writes to them: the host cannot, no lower VMPL may, and VMPL0 has no code that does
    // but the entry code, which wiped its keys before there was Rust.
    unsafe { &*pointer::<PageBytes>(gpa) }
}

/// The boot block.
pub fn boot_block() -> &'static PageBytes {
    page(BOOT_BLOCK)
}

/// The IGVM parameters with the number of vCPUs and the environment.
pub fn general_parameters() -> &'static PageBytes {
    page(PARAM_GENERAL)
}

/// The IGVM memory map.
pub fn memory_map() -> &'static [u8; MEMORY_MAP_BYTES] {
    // SAFETY: As in `page`, for pages that follow one another.
    unsafe { &*pointer::<[u8; MEMORY_MAP_BYTES]>(PARAM_MEMORY_MAP) }
}

/// The VMM's ACPI table of processors.
pub fn processors() -> &'static [u8; MADT_BYTES] {
    // SAFETY: As in `page`, for pages that follow one another.
    unsafe { &*pointer::<[u8; MADT_BYTES]>(PARAM_MADT) }
}

/// The CPUID page.
pub fn cpuid() -> &'static PageBytes {
    page(CPUID_PAGE)
}

/// The secrets page, without the keys of VMPL0 and VMPL1: the entry code wiped them.
pub fn secrets() -> &'static PageBytes {
    page(SECRETS_PAGE)
}

/// The service's storage as two arrays: a record per chunk, then a state byte per page.
///
/// # Errors
/// [`Reason::StorageInvalid`] when `memory` is too small or misaligned.
pub fn split_storage(
    memory: OwnMemory,
    chunks: usize,
    pages: usize,
) -> Result<(&'static [AtomicU64], &'static [AtomicU8]), Reason> {
    let range = memory.range();
    let record_bytes = chunks.checked_mul(size_of::<AtomicU64>());
    let fits = record_bytes
        .and_then(|bytes| bytes.checked_add(pages))
        .is_some_and(|bytes| bytes as u64 <= range.bytes());
    let records = pointer::<AtomicU64>(range.start).cast_const();
    if !fits || !records.is_aligned() {
        return Err(Reason::StorageInvalid);
    }
    // SAFETY: The memory was validated and zeroed for us, and `memory` was the only claim to it; our
    // page tables map all RAM but the window. Zero is a value of both kinds of atomics; both arrays
    // fit, the second begins where the first ends.
    unsafe {
        let states = records.add(chunks).cast::<AtomicU8>();
        Ok((
            core::slice::from_raw_parts(records, chunks),
            core::slice::from_raw_parts(states, pages),
        ))
    }
}

/// The `items` as an array in `memory`.
///
/// # Errors
/// [`Reason::StorageInvalid`] when `memory` is too small or misaligned; what an item is instead.
pub fn array<T>(
    memory: OwnMemory,
    items: impl Iterator<Item = Result<T, Reason>>,
) -> Result<&'static mut [T], Reason> {
    let range = memory.range();
    let first = pointer::<T>(range.start);
    let most = usize::try_from(range.bytes()).map_or(0, |bytes| bytes / size_of::<T>());
    if !first.is_aligned() {
        return Err(Reason::StorageInvalid);
    }
    let mut count = 0;
    for item in items {
        if count == most {
            return Err(Reason::StorageInvalid);
        }
        // SAFETY: The memory was validated and zeroed for us and is mapped, `memory` was the only claim to
        // it, and the item is one of the `most` that fit.
        unsafe { first.add(count).write(item?) };
        count += 1;
    }
    // SAFETY: As above; so many items have been written.
    Ok(unsafe { core::slice::from_raw_parts_mut(first, count) })
}
