// SPDX-License-Identifier: MIT OR Apache-2.0
//! Access to guest pages that survives their loss.
//!
//! The caller holds the page's state word, so the page is one of the guest's own; the host can still
//! take it away at any time. Then the instruction raises #VC 0x404, the handler resumes behind it
//! (section `.fixup_table`) and the routine reports a fault. No reference to guest memory is ever
//! made: the bytes pass through string instructions.

use core::arch::asm;

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::instructions::{pvalidate, rmpadjust};
use snp::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};
use snp::svsm::calling_area;
use svsm_swiotlb::platform::{Fault, GuestMemory, PageInstructions};

use super::{Machine, coherency, tlb};

/// Copies `count` bytes.
///
/// # Safety
/// The side that is not guest memory is valid for `count` bytes; the other is RAM of the guest.
unsafe fn copy(from: u64, to: u64, count: usize) -> Result<(), Fault> {
    let rest: usize;
    // SAFETY: By the contract nothing of ours but the given buffer is touched. When the instruction
    // faults, the handler resumes at the second label with the count of bytes that are missing.
    unsafe {
        asm!(
            "2: rep movsb",
            "3:",
            ".pushsection .fixup_table, \"a\"",
            ".quad 2b, 3b",
            ".popsection",
            inout("rcx") count => rest,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
    if rest == 0 { Ok(()) } else { Err(Fault) }
}

/// Touches the pages of a buffer after a fault, which does not say which side was lost. If it was ours,
/// this faults where nothing fixes it up and the VM ends, instead of the guest losing a good page. The
/// buffer is no longer than a page, so it lies in those of its first and last byte.
fn touch(bytes: &[u8]) {
    for byte in [bytes.first(), bytes.last()].into_iter().flatten() {
        // SAFETY: A reference is valid for reads.
        unsafe { core::ptr::from_ref(byte).read_volatile() };
    }
}

impl GuestMemory for Machine {
    fn read(&self, from: GuestPhysicalAddress, bytes: &mut [u8]) -> Result<(), Fault> {
        // SAFETY: `bytes` is ours and as long as the count; the trait's contract covers the source.
        let done = unsafe {
            copy(
                from.bits(),
                bytes.as_mut_ptr().expose_provenance() as u64,
                bytes.len(),
            )
        };
        done.inspect_err(|_| touch(bytes))
    }

    fn write(&self, to: GuestPhysicalAddress, bytes: &[u8]) -> Result<(), Fault> {
        // SAFETY: As above with the sides exchanged.
        let done = unsafe {
            copy(
                bytes.as_ptr().expose_provenance() as u64,
                to.bits(),
                bytes.len(),
            )
        };
        done.inspect_err(|_| touch(bytes))
    }
}

impl PageInstructions for Machine {
    fn pvalidate(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        validate: bool,
    ) -> Result<PvalidateResult, Fault> {
        // SAFETY: We run at VMPL0 and CPL 0; pages of the state map hold no Rust object.
        unsafe { pvalidate(page.bits(), size, validate) }.map_err(|_| Fault)
    }

    fn rmpadjust(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        target: RmpAdjustTarget,
    ) -> Result<InstructionCode, Fault> {
        // SAFETY: As above; VMSA pages are accessed by volatile accesses only.
        unsafe { rmpadjust(page.bits(), size, target) }.map_err(|_| Fault)
    }

    fn evict(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        coherency::evict(page, size)
    }

    fn zero(&self, page: GuestPhysicalAddress, size: PageSize) -> Result<(), Fault> {
        let rest: u64;
        // SAFETY: The trait's contract: a page of the guest, in which no Rust object lives. The fault
        // is handled as in `copy`.
        unsafe {
            asm!(
                "2: rep stosq",
                "3:",
                ".pushsection .fixup_table, \"a\"",
                ".quad 2b, 3b",
                ".popsection",
                inout("rcx") size.bytes() / 8 => rest,
                inout("rdi") page.bits() => _,
                in("rax") 0_u64,
                options(nostack, preserves_flags),
            );
        }
        if rest == 0 { Ok(()) } else { Err(Fault) }
    }

    fn flush(&self) {
        tlb::flush_guest();
    }
}

/// Takes CALL_PENDING of a calling area: reads it and clears it in one step, so that a call cannot
/// be seen twice.
///
/// # Errors
/// [`Fault`] when the calling area is gone.
pub fn take_call_pending(area: GuestPhysicalAddress) -> Result<bool, Fault> {
    let pending: u8;
    let faulted: u64;
    // SAFETY: The caller holds the state word of a calling area of the guest; one byte of it is
    // exchanged. A fault resumes at the third label.
    unsafe {
        asm!(
            "2: xchg byte ptr [{area}], {pending}",
            "xor {faulted:e}, {faulted:e}",
            "jmp 4f",
            "3: mov {faulted:e}, 1",
            "4:",
            ".pushsection .fixup_table, \"a\"",
            ".quad 2b, 3b",
            ".popsection",
            area = in(reg) area.bits() + calling_area::CALL_PENDING,
            pending = inout(reg_byte) 0_u8 => pending,
            faulted = out(reg) faulted,
            options(nostack),
        );
    }
    if faulted == 0 {
        Ok(pending != 0)
    } else {
        Err(Fault)
    }
}
