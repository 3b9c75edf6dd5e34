# SPDX-License-Identifier: MIT OR Apache-2.0
# A guest that goes through the rules of the machine, at VMPL 0 and VMPL 2. It ends the machine with
# reason set 0xB: reason 0 when everything was as it must be, else the number of the failed step.
#
# Registers: ebp = number of the current step, [vc_count] and [vc_code] from the #VC handler.
# Memory (all launch pages, see self_check.rs): CODE, TABLES 4 pages, VMSA, LIST of one GHCB page
# that is shared here. VA = GPA with C-bit in the first GiB, VA = GPA + 1 GiB without.

.equ GHCB_MSR, 0xc0010130
.equ CODE, 0x410000
.equ TABLES, 0x420000
.equ SHARED, 0x40000000
.equ GHCB, 0x700000
.equ SMALL, 0x500000
.equ LARGE_SHARED, 0x800000
.equ LARGE_PRIVATE, 0xa00000
.equ UNVALIDATED, 0x501000
.equ VMSA, 0xa01000
.equ IDT_BYTES, 80 * 16
.equ CBIT_HIGH, 1 << 19
.equ C_LARGE_LEAF, 0x83
.set TO_GDT, gdt - here
.set TO_GDT_POINTER, gdt_pointer - here
.set TO_LONG_MODE, long_mode - here

# --- 32-bit, paging off -------------------------------------------------------------------------
.code32
    mov ecx, GHCB_MSR
    xor edx, edx
    mov eax, 2
    wrmsr
    rep vmmcall
    rdmsr
    cmp eax, 0x33000001
    jne early_failure
    # PML4[0] -> PDPT; PDPT[0] -> private directory, PDPT[1] -> shared directory.
    mov dword ptr [TABLES], TABLES + 0x1007
    mov dword ptr [TABLES + 4], CBIT_HIGH
    mov dword ptr [TABLES + 0x1000], TABLES + 0x2007
    mov dword ptr [TABLES + 0x1004], CBIT_HIGH
    mov dword ptr [TABLES + 0x1008], TABLES + 0x3007
    mov dword ptr [TABLES + 0x100c], CBIT_HIGH
    mov eax, C_LARGE_LEAF
    xor ecx, ecx
1:  mov [TABLES + 0x2000 + ecx * 8], eax
    mov dword ptr [TABLES + 0x2004 + ecx * 8], CBIT_HIGH
    mov [TABLES + 0x3000 + ecx * 8], eax
    add eax, 0x200000
    inc ecx
    cmp ecx, 512
    jne 1b
    mov eax, TABLES
    mov cr3, eax
    mov eax, 0x620
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    call here
here:
    pop ebx
    lea eax, [ebx + TO_GDT]
    mov [ebx + TO_GDT_POINTER + 2], eax
    lgdt [ebx + TO_GDT_POINTER]
    lea eax, [ebx + TO_LONG_MODE]
    push 8
    push eax
    retf
early_failure:
    xor edx, edx
    mov eax, 0xffb100
    wrmsr
    rep vmmcall

# --- 64-bit -------------------------------------------------------------------------------------
.code64
.macro step number
    mov ebp, \number
.endm
.macro expect condition
    j\condition 9f
    jmp failed
9:
.endm
# The answer to an MSR-protocol request in rax, in rax.
.macro msr_request
    mov rdx, rax
    shr rdx, 32
    mov ecx, GHCB_MSR
    wrmsr
    rep vmmcall
    rdmsr
    shl rdx, 32
    or rax, rdx
.endm
.macro pvalidate
    .byte 0xf2, 0x0f, 0x01, 0xff
.endm
.macro rmpadjust
    .byte 0xf3, 0x0f, 0x01, 0xfe
.endm
# A GHCB request: code, then rsi = information 1, rdi = information 2, rax = RAX, r8 = scratch.
.macro ghcb_request code
    mov rbx, SHARED + GHCB
    mov [rbx + 0x1f8], rax
    mov eax, \code
    mov [rbx + 0x390], rax
    mov [rbx + 0x398], rsi
    mov [rbx + 0x3a0], rdi
    mov [rbx + 0x3a8], r8
    mov rax, 1 << 63
    mov [rbx + 0x3f0], rax
    mov rax, 0xf << (114 - 64)
    mov [rbx + 0x3f8], rax
    mov word ptr [rbx + 0xffa], 2
    mov dword ptr [rbx + 0xffc], 0
    mov eax, GHCB
    xor edx, edx
    mov ecx, GHCB_MSR
    wrmsr
    rep vmmcall
.endm

