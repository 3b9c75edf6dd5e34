// SPDX-License-Identifier: MIT OR Apache-2.0
//! Having caches forget what they hold of a page from before it was validated.
//!
//! On processors without COHERENCY_SFW_NO a cache may keep lines of a page from before it was the guest's
//! (CVE-2025-38560). A read of the first and of the last line of each 4 KiB page with the guest's key evicts all lines of
//! it; that is what Linux does behind its PVALIDATE.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::cpuid::CpuidPage;
use svsm_swiotlb::platform::Fault;

/// Until the CPUID page says otherwise.
static NEEDS_EVICTION: AtomicBool = AtomicBool::new(true);

/// Learns from the CPUID page, which the secure processor has checked, whether caches have to be helped.
pub fn detect(cpuid: &CpuidPage) {
    NEEDS_EVICTION.store(cpuid.needs_eviction(), Ordering::Relaxed);
}

/// Reads both lines of each 4 KiB page of a page, if that is needed.
///
/// # Errors
/// [`Fault`] when one of them is not validated any more.
pub fn evict(page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
    if !NEEDS_EVICTION.load(Ordering::Relaxed) {
        return Ok(());
    }
    let rest: u64;
    // SAFETY: The reads change nothing. When one faults, the handler resumes behind the loop with the count of pages that
    // are missing.
    unsafe {
        asm!(
            "2: movzx {line:e}, byte ptr [{at}]",
            "3: movzx {line:e}, byte ptr [{at} + 4095]",
            "add {at}, 4096",
            "dec {left}",
            "jnz 2b",
            "4:",
            ".pushsection .fixup_table, \"a\"",
            ".quad 2b, 4b",
            ".quad 3b, 4b",
            ".popsection",
            at = inout(reg) page.bits() => _,
            left = inout(reg) size.pages() => rest,
            line = out(reg) _,
            options(nostack),
        );
    }
    if rest == 0 { Ok(()) } else { Err(Fault) }
}
