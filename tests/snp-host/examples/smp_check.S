# SPDX-License-Identifier: MIT OR Apache-2.0
# The second part of self_check.S: two CPUs. The boot CPU starts the other one at VMPL 0 by AP
# creation, lets it wait, wakes it by registering a VMPL 2, which sends itself NMIs, wakes that by an interrupt, and at last
# rescinds a page that the other CPU is reading.
#
# [phase] is where the other CPU has got to. Modes: 5 the machine kicks CPUs, the page faults at
# once; 6 it does not, the old translation lives on; 7 it does so for a flush only, the old translation lives until then.
# 8 is another story: the other CPU restores its floating-point environment over and over while this one makes EXITS exits.

.equ GHCB_AP, 0x701000
.equ GHCB_AP_2, 0x702000
.equ VMSA_AP, 0xa02000
.equ VMSA_AP_2, 0xa03000
.equ WATCHED, 0xa04000
.equ APIC, 0xfee00000
.equ VECTOR, 0x40
.equ SEND_NMI_TO_SELF, 0x44400
.equ EXITS, 100000

# A GHCB request through the page at rbx (its address without C-bit), else like ghcb_request; RCX counts, too.
.macro request_at code
    mov [rbx + 0x1f8], rax
    mov eax, \code
    mov [rbx + 0x390], rax
    mov [rbx + 0x398], rsi
    mov [rbx + 0x3a0], rdi
    mov [rbx + 0x3a8], r8
    mov rax, 1 << 63
    mov [rbx + 0x3f0], rax
    mov rax, (0xf << (114 - 64)) + (1 << (97 - 64))
    mov [rbx + 0x3f8], rax
    mov word ptr [rbx + 0xffa], 2
    mov dword ptr [rbx + 0xffc], 0
    lea eax, [ebx - SHARED]
    xor edx, edx
    mov ecx, GHCB_MSR
    wrmsr
    rep vmmcall
.endm
# Writes value to the local APIC register.
.macro apic_write register, value
    mov esi, APIC + \register
    mov edi, 4
    lea r8d, [ebx - SHARED + 0x800]
    mov dword ptr [rbx + 0x800], \value
    xor eax, eax
    request_at 0x80000002
.endm
# Whether local APIC, CPUID and the APIC base MSR name CPU number of two, with this APIC base; goes elsewhere if not.
.macro check_place number, base, elsewhere
    mov esi, APIC + 0x20
    mov edi, 4
    lea r8d, [ebx - SHARED + 0x800]
    xor eax, eax
    request_at 0x80000001
    cmp dword ptr [rbx + 0x800], \number << 24
    jne \elsewhere
    mov rax, (1 << 32) + (1 << 30) + 4  # leaf 1, EBX
    msr_request
    shr rax, 48
    cmp eax, (\number << 8) + 2
    jne \elsewhere
    mov qword ptr [rbx + 0x308], 0x1b
    xor esi, esi
    request_at 0x7c
    cmp dword ptr [rbx + 0x1f8], \base
    jne \elsewhere
.endm
.macro register_ghcb page
    mov rax, \page + 0x12
    msr_request
    mov ebx, SHARED + \page
.endm
.macro share page
    mov rax, (2 << 52) + \page + 0x14
    msr_request
    cmp rax, 0x15
    expect e
.endm
# An interrupt gate.
.macro gate vector, handler
    lea rax, [rip + \handler]
    lea rdi, [rip + idt + \vector * 16]
    mov [rdi], ax
    shr rax, 16
    mov [rdi + 6], ax
    mov word ptr [rdi + 2], 8
    mov word ptr [rdi + 4], 0x8e00
.endm
# Halts until woken.
.macro halt
    xor esi, esi
    xor edi, edi
    xor r8d, r8d
    xor eax, eax
    request_at 0x78
.endm

# Fills the VMSA page at rdi: VMPL in cl, RIP in r9, RSP in r10, SEV_FEATURES in r11.
make_vmsa:
    mov rbx, rdi
    mov r8d, ecx
    xor eax, eax
    mov ecx, 512
    rep stosq
    mov dword ptr [rbx + 0x00], 0xc930010
    mov dword ptr [rbx + 0x10], 0xa9b0008
    mov dword ptr [rbx + 0x20], 0xc930010
    mov dword ptr [rbx + 0x30], 0xc930010
    mov dword ptr [rbx + 0x14], -1
    mov dword ptr [rbx + 0x24], -1
    lea rax, [rip + gdt]
    mov [rbx + 0x68], rax
    mov dword ptr [rbx + 0x64], 23
    lea rax, [rip + idt]
    mov [rbx + 0x88], rax
    mov dword ptr [rbx + 0x84], IDT_BYTES - 1
    mov [rbx + 0xca], r8b
    mov dword ptr [rbx + 0xd0], 0x1d00
    mov dword ptr [rbx + 0x148], 0x620
    mov rax, cr3
    mov [rbx + 0x150], rax
    mov rax, cr0
    mov [rbx + 0x158], rax
    mov dword ptr [rbx + 0x170], 2
    mov [rbx + 0x178], r9
    mov [rbx + 0x1d8], r10
    mov [rbx + 0x3b0], r11
    mov dword ptr [rbx + 0x3e8], 1
    # The VMSA bit; readable for VMPL 2.
    mov rax, rbx
    xor ecx, ecx
    mov edx, 0x10102
    rmpadjust
    ret

