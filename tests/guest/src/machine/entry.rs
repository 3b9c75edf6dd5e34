// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first instructions: a stack, the time, and off to Rust.

use core::arch::global_asm;

/// Bytes of the only stack. Nothing recurses; the deepest frames hold copies of a few pages.
const STACK_BYTES: usize = 128 << 10;

global_asm!(
    ".section .text.entry, \"ax\"",
    ".global guest_entry",
    "guest_entry:",
    "cli",
    "cld",
    "lea rsp, [rip + {stack} + {bytes}]",
    "mov rdi, rsi",
    // The time stamp counter marks the beginning of the guest's run in the records.
    "rdtsc",
    "shl rdx, 32",
    "lea rsi, [rdx + rax]",
    "xor ebp, ebp",
    "call {main}",
    "ud2",
    stack = sym STACK,
    bytes = const STACK_BYTES,
    main = sym crate::start::start,
);

/// Memory of the stack; only its address is ever used.
#[repr(C, align(4096))]
struct Stack([u8; STACK_BYTES]);

static mut STACK: Stack = Stack([0; STACK_BYTES]);

unsafe extern "C" {
    /// The first instructions.
    pub fn guest_entry();
}
