# SPDX-License-Identifier: MIT OR Apache-2.0
# One 16-byte stub per exception vector of the host. A stub's call leaves its own address, which
# names the vector: host_exception(vector, stack, CR2). The handler shows the top words of the
# stack, so it does not matter which vectors push an error code.

.section .text.exceptions, "ax"
.code64
    .balign 16
.global exception_stubs
exception_stubs:
.rept 32
    .balign 16
    call exception_common
.endr

# An NMI is another CPU's kick: that the guest was left is all there is to do.
.global nmi_stub
nmi_stub:
    iretq

exception_common:
    pop rdi
    lea rax, [exception_stubs]
    sub rdi, rax
    shr rdi, 4
    mov rsi, rsp
    mov rdx, cr2
    and rsp, -16
    call host_exception
1:  hlt
    jmp 1b