# Asks for AP creation: rsi = information 1, rdi = VMSA, rax = SEV_FEATURES. ZF: done.
create_ap:
    mov ebx, SHARED + GHCB
    xor r8d, r8d
    request_at 0x80000013
    cmp qword ptr [rbx + 0x398], 0
    ret

# Waits until the other CPU has come to phase edx; ZF: it has.
await_phase:
    mov r12d, edx
    rdtsc
    shl rdx, 32
    lea r13, [rdx + rax]
1:  cmp [rip + phase], r12d
    je 2f
    pause
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, r13
    shr rax, 34
    jz 1b
2:  cmp [rip + phase], r12d
    ret

# Gives the other CPU some 20 milliseconds.
linger:
    rdtsc
    shl rdx, 32
    lea r13, [rdx + rax]
1:  pause
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, r13
    cmp rax, 50000000
    jb 1b
    ret

# Waits until the other CPU has read the watched page rbx times since it had read it r14 times; ZF: it has.
await_rounds:
    rdtsc
    shl rdx, 32
    lea r13, [rdx + rax]
1:  mov rcx, [rip + rounds]
    sub rcx, r14
    cmp rcx, rbx
    ja 2f
    pause
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, r13
    shr rax, 34
    jz 1b
    ret
2:  xor ecx, ecx
    ret

two_cpus:
    step 21  # pages for the other CPU: GHCBs, and everything of this image for VMPL 2
    share GHCB_AP
    share GHCB_AP_2
    lea rdi, [rip + image_end]
    mov esi, CODE
    xor ecx, ecx
    mov edx, 0x0f02
1:  mov eax, esi
    rmpadjust
    test eax, eax
    expect z
    add esi, 4096
    cmp esi, edi
    jb 1b
    gate VECTOR, interrupt_handler
    gate 2, nmi_handler

    step 32  # this is the boot CPU
    mov ebx, SHARED + GHCB
    check_place 0, 0xfee00900, failed

    step 22  # no such CPU; not the boot CPU's VMPL 0; not a page without VMSA bit
    mov edi, VMSA_AP
    xor ecx, ecx
    lea r9, [rip + other_cpu]
    lea r10, [rip + other_stack_end]
    mov r11d, 0x29
    call make_vmsa
    test eax, eax
    expect z
    mov rsi, (9 << 32) + 1
    mov edi, VMSA_AP
    mov eax, 0x29
    call create_ap
    expect ne
    mov esi, 1
    mov edi, VMSA_AP
    mov eax, 0x29
    call create_ap
    expect ne
    mov rsi, (1 << 32) + 1
    mov edi, WATCHED
    mov eax, 0x29
    call create_ap
    expect ne

    step 23  # it starts, and finds itself number 1
    mov dword ptr [rip + vc_code], 0
    mov rsi, (1 << 32) + 1
    mov edi, VMSA_AP
    mov eax, 0x29
    call create_ap
    expect e
    mov edx, 1
    call await_phase
    expect e
    cmp dword ptr [rip + hostile], 8
    je restore_beside_exits

    step 24  # its VMSA is in use: RMPADJUST says so, and no CPU runs it a second time
    mov eax, VMSA_AP
    xor ecx, ecx
    mov edx, 2
    rmpadjust
    cmp eax, 3
    expect e

    step 25  # it waits, and its VMSA is not in use meanwhile
    mov dword ptr [rip + go], 1
    mov edx, 2
    call await_phase
    expect e
    call linger
    cmp dword ptr [rip + phase], 2
    expect e

    step 26  # registering its VMPL 2 ends the wait, and it runs that
    mov edi, VMSA_AP_2
    mov ecx, 2
    lea r9, [rip + other_vmpl2]
    lea r10, [rip + other_stack_2_end]
    mov r11d, 1
    call make_vmsa
    test eax, eax
    expect z
    mov rsi, (1 << 32) + 0x20001
    mov edi, VMSA_AP_2
    mov eax, 1
    call create_ap
    expect e
    mov edx, 4
    call await_phase
    expect e

    step 27  # VMPL 2 waits for an interrupt; INIT and SIPI are not sent, nor NMI, of which VMPL 0 takes none
    call linger
    mov ebx, SHARED + GHCB
    apic_write 0x310, 1 << 24
    apic_write 0x300, 0x4400
    apic_write 0x300, 0x4500
    apic_write 0x300, 0x4608
    call linger
    cmp dword ptr [rip + phase], 4
    expect e
    cmp dword ptr [rip + interrupts], 0
    expect e

    step 28  # the interrupt ends the wait and is taken once
    mov ebx, SHARED + GHCB
    apic_write 0x310, 1 << 24
    apic_write 0x300, 0x4000 + VECTOR
    mov edx, 6
    call await_phase
    expect e
    cmp dword ptr [rip + interrupts], 1
    expect e

    step 29  # a page that the other CPU reads is rescinded
    xor r14d, r14d
    xor ebx, ebx
    call await_rounds
    expect z
    mov eax, WATCHED
    xor ecx, ecx
    xor edx, edx
    pvalidate
    test eax, eax
    expect z
    cmp dword ptr [rip + hostile], 6
    jae 1f
