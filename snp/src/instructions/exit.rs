// SPDX-License-Identifier: MIT OR Apache-2.0
//! VMGEXIT, the GHCB MSR and the SVSM call by the MSR protocol.

use core::arch::asm;

use crate::address::Vmpl;
use crate::ghcb_msr::Request;
use crate::msr;
use crate::svsm::CallRegisters;

/// Leaves to the host with whatever the GHCB MSR and the GHCB say.
///
/// # Safety
/// 1. The GHCB MSR holds a request or the address of a prepared GHCB.
/// 2. Interrupts that would use the GHCB or its MSR are off.
pub unsafe fn vmgexit() {
    // SAFETY: The caller prepared the exit; the host may change the GHCB, hence no `nomem`.
    unsafe {
        asm!(
            ".byte 0xF3, 0x0F, 0x01, 0xD9",
            options(nostack, preserves_flags)
        );
    }
}

/// Reads the GHCB MSR.
///
/// # Safety
/// Runs at CPL 0 in an SEV-ES or SEV-SNP guest.
pub unsafe fn read_ghcb_msr() -> u64 {
    // SAFETY: Passed on.
    unsafe { read(msr::GHCB) }
}

/// Writes the GHCB MSR.
///
/// # Safety
/// Runs at CPL 0; the value is a request, or the address of a page that is shared with the host.
pub unsafe fn write_ghcb_msr(value: u64) {
    // SAFETY: The caller vouches for privilege and value; the register is only read by VMGEXIT.
    unsafe {
        asm!("wrmsr", in("ecx") msr::GHCB, in("eax") low(value), in("edx") high(value),
            options(nostack, preserves_flags));
    }
}

/// Reads SEV_STATUS, which the host cannot intercept.
///
/// # Safety
/// Runs at CPL 0 on a processor that has the register.
pub unsafe fn read_sev_status() -> u64 {
    // SAFETY: Passed on.
    unsafe { read(msr::SEV_STATUS) }
}

/// What became of CALL_PENDING.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingCall {
    /// The SVSM saw the call: the registers are its answer.
    Seen,
    /// It did not: the host resumed the guest without running the SVSM, the registers are garbage.
    NotSeen,
}

/// Calls the SVSM by the MSR protocol (SVSM specification, section 5) and returns what became of
/// CALL_PENDING and the host's answer in the GHCB MSR.
///
/// The MSR is left with that answer; the caller restores it.
///
/// # Safety
/// 1. Runs at CPL 0 with interrupts off, not in an NMI handler: calling area and MSR belong to the
///    vCPU and are not re-entrant.
/// 2. `calling_area` is the mapping of this vCPU's calling area.
/// 3. The call's arguments name no memory that Rust objects live in, but for lists the caller gave.
pub unsafe fn svsm_call(
    calling_area: *mut u8,
    registers: &mut CallRegisters,
) -> (PendingCall, u64) {
    let mut pending: u8 = 0;
    // SAFETY: By the contract the MSR and the calling area are ours until this returns. The SVSM
    // may read lists in memory, hence no `nomem`. XCHG takes CALL_PENDING back atomically: a host
    // that resumes us late cannot replay it.
    unsafe {
        write_ghcb_msr(Request::run_vmpl(Vmpl::Vmpl0).encode());
        asm!(
            "mov byte ptr [{area}], 1",
            ".byte 0xF3, 0x0F, 0x01, 0xD9",
            "xchg byte ptr [{area}], {pending}",
            area = in(reg) calling_area,
            pending = inout(reg_byte) pending,
            inout("rax") registers.rax,
            inout("rcx") registers.rcx,
            inout("rdx") registers.rdx,
            inout("r8") registers.r8,
            inout("r9") registers.r9,
            options(nostack),
        );
        let seen = if pending == 0 {
            PendingCall::Seen
        } else {
            PendingCall::NotSeen
        };
        (seen, read_ghcb_msr())
    }
}

/// # Safety
/// Runs at CPL 0; the register exists and reading it has no side effect.
unsafe fn read(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: The caller vouches for the register.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high,
            options(nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
const fn low(value: u64) -> u32 {
    value as u32
}

const fn high(value: u64) -> u32 {
    (value >> 32) as u32
}
