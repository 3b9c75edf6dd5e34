// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time stamp, CR3, and requests to the host in the GHCB MSR.

use core::arch::asm;

use snp::ghcb_msr::Request;
use snp::instructions::{read_ghcb_msr, vmgexit, write_ghcb_msr};

/// The time stamp counter.
#[must_use]
pub fn time_stamp() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: RDTSC only reads a counter.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Switches to other page tables.
///
/// # Safety
/// They map code, stack and data of the guest where they are now, with the same access.
pub unsafe fn load_page_tables(cr3: u64) {
    // SAFETY: The caller vouches for the tables.
    unsafe { asm!("mov cr3, {}", in(reg) cr3, options(nostack)) }
}

/// The page tables in use: CR3.
#[must_use]
pub fn page_tables() -> u64 {
    let cr3: u64;
    // SAFETY: CPL 0; reading CR3 has no effect.
    unsafe { asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack, preserves_flags)) };
    cr3
}

/// Makes a request of the MSR protocol and returns the host's answer; the GHCB MSR keeps its value.
#[must_use]
pub fn request(request: Request) -> u64 {
    // SAFETY: CPL 0, interrupts are off for ever, the value is a request; it names pages that the
    // host may do with what it likes, or that hold nothing.
    unsafe {
        let saved = read_ghcb_msr();
        write_ghcb_msr(request.encode());
        vmgexit();
        let answer = read_ghcb_msr();
        write_ghcb_msr(saved);
        answer
    }
}