long_mode:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    # Tables without C-bit in CR3 were walked until here; now with it.
    mov rax, (1 << 51) + TABLES
    mov cr3, rax
    lea rsp, [rip + stack_end]
    lea rax, [rip + vc_handler]
    mov [rip + idt + 29 * 16], ax
    shr rax, 16
    mov [rip + idt + 29 * 16 + 6], ax
    mov word ptr [rip + idt + 29 * 16 + 2], 8
    mov word ptr [rip + idt + 29 * 16 + 4], 0x8e00
    lea rax, [rip + idt]
    mov [rip + idt_pointer + 2], rax
    lidt [rip + idt_pointer]

    step 1  # raw CPUID is #VC
    xor eax, eax
    cpuid
    cmp dword ptr [rip + vc_code], 0x72
    expect e

    step 2  # SEV_STATUS
    mov ecx, 0xc0010131
    rdmsr
    cmp eax, 0xa7
    expect e

    step 3  # an unknown MSR is #VC
    mov ecx, 0xc001f000
    rdmsr
    cmp dword ptr [rip + vc_code], 0x7c
    expect e

    step 4  # page-state change to private by MSR, twice (the second changes nothing)
    mov rax, (1 << 52) + SMALL + 0x14
    msr_request
    cmp rax, 0x15
    expect e
    mov rax, (1 << 52) + UNVALIDATED + 0x14
    msr_request
    cmp rax, 0x15
    expect e

    step 5  # PVALIDATE: done, then no change
    mov eax, SMALL
    xor ecx, ecx
    mov edx, 1
    pvalidate
    expect nc
    test eax, eax
    expect z
    mov eax, SMALL
    pvalidate
    expect c
    test eax, eax
    expect z

    step 6  # a page that was just assigned is not zero, and can be written
    mov rax, [SMALL]
    test rax, rax
    expect nz
    mov qword ptr [SMALL], 42

    step 7  # touching a page that is not validated is #VC 0x404
    mov rax, [UNVALIDATED]
    cmp dword ptr [rip + vc_code], 0x404
    expect e

    step 8  # 2 MiB on a small entry, and misaligned
    mov eax, UNVALIDATED & ~0x1fffff
    add eax, 0x200000 - 0x200000
    mov ecx, 1
    mov edx, 1
    mov eax, UNVALIDATED
    pvalidate
    cmp eax, 1
    expect e

    step 9  # the GHCB: shared, then registered
    mov rax, (2 << 52) + GHCB + 0x14
    msr_request
    cmp rax, 0x15
    expect e
    mov rax, GHCB + 0x12
    msr_request
    cmp rax, GHCB + 0x13
    expect e

    step 10  # hypervisor features
    xor esi, esi
    xor edi, edi
    xor r8d, r8d
    ghcb_request 0x8000fffd
    cmp qword ptr [rbx + 0x398], 0
    expect e
    cmp qword ptr [rbx + 0x3a0], 0x37
    expect e

    step 11  # page-state changes of 2 MiB: one shared, one private
    mov dword ptr [rbx + 0x800], 0x10000
    mov dword ptr [rbx + 0x804], 0
    mov rax, (0x12 << 52) + LARGE_SHARED
    mov [rbx + 0x808], rax
    mov rax, (0x11 << 52) + LARGE_PRIVATE
    mov [rbx + 0x810], rax
    xor esi, esi
    xor edi, edi
    mov r8d, GHCB + 0x800
    ghcb_request 0x80000010
    cmp qword ptr [rbx + 0x398], 0
    expect e
    cmp qword ptr [rbx + 0x3a0], 0
    expect e
    cmp word ptr [rbx + 0x800], 2
    expect e
    mov rax, SHARED + LARGE_SHARED
    mov qword ptr [rax], 1
    mov qword ptr [rax + 0x1ffff8], 1

    step 12  # 2 MiB PVALIDATE, RMPADJUST for VMPL 2, then 4 KiB inside splits the entry
    mov eax, LARGE_PRIVATE
    mov ecx, 1
    mov edx, 1
    pvalidate
    expect nc
    test eax, eax
    expect z
    mov eax, LARGE_PRIVATE
    mov ecx, 1
    mov edx, 0x0f02
    rmpadjust
    test eax, eax
    expect z
    mov eax, LARGE_PRIVATE + 0x5000
    mov qword ptr [rax], 77
    xor ecx, ecx
    xor edx, edx
    pvalidate
    expect nc
    mov eax, LARGE_PRIVATE
    mov ecx, 1
    pvalidate
    cmp eax, 6
    expect e
    mov eax, LARGE_PRIVATE + 0x5000
    xor ecx, ecx
    mov edx, 1
    pvalidate
    expect nc
    mov eax, LARGE_PRIVATE + 0x5000
    cmp qword ptr [rax], 77
    expect e

    step 13  # code, tables and the stack for VMPL 2
    xor ecx, ecx
    mov edx, 0x0f02
    lea rdi, [rip + vmpl2]
    and rdi, -4096
    mov rax, rdi
    rmpadjust
    test eax, eax
    expect z
    mov edi, TABLES