4:  mov edx, 7
    call await_phase
    expect e
    jmp two_cpus_done
1:  mov r14, [rip + rounds]
    mov ebx, 1000
    call await_rounds
    expect z
    cmp dword ptr [rip + phase], 6
    expect e
    cmp dword ptr [rip + hostile], 6
    je two_cpus_done
    mov eax, 8  # everything, global translations too
    xor ecx, ecx
    xor edx, edx
    .byte 0x0f, 0x01, 0xfe  # invlpgb
    .byte 0x0f, 0x01, 0xff  # tlbsync
    jmp 4b
two_cpus_done:
    xor ebp, ebp
    jmp failed

restore_beside_exits:
    step 30  # what is written is read again
    mov r12d, EXITS / 2
    mov r14, [rip + rounds]
    mov ecx, GHCB_MSR
1:  mov eax, r12d
    xor edx, edx
    wrmsr
    rdmsr
    cmp eax, r12d
    expect e
    dec r12d
    jnz 1b

    step 31  # the other CPU has gone on all the time, and still does
    mov ebx, 10000
    call await_rounds
    expect z
    mov r14, [rip + rounds]
    mov ebx, 1000
    call await_rounds
    expect z
    jmp two_cpus_done

# --- the other CPU, VMPL 0 ----------------------------------------------------------------------
other_cpu:
    register_ghcb GHCB_AP
    check_place 1, 0xfee00800, other_failed
    cmp dword ptr [rip + hostile], 8
    je restore_for_ever
    mov dword ptr [rip + phase], 1
1:  pause
    cmp dword ptr [rip + go], 0
    je 1b
    # There is no VMPL 2 yet.
    mov rax, (2 << 32) + 0x16
    msr_request
    shr rax, 32
    jz other_failed
    # The first wait may end at once: this VMPL was just registered.
    mov ebx, SHARED + GHCB_AP
    halt
    mov dword ptr [rip + phase], 2
    halt
    mov dword ptr [rip + phase], 3
    mov rax, (2 << 32) + 0x16
    msr_request
    shr rax, 32
    jnz other_failed
    mov dword ptr [rip + phase], 6
2:  mov rax, [WATCHED]
    inc qword ptr [rip + rounds]
    cmp dword ptr [rip + vc_code], 0x404
    jne 2b
    mov dword ptr [rip + phase], 7
3:  mov ebx, SHARED + GHCB_AP
    halt
    jmp 3b
other_failed:
    mov dword ptr [rip + phase], 0xff
    jmp other_failed
restore_for_ever:
    fnstenv [rip + environment]
    mov dword ptr [rip + phase], 1
1:  .rept 16
    fldenv [rip + environment]
    .endr
    inc qword ptr [rip + rounds]
    jmp 1b

# --- the other CPU, VMPL 2 ----------------------------------------------------------------------
other_vmpl2:
    register_ghcb GHCB_AP_2
    apic_write 0xf0, 0x1ff
    apic_write 0x300, SEND_NMI_TO_SELF
    cmp dword ptr [rip + nmis], 2
    jne other_failed
    mov dword ptr [rip + phase], 4
1:  halt
    # The interrupt that ended the wait is still pending.
    sti
    nop
    cli
    cmp dword ptr [rip + interrupts], 0
    je 1b
    mov ecx, GHCB_MSR
    mov eax, 0x16
    xor edx, edx
    wrmsr
    rep vmmcall
2:  jmp 2b

# The first NMI sends two more: one is kept until this one is complete, and comes then, on top of it.
nmi_handler:
    inc dword ptr [rip + nmis]
    cmp dword ptr [rip + nmis], 1
    jne 1f
    apic_write 0x300, SEND_NMI_TO_SELF
    apic_write 0x300, SEND_NMI_TO_SELF
    cmp dword ptr [rip + nmis], 1
    jne other_failed
1:  xor esi, esi
    xor edi, edi
    xor r8d, r8d
    request_at 0x80000003
    iretq

interrupt_handler:
    inc dword ptr [rip + interrupts]
    apic_write 0xb0, 0
    iretq

    .balign 8
phase: .long 0
go: .long 0
rounds: .quad 0
interrupts: .long 0
nmis: .long 0
environment: .skip 28
    .balign 4096
other_stack: .skip 4096
other_stack_end:
other_stack_2: .skip 4096
other_stack_2_end:
