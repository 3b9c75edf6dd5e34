// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making sure that no lower VMPL uses an old translation.
//!
//! INVLPGB reaches all processors and all levels of the guest, TLBSYNC waits for it. Where the CPUID
//! page does not offer it, the guest gets one vCPU only: boot counts one as usable, and the table of
//! vCPUs has one place per APIC identifier, so CREATE_VCPU cannot add another. That vCPU is at VMPL0
//! now, and its next entry into the guest flushes, because a VMSA with PCPU_ID = 0 cannot rely on the
//! TLB.
//!
//! Source: APM volume 3 (INVLPGB, TLBSYNC), APM volume 2, 15.36.17 (PCPU_ID).

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use snp::cpuid::CpuidPage;

/// Leaf with the processor's capacities.
const LEAF_CAPACITIES: u32 = 0x8000_0008;
/// EBX of it: INVLPGB and TLBSYNC exist.
const INVLPGB: u32 = 1 << 3;
/// RAX of INVLPGB: all addresses, PCIDs and ASIDs of the guest, global translations too.
const FLUSH_GLOBAL: u64 = 1 << 3;

static HAS_INVLPGB: AtomicBool = AtomicBool::new(false);

/// Learns from the CPUID page what the processor can do.
pub fn detect(cpuid: &CpuidPage) {
    let has = cpuid
        .find(LEAF_CAPACITIES, 0)
        .is_some_and(|entry| entry.ebx & INVLPGB != 0);
    HAS_INVLPGB.store(has, Ordering::Relaxed);
}

/// Whether a flush reaches other processors.
pub fn reaches_all_processors() -> bool {
    HAS_INVLPGB.load(Ordering::Relaxed)
}

/// Returns only when no lower VMPL on any processor can use a translation older than this call.
pub fn flush_guest() {
    if HAS_INVLPGB.load(Ordering::Relaxed) {
        // SAFETY: Both instructions exist by the CPUID page and touch nothing but translations.
        unsafe {
            asm!(
                ".byte 0x0f, 0x01, 0xfe", // invlpgb
                ".byte 0x0f, 0x01, 0xff", // tlbsync
                in("rax") FLUSH_GLOBAL, in("ecx") 0_u32, in("edx") 0_u32,
                options(nostack, preserves_flags),
            );
        }
    }
    // Otherwise the run loop clears PCPU_ID before every entry, which flushes.
}
