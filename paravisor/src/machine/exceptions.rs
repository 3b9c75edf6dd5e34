// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interrupt descriptor table and what happens on an exception.
//!
//! Two exceptions are survived: #VC 0x404 at an instruction of the fix-up table, and #HV, which the
//! host raises at will under restricted injection. Every other vector ends the VM with the vector as
//! reason code. Interrupts are always off at VMPL0.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering};

use paravisor::fault_fixup::{NOT_VALIDATED, VECTOR_HV, VECTOR_VC, landing};
use paravisor::termination::Reason;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::tables::{lidt, load_tss};
use x86_64::registers::segmentation::{CS, DS, ES, SS, Segment, SegmentSelector};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use super::{msr_exit, processor, symbols};

/// Bytes between two entry stubs.
const STUB_BYTES: u64 = 16;
/// Vectors that push an error code: 8, 10 to 14, 17, 21, 29 and 30.
const ERROR_CODE_VECTORS: u32 = 1 << 8 | 0b1_1111 << 10 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;

global_asm!(
    r#"
    .pushsection .text.exceptions, "ax"
    .balign 16
    .global exception_stubs
exception_stubs:
    .set exception_vector, 0
    .rept 32
    .balign 16
    .if (({error_code_vectors} >> exception_vector) & 1) == 0
    .byte 0x6a, 0                       // push 0 in place of the error code
    .endif
    .byte 0x6a, exception_vector        // push the vector
    jmp exception_common
    .set exception_vector, exception_vector + 1
    .endr

exception_common:
    push r11
    push r10
    push r9
    push r8
    push rdi
    push rsi
    push rdx
    push rcx
    push rax
    mov rdi, rsp
    cld
    call {handler}
    pop rax
    pop rcx
    pop rdx
    pop rsi
    pop rdi
    pop r8
    pop r9
    pop r10
    pop r11
    add rsp, 16                         // vector and error code
    iretq

    // #HV. The host may raise it at any instruction, also inside this handler, so it does nothing
    // but one idempotent step: if the processor was about to run the guest, it goes back instead,
    // because the event has to be taken first. See `run_vmpl`.
    .balign 16
    .global hv_entry
hv_entry:
    push rax
    lea rax, [rip + run_vmpl_window_start]
    cmp qword ptr [rsp + 8], rax
    jb 2f
    lea rax, [rip + run_vmpl_window_end]
    cmp qword ptr [rsp + 8], rax
    jae 2f
    lea rax, [rip + run_vmpl_cancelled]
    mov qword ptr [rsp + 8], rax
2:  pop rax
    iretq
    .popsection
    "#,
    error_code_vectors = const ERROR_CODE_VECTORS,
    handler = sym exception,
);

unsafe extern "C" {
    fn exception_stubs();
    fn hv_entry();
}

