// SPDX-License-Identifier: MIT OR Apache-2.0
//! PVALIDATE and RMPADJUST with fault fix-up.
//!
//! Both can fault on a page whose state the host or a guest changed (#VC 0x404, #PF). Each
//! instruction therefore has an entry in the section `.fixup_table`: two 64-bit addresses, of the
//! instruction and of its landing point. A handler that finds the faulting RIP in the table resumes
//! at the landing point, where the routine reports [`Faulted`]. A handler that does not know the
//! table may treat every fault as fatal; nothing else depends on it.

use core::arch::asm;

use crate::address::PageSize;
use crate::operands::{InstructionCode, PvalidateResult, RmpAdjustTarget};

/// The instruction faulted and did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faulted;

/// Validates or rescinds the page that is mapped (C=1) at `address`.
///
/// # Errors
/// [`Faulted`] when the instruction took a fault that the handler fixed up.
///
/// # Safety
/// 1. Runs at CPL 0 and VMPL 0.
/// 2. No Rust object lives in the page: its content changes meaning with its state.
pub unsafe fn pvalidate(
    address: u64,
    size: PageSize,
    validate: bool,
) -> Result<PvalidateResult, Faulted> {
    let code: u64;
    let carry: u8;
    let faulted: u64;
    // SAFETY: The caller vouches for privilege and page; registers are declared, the instruction
    // writes no memory the compiler knows, and `memory` keeps accesses on their side of it.
    unsafe {
        asm!(
            "2: .byte 0xF2, 0x0F, 0x01, 0xFF", // pvalidate
            "setc {carry}",
            "xor {faulted:e}, {faulted:e}",
            "jmp 4f",
            "3: mov {faulted:e}, 1",
            "4:",
            ".pushsection .fixup_table, \"a\"",
            ".quad 2b, 3b",
            ".popsection",
            carry = out(reg_byte) carry,
            faulted = out(reg) faulted,
            inout("rax") address => code,
            in("rcx") u64::from(size.code()),
            in("rdx") u64::from(validate),
            options(nostack),
        );
    }
    if faulted != 0 {
        return Err(Faulted);
    }
    Ok(PvalidateResult {
        code: truncate(code),
        unchanged: carry != 0,
    })
}

/// Changes a lower VMPL's permissions on the page that is mapped (C=1) at `address`.
///
/// # Errors
/// [`Faulted`] when the instruction took a fault that the handler fixed up; the page may have been
/// taken away by the host.
///
/// # Safety
/// 1. Runs at CPL 0.
/// 2. When the target makes the page a VMSA, no Rust object lives in it.
pub unsafe fn rmpadjust(
    address: u64,
    size: PageSize,
    target: RmpAdjustTarget,
) -> Result<InstructionCode, Faulted> {
    let code: u64;
    let faulted: u64;
    // SAFETY: As for `pvalidate`; the instruction changes the RMP, not memory.
    unsafe {
        asm!(
            "2: .byte 0xF3, 0x0F, 0x01, 0xFE", // rmpadjust
            "xor {faulted:e}, {faulted:e}",
            "jmp 4f",
            "3: mov {faulted:e}, 1",
            "4:",
            ".pushsection .fixup_table, \"a\"",
            ".quad 2b, 3b",
            ".popsection",
            faulted = out(reg) faulted,
            inout("rax") address => code,
            in("rcx") u64::from(size.code()),
            in("rdx") target.into_bits(),
            options(nostack),
        );
    }
    if faulted != 0 {
        return Err(Faulted);
    }
    Ok(truncate(code))
}

#[expect(clippy::cast_possible_truncation, reason = "the code is EAX")]
const fn truncate(rax: u64) -> InstructionCode {
    InstructionCode(rax as u32)
}
