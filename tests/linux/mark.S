/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * mark DIGIT: writes the digit to the emulated machine's port for marks, which has the counters recorded (snp-host,
 * record.rs); mark w: has it noted what shared pages hold. Distributions' kernels have no /dev/port, so this asks for
 * the port itself. A real machine has nothing at these ports. Ends with 1 where the kernel does not allow it.
 */
	.intel_syntax noprefix
	.set	MARKER_PORT, 0x5a0
	.set	WATCH_PORT, 0x5ac
	.set	IOPERM, 173
	.set	EXIT, 60

	.globl	_start
_start:
	mov	ebx, 1				/* status */
	cmp	qword ptr [rsp], 2		/* argc */
	jne	end
	mov	r12, [rsp + 16]			/* argv[1] */
	movzx	r12d, byte ptr [r12]
	mov	edi, MARKER_PORT
	sub	r12d, '0'
	cmp	r12d, 9
	jbe	ask
	mov	edi, WATCH_PORT
ask:
	mov	r13d, edi
	mov	esi, 4
	mov	edx, 1
	mov	eax, IOPERM
	syscall
	test	eax, eax
	jnz	end
	mov	edx, r13d
	mov	eax, r12d
	out	dx, eax
	xor	ebx, ebx
end:
	mov	edi, ebx
	mov	eax, EXIT
	syscall

	.section .note.GNU-stack, "", @progbits
