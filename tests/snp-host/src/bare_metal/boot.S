# SPDX-License-Identifier: MIT OR Apache-2.0
# From the PVH entry (32-bit, paging off), and for the other processors from a real-mode stub, to
# 64-bit Rust with 5-level paging.
#
# The note is how QEMU finds the entry (Xen ELF note 18, XEN_ELFNOTE_PHYS32_ENTRY). Memory is mapped
# identity: 512 GiB by 1 GiB pages. LA57 and NXE are on because the nested tables are walked in the
# paging mode this host has at VMRUN: bit 51 of a guest address needs a fifth level, and no-execute
# leaves need NXE.

.section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long pvh_start

.section .text.boot, "ax"
.code32
.global pvh_start
pvh_start:
    cld
    cli
    # The firmware leaves its PIC timer running: IRQ 0 would reach a guest as vector 8.
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    # The tables are zero (.bss). 512 entries of 1 GiB: present, writable, large.
    lea edi, [boot_level_3]
    mov eax, 0x83
    xor edx, edx
    mov ecx, 512
1:  mov [edi], eax
    mov [edi + 4], edx
    add eax, 0x40000000
    adc edx, 0
    add edi, 8
    loop 1b
    lea eax, [boot_level_3]
    or eax, 3
    mov [boot_level_4], eax
    lea eax, [boot_level_4]
    or eax, 3
    mov [boot_level_5], eax
    # EBP: 0 on the boot processor, 1 on the others.
    xor ebp, ebp
enable_paging:
    lea eax, [boot_level_5]
    mov cr3, eax
    # PAE, OSFXSR, OSXMMEXCPT, LA57, OSXSAVE
    mov eax, 0x41620
    mov cr4, eax
    # EFER: LME, NXE, SVME
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x1900
    wrmsr
    # CR0: PG, WP, PE; caches on
    mov eax, cr0
    and eax, 0x9fffffff
    or eax, 0x80010001
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    .byte 0xea
    .long boot_64
    .word 8

.code64
boot_64:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    test ebp, ebp
    mov ebp, 0
    jnz 3f
    lea rsp, [boot_stack_end]
    call host_main
    jmp 2f
3:  mov rsp, [application_stack]
    call qword ptr [application_entry]
2:  cli
    hlt
    jmp 2b

    .balign 8
boot_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
boot_gdt_pointer:
    .word 31
    .long boot_gdt
    .long 0

# The stub of the other processors, copied to real_mode_stub_address (processors.rs) while they
# start. The GDT lies above 16 MiB, so LGDT needs an operand-size prefix:
# lgdt [real_mode_stub_address + ...].
.code16
.global real_mode_stub, real_mode_stub_end
.set REAL_MODE_STUB_ADDRESS, 0x8000
real_mode_stub:
    cli
    xor ax, ax
    mov ds, ax
    .byte 0x66, 0x0f, 0x01, 0x16
    .word REAL_MODE_STUB_ADDRESS + stub_gdt_pointer - real_mode_stub
    mov eax, cr0
    or al, 1
    mov cr0, eax
    # Far jump to 24:application_32.
    .byte 0x66, 0xea
    .long application_32
    .word 24
stub_gdt_pointer:
    .word 31
    .long boot_gdt
real_mode_stub_end:

.code32
application_32:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov ebp, 1
    jmp enable_paging
.code64

.section .bss.boot, "aw", @nobits
    .balign 4096
boot_level_5: .skip 4096
.global boot_level_4
boot_level_4: .skip 4096
boot_level_3: .skip 4096
.global boot_device_level_3
boot_device_level_3: .skip 4096
# Stack of the processor that starts at this moment, and where it goes on.
.global application_stack, application_entry
application_stack: .skip 8
application_entry: .skip 8
    .balign 4096
boot_stack: .skip 0x40000
boot_stack_end:
