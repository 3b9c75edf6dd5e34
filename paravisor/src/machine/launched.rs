// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that boot reads or hands out as plain Rust memory: the fixed launch pages and the service's
//! storage.

use core::sync::atomic::{AtomicU8, AtomicU64};

use paravisor::layout::{
    BOOT_BLOCK, CPUID_PAGE, PARAM_GENERAL, PARAM_MEMORY_MAP, PageBytes, SECRETS_PAGE,
};
use paravisor::range_list::PhysRange;
use paravisor::termination::Reason;

use super::pointer;

/// A fixed page.
fn page(gpa: u64) -> &'static PageBytes {
    // SAFETY: The fixed pages are launch pages: private, valid and mapped from the first instruction
    // on. Nobody writes to them: the host cannot, no lower VMPL may, and VMPL0 has no code that does.
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
pub fn memory_map() -> &'static PageBytes {
    page(PARAM_MEMORY_MAP)
}

/// The CPUID page.
pub fn cpuid() -> &'static PageBytes {
    page(CPUID_PAGE)
}

/// The secrets page.
pub fn secrets() -> &'static PageBytes {
    page(SECRETS_PAGE)
}

/// The service's storage as two arrays: a record per chunk, then a state byte per page.
///
/// # Errors
/// [`Reason::StorageInvalid`] when `range` is too small.
///
/// # Safety
/// `range` is RAM of ours that is valid, zeroed, mapped and 8-byte aligned; it is split only once and
/// nothing else refers to it.
pub unsafe fn split_storage(
    range: PhysRange,
    chunks: usize,
    pages: usize,
) -> Result<(&'static [AtomicU64], &'static [AtomicU8]), Reason> {
    let record_bytes = chunks.checked_mul(size_of::<AtomicU64>());
    let fits = record_bytes
        .and_then(|bytes| bytes.checked_add(pages))
        .is_some_and(|bytes| bytes as u64 <= range.bytes());
    if !fits {
        return Err(Reason::StorageInvalid);
    }
    let records = pointer::<AtomicU64>(range.start).cast_const();
    // SAFETY: By the contract the memory is ours and zero, which is valid for both kinds of atomics;
    // both arrays fit, the second begins where the first ends.
    unsafe {
        let states = records.add(chunks).cast::<AtomicU8>();
        Ok((
            core::slice::from_raw_parts(records, chunks),
            core::slice::from_raw_parts(states, pages),
        ))
    }
}
