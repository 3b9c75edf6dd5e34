// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptor tables, and one handler for every exception: say which one, and end the VM.
//!
//! The guest makes every exit by an explicit call, so a #VC is a bug or an attack, never work.

use core::arch::{asm, global_asm};

use test_guest::ap_state::Table;
use test_guest::stop::Stop;

use super::ending::terminate;
use super::ghcb::console_line;

/// Exception vectors.
const VECTORS: usize = 32;
/// Selector of the 64-bit code segment below.
const CODE_SELECTOR: u16 = 8;
/// Present, DPL 0, 64-bit interrupt gate.
const INTERRUPT_GATE: u16 = 0x8e00;

/// Null, 64-bit code, data.
static SEGMENTS: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// A gate of the interrupt descriptor table (APM volume 2, 4.8.4).
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    offset_low: u16,
    selector: u16,
    attributes: u16,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

impl Gate {
    const ABSENT: Self = Self {
        offset_low: 0,
        selector: 0,
        attributes: 0,
        offset_middle: 0,
        offset_high: 0,
        reserved: 0,
    };

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the address is cut into three fields"
    )]
    const fn new(handler: u64) -> Self {
        Self {
            offset_low: handler as u16,
            selector: CODE_SELECTOR,
            attributes: INTERRUPT_GATE,
            offset_middle: (handler >> 16) as u16,
            offset_high: (handler >> 32) as u32,
            reserved: 0,
        }
    }
}

/// Operand of LGDT and LIDT.
#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

impl TablePointer {
    fn of<T>(table: *const T) -> Self {
        let limit = u16::try_from(size_of::<T>() - 1).unwrap_or(0);
        Self {
            limit,
            base: table as u64,
        }
    }
}

static mut GATES: [Gate; VECTORS] = [Gate::ABSENT; VECTORS];

// One stub of 16 bytes for each vector. The processor pushes an error code for some vectors only;
// the stubs push a zero for the others, so that the handler finds one layout.
global_asm!(
    ".p2align 4",
    ".global exception_stubs",
    "exception_stubs:",
    ".set vector, 0",
    ".rept 32",
    ".p2align 4",
    ".if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30",
    ".else",
    "push 0",
    ".endif",
    "push vector",
    "jmp exception_common",
    ".set vector, vector + 1",
    ".endr",
    "exception_common:",
    "mov rdi, [rsp]",
    "mov rsi, [rsp + 8]",
    "mov rdx, [rsp + 16]",
    "mov rcx, cr2",
    "and rsp, -16",
    "call {handler}",
    "ud2",
    handler = sym exception,
);

unsafe extern "C" {
    /// The first stub; the others follow every 16 bytes.
    static exception_stubs: [[u8; 16]; VECTORS];
}

/// Ends the VM after a line that names the exception.
extern "C" fn exception(vector: u64, error: u64, rip: u64, cr2: u64) -> ! {
    console_line(format_args!(
        "guest: vCPU {}: exception {vector} error {error:#x} at {rip:#x}, CR2 {cr2:#x}",
        super::cpu::number()
    ));
    terminate(Stop::Exception)
}

/// The tables, global and interrupt, for a vCPU that starts with them.
pub fn tables() -> (Table, Table) {
    let of = |pointer: TablePointer| Table {
        base: pointer.base,
        limit: pointer.limit,
    };
    (
        of(TablePointer::of(&raw const SEGMENTS)),
        of(TablePointer::of(&raw const GATES)),
    )
}

/// Loads our own descriptor tables; the ones the guest is entered with lie in nobody's memory.
pub fn install() {
    let segments = TablePointer::of(&raw const SEGMENTS);
    let gates = TablePointer::of(&raw const GATES);
    // SAFETY: Called once, before anything can raise an exception that is meant to be handled; the
    // tables are static, the stubs have 16 bytes each, and the far return loads the code segment
    // that was just defined.
    unsafe {
        for vector in 0..VECTORS {
            let stub = (&raw const exception_stubs).cast::<[u8; 16]>().add(vector);
            (&raw mut GATES)
                .cast::<Gate>()
                .add(vector)
                .write(Gate::new(stub as u64));
        }
        asm!(
            "lgdt [{segments}]",
            "lidt [{gates}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov {scratch:e}, {data}",
            "mov ds, {scratch:e}",
            "mov es, {scratch:e}",
            "mov ss, {scratch:e}",
            segments = in(reg) &raw const segments,
            gates = in(reg) &raw const gates,
            code = const CODE_SELECTOR,
            data = const 16,
            scratch = out(reg) _,
        );
    }
}