/// What the stub leaves on the stack.
#[derive(Debug)]
#[repr(C)]
struct Frame {
    /// RAX, RCX, RDX, RSI, RDI, R8 to R11.
    saved: [u64; 9],
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// A gate of the interrupt descriptor table (APM volume 2, 4.8.4).
type Gate = [u64; 2];

/// Number of exception vectors; no others can occur with interrupts off.
const VECTORS: usize = 32;
/// Vector of #DF.
const DOUBLE_FAULT: u64 = 8;

/// Limit of the interrupt descriptor table.
const GATES_LIMIT: u16 = 16 * 32 - 1;
const _: () = assert!(size_of::<[Gate; VECTORS]>() == GATES_LIMIT as usize + 1);

/// The same for all processors: the stack of a gate is an index into the task state.
static GATES: Once<[Gate; VECTORS]> = Once::new();
/// Which processor ends the VM, by its APIC identifier + 1; 0 for none.
static ENDING: AtomicU32 = AtomicU32::new(0);
/// How long the others leave it alone, in looks at nothing: its report is a few lines.
const REPORT_TIME: u32 = 1 << 26;

/// Segments and task state of one processor.
#[derive(Debug)]
pub struct DescriptorTables {
    task_state: Once<TaskStateSegment>,
    segments: Once<GlobalDescriptorTable>,
}

impl DescriptorTables {
    /// Tables not yet made.
    pub const fn new() -> Self {
        Self {
            task_state: Once::new(),
            segments: Once::new(),
        }
    }
}

/// A present interrupt gate of ring 0; `stack` is a slot of the interrupt stack table or 0.
fn gate(handler: u64, code: SegmentSelector, stack: u64) -> Gate {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8e00 << 32;
    let low = handler & 0xffff | (handler >> 16 & 0xffff) << 48;
    [
        low | u64::from(code.0) << 16 | stack << 32 | PRESENT_INTERRUPT_GATE,
        handler >> 32,
    ]
}

/// Loads segments, the task state and the interrupt descriptor table of the current processor.
pub fn install() {
    let processor = processor::current();
    let task_state = processor.tables.task_state.call_once(|| {
        let mut task_state = TaskStateSegment::new();
        task_state.interrupt_stack_table[0] = VirtAddr::new_truncate(processor.fault_stack_end());
        task_state
    });
    let mut table = GlobalDescriptorTable::new();
    let code = table.append(Descriptor::kernel_code_segment());
    let data = table.append(Descriptor::kernel_data_segment());
    let task = table.append(Descriptor::tss_segment(task_state));
    processor.tables.segments.call_once(|| table).load();

    let gates = GATES.call_once(|| {
        let stubs = (exception_stubs as *const ()).addr() as u64;
        let mut gates = [[0; 2]; VECTORS];
        for (vector, slot) in (0..).zip(&mut gates) {
            let handler = match vector {
                VECTOR_HV => (hv_entry as *const ()).addr() as u64,
                _ => stubs + vector * STUB_BYTES,
            };
            *slot = gate(handler, code, u64::from(vector == DOUBLE_FAULT));
        }
        gates
    });
    let pointer = DescriptorTablePointer {
        limit: GATES_LIMIT,
        base: VirtAddr::from_ptr(gates),
    };
    // SAFETY: The table just loaded holds a 64-bit code segment, a data segment and the task state;
    // the gates are static and lead to the stubs above, which keep to the calling convention.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
        load_tss(task);
        lidt(&pointer);
    }
}

/// Called by the stubs. A double fault or a lost page of ours ends the VM before anything else is
/// touched: log, variables and GHCB may be on the very page that is gone, and the report would fault
/// again without end.
extern "C" fn exception(frame: &mut Frame) {
    let Frame {
        vector,
        error_code,
        rip,
        ..
    } = *frame;
    if vector == DOUBLE_FAULT {
        msr_exit::terminate(vector.to_le_bytes()[0]);
    }
    if let Some(target) = landing(symbols::fixup_table(), vector, error_code, rip) {
        frame.rip = target;
        return;
    }
    if (vector, error_code) == (VECTOR_VC, NOT_VALIDATED) {
        msr_exit::terminate(Reason::NotValidated.code());
    }
    if begins_to_end() {
        log::error!("exception {vector}, error code {error_code:#x}, at {rip:#x}");
    }
    msr_exit::terminate(match vector {
        VECTOR_VC => Reason::UnexpectedVc.code(),
        _ => vector.to_le_bytes()[0],
    });
}

/// Whether the current processor is the one that reports why the VM ends. A fault in its report ends the
/// VM at once; the others give it time to finish.
fn begins_to_end() -> bool {
    let own = processor::current().number() + 1;
    match ENDING.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => true,
        Err(ending) => {
            if ending != own {
                (0..REPORT_TIME).for_each(|_| core::hint::spin_loop());
            }
            false
        }
    }
}

/// Ends the VM with a reason and says so on the console, once.
pub fn fail(reason: Reason) -> ! {
    if begins_to_end() {
        log::error!(
            "{} ({:#x}): {}",
            reason.name(),
            reason.code(),
            reason.text()
        );
    }
    msr_exit::terminate(reason.code())
}
