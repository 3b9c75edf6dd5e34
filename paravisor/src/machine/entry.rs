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
//! page tables of 4 KiB pages, which map the parts of the image with their rights and nothing else,
//! enters long mode and calls [`crate::start`] with the C-bit's mask. They are in use until
//! `page_tables::load`; the tables from there on map RAM too. Further processors start in 64-bit
//! mode with those, at [`crate::start_further`].
//!
//! Nothing is on the stack and no exception can be handled before `start` loads the IDT; a fault
//! until then shuts the VM down. While paging is off everything may be executed; what is read then is
//! the image and the CPUID page.

use core::arch::global_asm;

use paravisor::layout::{
    BOOT_BLOCK, CPUID_PAGE, FIXED_PAGES_END, GUEST_VMPL, IMAGE_BASE, LARGE_PAGE_BYTES, PAGE_BYTES,
    SECRETS_PAGE,
};
use paravisor::termination::{REASON_SET, Reason};
use snp::cpuid::{LEAF_ENCRYPTION, MAX_ENTRIES};
use snp::msr;
use snp::secrets::{KEY_BYTES, KEYS_OFFSET};

use super::processor::{BOOT_FAULT_STACK, BOOT_FAULT_STACK_TOP, BOOT_STACK, BOOT_STACK_TOP};

/// EAX of a termination request by the GHCB MSR protocol (GHCB specification, 2.3.1).
const fn terminate(reason: Reason) -> u32 {
    0x100 | (REASON_SET as u32) << 12 | (reason.code() as u32) << 16
}

/// Lower half of an entry: present, accessed and dirty.
const READ: u32 = 0x61;
/// The same, and writable.
const WRITE: u32 = READ | 0x02;
/// Upper half of an entry: the page is not executable.
const NO_EXECUTE: u32 = 1 << 31;

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

    // The keys of the levels above the guest's, of which nobody here has a use: wiped before
    // anything can copy them.
    mov edi, {keys}
    mov ecx, {key_words}
    xor eax, eax
    rep stosd

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

    // PML4[0] -> PDPT[0] -> two page tables: the region of the image.
    mov dword ptr [entry_pml4], offset entry_pdpt + {table}
    mov dword ptr [entry_pml4 + 4], edi
    mov dword ptr [entry_pdpt], offset entry_directory + {table}
    mov dword ptr [entry_pdpt + 4], edi
    mov dword ptr [entry_directory + 8 * {large_index}], offset entry_tables + {table}
    mov dword ptr [entry_directory + 8 * {large_index} + 4], edi
    mov dword ptr [entry_directory + 8 * {large_index} + 8], offset entry_tables + {page} + {table}
    mov dword ptr [entry_directory + 8 * {large_index} + 12], edi

    // The pages of each part. An entry is 8 bytes, so a page's is at an offset of an address / 512.
    mov esi, offset entry_parts
entry_next_part:
    mov eax, dword ptr [esi]
entry_next_page:
    mov ebx, eax
    sub ebx, {image_base}
    shr ebx, 9
    mov edx, eax
    or edx, dword ptr [esi + 8]
    mov dword ptr [entry_tables + ebx], edx
    mov edx, edi
    or edx, dword ptr [esi + 12]
    mov dword ptr [entry_tables + ebx + 4], edx
    add eax, {page}
    cmp eax, dword ptr [esi + 4]
    jb entry_next_page
    add esi, 16
    cmp esi, offset entry_parts_end
    jb entry_next_part

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
    mov esp, offset __boot_stacks + {stack_top}
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

    // What the entry code's tables map: first byte, one past the last, lower and upper half of the
    // entries' bits. Accessed and dirty are set; no part is both writable and executable.
    .balign 4
entry_parts:
    .long {fixed}, {fixed_end}, {read}, {no_execute}
    .long __text_start, __text_end, {read}, 0
    .long __rodata_start, __rodata_end, {read}, {no_execute}
    .long __data_start, __data_end, {write}, {no_execute}
    .long __boot_stacks + {stack}, __boot_stacks + {stack_top}, {write}, {no_execute}
    .long __boot_stacks + {fault_stack}, __boot_stacks + {fault_stack_top}, {write}, {no_execute}
entry_parts_end:
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
entry_tables:
    .skip 2 * 4096
    .popsection
    "#,
    cpuid_page = const CPUID_PAGE,
    max_entries = const MAX_ENTRIES,
    leaf = const LEAF_ENCRYPTION,
    image_base = const IMAGE_BASE,
    page = const PAGE_BYTES,
    large_index = const IMAGE_BASE / LARGE_PAGE_BYTES,
    table = const WRITE,
    read = const READ,
    write = const WRITE,
    no_execute = const NO_EXECUTE,
    fixed = const BOOT_BLOCK,
    fixed_end = const FIXED_PAGES_END,
    keys = const SECRETS_PAGE + KEYS_OFFSET as u64,
    key_words = const KEY_BYTES / 4 * GUEST_VMPL as usize,
    again = const terminate(Reason::EnteredAgain),
    no_leaf = const terminate(Reason::NoCpuidLeaf),
    bad_position = const terminate(Reason::CbitPosition),
    ghcb_msr = const msr::GHCB,
    stack = const BOOT_STACK,
    stack_top = const BOOT_STACK_TOP,
    fault_stack = const BOOT_FAULT_STACK,
    fault_stack_top = const BOOT_FAULT_STACK_TOP,
    start = sym crate::start,
);
