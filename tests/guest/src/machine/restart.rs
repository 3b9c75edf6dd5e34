// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel that crashes and starts anew, as after a kexec without a word to anybody: all of its
//! private state is gone, its devices and the service are as they were.

use core::arch::global_asm;

use super::entry;

global_asm!(
    ".section .text.restart, \"ax\"",
    "guest_restart:",
    "cli",
    "cld",
    // The page tables from before the first start: the present ones lie in memory that is about to be used anew.
    "mov cr3, rsi",
    "mov r8, rdi",
    // Everything that changes lies in .bss, the stack included; .data belongs to what further devices and vCPUs use.
    "lea rdi, [rip + bss_start]",
    "lea rcx, [rip + image_end]",
    "sub rcx, rdi",
    "xor eax, eax",
    "rep stosb",
    "mov rsi, r8",
    "jmp {entry}",
    entry = sym entry::guest_entry,
);

unsafe extern "C" {
    fn guest_restart(handover: u64, start_tables: u64) -> !;
}

/// Starts the guest anew.
///
/// # Safety
/// `start_tables` is the CR3 that the guest was entered with and maps the image as then. No other vCPU runs, and nothing in
/// .data was changed.
pub unsafe fn restart(handover: u64, start_tables: u64) -> ! {
    // SAFETY: The caller vouches for the tables; nothing of this kernel is used any more.
    unsafe { guest_restart(handover, start_tables) }
}
