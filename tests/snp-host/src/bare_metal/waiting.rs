// SPDX-License-Identifier: MIT OR Apache-2.0
//! A processor without work waits as a guest of its own that only halts.
//!
//! The host runs with GIF = 0, where nothing ends a HLT. In a guest whose physical interrupts are
//! intercepted, an interrupt or an NMI ends the HLT with a #VMEXIT and stays pending: the real
//! guest takes the interrupt when it runs again and lets it in.

use core::arch::{asm, global_asm};

use snp_host::launch::CPU_SLOTS;
use snp_host::vmcb::{SegmentRegister, VIRTUAL_INTERRUPT_MASKING, Vmcb, exit_code, intercept};
use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::control::{Cr0, Cr3, Cr4};
use x86_64::registers::model_specific::Msr;
use zerocopy::FromZeros;

use super::processor::take_nmi;

global_asm!(
    ".section .text.waiting, \"ax\"",
    ".code64",
    ".global waiting_guest",
    "waiting_guest:",
    "1: hlt",
    "jmp 1b",
);

unsafe extern "C" {
    /// Code of the waiting guest.
    static waiting_guest: u8;
}

const EFER_MSR: u32 = 0xC000_0080;
/// Selectors of `boot.S`, and attributes of flat 64-bit code and data.
const CODE: (u16, u16) = (8, 0xA9B);
const DATA: (u16, u16) = (16, 0xC93);
/// Any address space but 0; translations are not kept.
const ASID: u32 = 5;
const DR6_RESET: u64 = 0xFFFF_0FF0;
const DR7_RESET: u64 = 0x400;
const RFLAGS_RESET: u64 = 2;

/// By CPU.
static mut CONTROL_BLOCKS: [core::mem::MaybeUninit<Vmcb>; CPU_SLOTS] =
    [const { core::mem::MaybeUninit::zeroed() }; CPU_SLOTS];

const fn flat((selector, attributes): (u16, u16)) -> SegmentRegister {
    SegmentRegister {
        selector,
        attributes,
        limit: u32::MAX,
        base: 0,
    }
}

/// A guest in this host's own address space, without nested paging.
fn control_block() -> Vmcb {
    let mut vmcb = Vmcb::new_zeroed();
    let control = &mut vmcb.control;
    control.intercept_instructions = intercept::INTERRUPT | intercept::NMI | intercept::SHUTDOWN;
    control.intercept_virtualization = intercept::VIRTUALIZATION;
    control.asid = ASID;
    control.interrupt_control = VIRTUAL_INTERRUPT_MASKING;
    let save = &mut vmcb.save;
    save.cs = flat(CODE);
    for segment in [&mut save.ds, &mut save.es, &mut save.ss] {
        *segment = flat(DATA);
    }
    let (gdt, idt) = (sgdt(), sidt());
    (save.gdtr.base, save.gdtr.limit) = (gdt.base.as_u64(), gdt.limit.into());
    (save.idtr.base, save.idtr.limit) = (idt.base.as_u64(), idt.limit.into());
    // SAFETY: every 64-bit processor has EFER.
    save.efer = unsafe { Msr::new(EFER_MSR).read() };
    let (table, flags) = Cr3::read_raw();
    save.cr3 = table.start_address().as_u64() | u64::from(flags);
    (save.cr0, save.cr4) = (Cr0::read_raw(), Cr4::read_raw());
    (save.dr6, save.dr7) = (DR6_RESET, DR7_RESET);
    save.rflags = RFLAGS_RESET;
    save.rip = (&raw const waiting_guest).addr() as u64;
    vmcb
}

/// Waits on processor `cpu`, which runs this, until it is woken by an NMI or, with `interrupts`,
/// until an interrupt is pending. Whether one is.
pub fn wait(cpu: u32, interrupts: bool) -> bool {
    let blocks = (&raw mut CONTROL_BLOCKS).cast::<Vmcb>();
    // SAFETY: each processor uses its own element.
    let block = unsafe {
        let block = blocks.add(cpu as usize);
        block.write(control_block());
        block
    };
    // SAFETY: the guest changes no register and no memory. With V_INTR_MASKING the host's interrupt
    // flag decides whether an interrupt ends it; the global interrupt flag stays clear here, so
    // that STI lets nothing in.
    let code = unsafe {
        if interrupts {
            asm!("sti", "vmrun rax", "cli", in("rax") block);
        } else {
            asm!("vmrun rax", in("rax") block);
        }
        (&raw const (*block).control.exit_code).read_volatile()
    };
    if code == exit_code::NMI {
        take_nmi();
    }
    code == exit_code::INTERRUPT
}
