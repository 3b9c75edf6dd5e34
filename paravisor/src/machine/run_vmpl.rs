// SPDX-License-Identifier: MIT OR Apache-2.0
//! The switch to the guest and back (GHCB specification, 4.1.13, by the MSR protocol).
//!
//! Under restricted injection the switch can be aborted: an event in the #HV doorbell must be taken
//! before the guest runs. The code checks the doorbell's NoFurtherSignal bit right before VMGEXIT, and
//! the #HV handler moves RIP out of the window between check and VMGEXIT.

use core::arch::global_asm;

use snp::address::Vmpl;
use snp::ghcb_msr::{Request, parse_run_vmpl};
use snp::instructions::read_ghcb_msr;
use snp::msr;

use super::doorbell::{self, Doorbell};

global_asm!(
    r#"
    .pushsection .text.run_vmpl, "ax"
    // RDI: doorbell page, RSI: value for the GHCB MSR. RAX: 0 the guest ran, 1 cancelled.
    .balign 16
    .global run_vmpl_switch
run_vmpl_switch:
    mov ecx, {ghcb_msr}
    mov eax, esi
    mov rdx, rsi
    shr rdx, 32
    wrmsr
    .global run_vmpl_window_start
run_vmpl_window_start:
    test byte ptr [rdi + {flags}], {no_further_signal}
    jnz run_vmpl_cancelled
    .byte 0xf3, 0x0f, 0x01, 0xd9        // vmgexit
    .global run_vmpl_window_end
run_vmpl_window_end:
    xor eax, eax
    ret
    .global run_vmpl_cancelled
run_vmpl_cancelled:
    mov eax, 1
    ret
    .popsection
    "#,
    ghcb_msr = const msr::GHCB,
    flags = const doorbell::FLAGS,
    no_further_signal = const doorbell::NO_FURTHER_SIGNAL,
);

unsafe extern "sysv64" {
    fn run_vmpl_switch(doorbell: *const u8, request: u64) -> u64;
}

/// How a switch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// The guest ran and left.
    Returned,
    /// A doorbell event came first.
    Cancelled,
    /// The host's answer is an error or no answer to the request.
    Refused,
}

/// Lets the guest run on this vCPU until it leaves.
pub fn run_guest(doorbell: &Doorbell<'_>) -> Switch {
    let request = Request::run_vmpl(Vmpl::Vmpl2).encode();
    // SAFETY: The doorbell page is mapped, and the host saves and restores all our registers. At CPL 0
    // reading the MSR right after the exit yields the host's answer.
    let answer = unsafe {
        if run_vmpl_switch(doorbell.address(), request) != 0 {
            return Switch::Cancelled;
        }
        read_ghcb_msr()
    };
    match parse_run_vmpl(answer) {
        Ok(()) => Switch::Returned,
        Err(_) => Switch::Refused,
    }
}
