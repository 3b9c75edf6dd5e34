// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first instructions of the image.
//!
//! The boot VMSA starts us in 32-bit protected mode with paging off, where all memory is private.
//! A machine with N vCPUs is launched with N copies of that VMSA, which the digest covers, and the
//! host runs them when it likes. So the first instruction takes a word of ours with a lock: whoever
//! comes second ends the VM and has touched nothing else.
//!
//! The position of the C-bit is unknown when the image is built: it comes from leaf 0x8000_001F of
//! the CPUID page, whose contents the secure processor has checked. The code below puts it into
//! minimal page tables, which map our own region only, enters long mode and calls
//! [`crate::start`] with the C-bit's mask. Proper tables come later, from Rust. Further processors
//! start in 64-bit mode with those, at [`crate::start_further`].
//!
//! Nothing is on the stack and no exception can be handled before `start` loads the IDT; a fault
//! until then shuts the VM down.

use core::arch::global_asm;

use paravisor::layout::{CPUID_PAGE, IMAGE_BASE, LARGE_PAGE_BYTES};
use paravisor::termination::{REASON_SET, Reason};
use snp::cpuid::{LEAF_ENCRYPTION, MAX_ENTRIES};
use snp::msr;

use super::processor::BOOT_STACK_TOP;

/// EAX of a termination request by the GHCB MSR protocol (GHCB specification, 2.3.1).
const fn terminate(reason: Reason) -> u32 {
    0x100 | (REASON_SET as u32) << 12 | (reason.code() as u32) << 16
}

global_asm!(
    r#"
    .pushsection .text.entry, "ax"
    .code32
    .global _start
_start:
    lock bts dword ptr [entry_taken], 0
    jc entry_again
    cld
    cli

    // Find the leaf. The page holds a count, 12 reserved bytes and entries of 48 bytes: the key at
    // +0 (EAX, ECX, then XCR0 and XSS with 8 bytes each, which are 0 but for EAX), EBX out at +28.
    mov esi, {cpuid_page}
    mov ecx, dword ptr [esi]
    cmp ecx, {max_entries}
    ja entry_no_leaf
    add esi, 16
entry_next_leaf:
    test ecx, ecx
    jz entry_no_leaf
    cmp dword ptr [esi], {leaf}
    jne entry_other_leaf
    mov eax, dword ptr [esi + 4]
    or eax, dword ptr [esi + 8]
    or eax, dword ptr [esi + 12]
    or eax, dword ptr [esi + 16]
    or eax, dword ptr [esi + 20]
    jz entry_leaf_found
entry_other_leaf:
    add esi, 48
    dec ecx
    jmp entry_next_leaf
entry_leaf_found:
    mov ecx, dword ptr [esi + 28]
    and ecx, 0x3f
    sub ecx, 32
    jb entry_bad_position
    cmp ecx, 19
    ja entry_bad_position
    xor edi, edi
    bts edi, ecx                    // EDI: upper half of the C-bit's mask

    // PML4[0] -> PDPT[0] -> two large pages: the region of the image.
    mov eax, offset entry_pdpt
    or eax, 0x63
    mov dword ptr [entry_pml4], eax
    mov dword ptr [entry_pml4 + 4], edi
    mov eax, offset entry_directory
    or eax, 0x63
    mov dword ptr [entry_pdpt], eax
    mov dword ptr [entry_pdpt + 4], edi
    mov dword ptr [entry_directory + 8 * {large_index}], {image_base} + 0xe3
    mov dword ptr [entry_directory + 8 * {large_index} + 4], edi
    mov dword ptr [entry_directory + 8 * {large_index} + 8], {image_base} + {large} + 0xe3
    mov dword ptr [entry_directory + 8 * {large_index} + 12], edi

    // CR4.PAE; CR3 (a table walk is private whatever CR3 says); EFER.LME and NXE; CR0.PG and WP.
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, offset entry_pml4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax

    lgdt [entry_gdt_pointer]
    .byte 0xea                      // far jump to the 64-bit code segment
    .long entry_long_mode
    .word 0x08

entry_again:
    mov eax, {again}
    jmp entry_terminate
entry_no_leaf:
    mov eax, {no_leaf}
    jmp entry_terminate
entry_bad_position:
    mov eax, {bad_position}
entry_terminate:
    xor edx, edx
    mov ecx, {ghcb_msr}
    wrmsr
    .byte 0xf3, 0x0f, 0x01, 0xd9    // vmgexit
    hlt
    jmp entry_terminate

    .code64
entry_long_mode:
    mov eax, 0x10
    mov ss, eax
    mov ds, eax
    mov es, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    shl rdi, 32                     // first argument: the C-bit's mask
    mov eax, offset entry_pml4
    or rax, rdi
    mov cr3, rax
    mov esp, offset __processor_stacks + {stack_top}
    xor ebp, ebp
    call {start}
    ud2
    .popsection

    .pushsection .rodata.entry, "a"
    .balign 8
entry_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        // 64-bit code
    .quad 0x00cf93000000ffff        // data
entry_gdt_end:
entry_gdt_pointer:
    .word entry_gdt_end - entry_gdt - 1
    .long entry_gdt
    .popsection

    .pushsection .data.entry, "aw"
    .balign 4
entry_taken:
    .long 0
    .popsection

    .pushsection .bss.entry, "aw", @nobits
    .balign 4096
entry_pml4:
    .skip 4096
entry_pdpt:
    .skip 4096
entry_directory:
    .skip 4096
    .popsection
    "#,
    cpuid_page = const CPUID_PAGE,
    max_entries = const MAX_ENTRIES,
    leaf = const LEAF_ENCRYPTION,
    image_base = const IMAGE_BASE,
    large = const LARGE_PAGE_BYTES,
    large_index = const IMAGE_BASE / LARGE_PAGE_BYTES,
    again = const terminate(Reason::EnteredAgain),
    no_leaf = const terminate(Reason::NoCpuidLeaf),
    bad_position = const terminate(Reason::CbitPosition),
    ghcb_msr = const msr::GHCB,
    stack_top = const BOOT_STACK_TOP,
    start = sym crate::start,
);