1:  mov eax, edi
    rmpadjust
    test eax, eax
    expect z
    add edi, 4096
    cmp edi, TABLES + 0x4000
    jne 1b

    step 14  # running VMPL 2 without a VMSA is refused
    mov rax, (2 << 32) + 0x16
    msr_request
    cmp ax, 0x17
    expect e
    shr rax, 32
    expect nz

    step 15  # a VMSA, by copying this CPU's registers
    mov edi, VMSA
    xor eax, eax
    mov ecx, 512
    rep stosq
    mov ebx, VMSA
    mov dword ptr [rbx + 0x00], 0xc930010
    mov dword ptr [rbx + 0x10], 0xa9b0008
    mov dword ptr [rbx + 0x20], 0xc930010
    mov dword ptr [rbx + 0x30], 0xc930010
    mov dword ptr [rbx + 0x14], -1
    mov dword ptr [rbx + 0x24], -1
    mov byte ptr [rbx + 0xca], 2
    mov dword ptr [rbx + 0xd0], 0x1d00
    mov dword ptr [rbx + 0x148], 0x620
    mov rax, cr3
    mov [rbx + 0x150], rax
    mov rax, cr0
    mov [rbx + 0x158], rax
    mov dword ptr [rbx + 0x170], 2
    lea rax, [rip + vmpl2]
    mov [rbx + 0x178], rax
    mov dword ptr [rbx + 0x308], 1234
    mov dword ptr [rbx + 0x3b0], 1
    mov dword ptr [rbx + 0x3e8], 1
    mov eax, VMSA
    xor ecx, ecx
    mov edx, 0x10102
    rmpadjust
    test eax, eax
    expect z
    mov esi, 0x20001
    mov edi, VMSA
    xor r8d, r8d
    mov eax, 1
    ghcb_request 0x80000013
    cmp qword ptr [rbx + 0x398], 0
    expect e

    step 16  # VMPL 2 runs and comes back
    mov rax, (2 << 32) + 0x16
    msr_request
    cmp rax, 0x17
    expect e
    mov ebx, VMSA
    cmp qword ptr [rbx + 0x3c0], 0x403
    expect e
    cmp qword ptr [rbx + 0x1f8], 1235
    expect e
    cmp qword ptr [LARGE_PRIVATE], 1236
    expect e

    step 17  # with EFER.SVME clear it does not run
    and dword ptr [rbx + 0xd0], ~0x1000
    mov rax, (2 << 32) + 0x16
    msr_request
    shr rax, 32
    cmp eax, 2
    expect e
    or dword ptr [rbx + 0xd0], 0x1000

    step 18  # marker port
    mov esi, 0x05a00040
    xor edi, edi
    xor r8d, r8d
    mov eax, 7
    ghcb_request 0x7b
    cmp qword ptr [rbx + 0x398], 0
    expect e

    step 19  # device memory: the local APIC's version register
    mov esi, 0xfee00030
    mov edi, 4
    mov r8d, GHCB + 0x800
    mov dword ptr [rbx + 0x800], 0
    ghcb_request 0x80000001
    cmp byte ptr [rbx + 0x800], 0x14
    expect e

    step 20  # an access that the mode of this run makes a violation, if any
    mov eax, [rip + hostile]
    cmp eax, 1
    je touch_shared_as_private
    cmp eax, 2
    je touch_private_as_shared
    cmp eax, 3
    je vmpl2_touches_vmpl0
    cmp eax, 4
    je write_where_nothing_is_shared
    cmp eax, 5
    jae two_cpus
    xor ebp, ebp
failed:
    mov eax, ebp
    shl eax, 16
    or eax, 0xb100
    msr_request
1:  jmp 1b

touch_shared_as_private:
    mov rax, [GHCB]
    jmp failed
touch_private_as_shared:
    mov rax, [SHARED + SMALL]
    jmp failed
vmpl2_touches_vmpl0:
    lea rax, [rip + vmpl2_violation]
    mov [VMSA + 0x178], rax
    mov rax, (2 << 32) + 0x16
    msr_request
    jmp failed
write_where_nothing_is_shared:
    mov rax, SHARED + 0xc00000
    mov qword ptr [rax], 5
    xor ebp, ebp
    jmp failed

vc_handler:
    push rax
    mov eax, [rsp + 8]
    mov [rip + vc_code], eax
    inc dword ptr [rip + vc_count]
    cmp eax, 0x404
    mov eax, 2
    jne 1f
    mov eax, 8  # mov rax, [absolute]
1:  add [rsp + 16], rax
    pop rax
    add rsp, 8
    iretq

    .balign 4096
vmpl2:
    lea eax, [rcx + 2]
    mov [LARGE_PRIVATE], rax
    lea r9, [rcx + 1]
    mov ecx, GHCB_MSR
    mov eax, 0x16
    xor edx, edx
    wrmsr
    mov rax, r9
    rep vmmcall
1:  jmp 1b
vmpl2_violation:
    mov rax, [SMALL]
    jmp vmpl2_violation

    .balign 4096
gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .long 0
    .long 0
    .balign 8
idt_pointer:
    .word IDT_BYTES - 1
    .quad 0
    .balign 16
idt: .skip IDT_BYTES
vc_count: .long 0
vc_code: .long 0
    .balign 4096
stack: .skip 4096
stack_end:
