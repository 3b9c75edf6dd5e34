// SPDX-License-Identifier: MIT OR Apache-2.0
//! Another processor in the place of QEMU's CPU 0, which runs no guest where there are several.
//!
//! On any processor, an instruction that restores the state of the x87 unit (FXRSTOR, FRSTOR, FLDENV, XRSTOR) makes QEMU's TCG
//! clear the IGNNE flag of its CPU 0: it reads, changes and writes `hflags2` of that CPU, from its own thread and without a
//! lock. In the same word are nested paging and the global interrupt flag, which VMRUN and #VMEXIT change. On CPU 0 such a
//! change is lost now and then: the host is translated by nested tables behind #VMEXIT, or a guest is not. A CPU 0 that
//! runs no guest has nothing to lose.
//!
//! The two exchange the identifiers of their local APICs, so the boot CPU of the guest is number 0 as ever. Where a guest would
//! see that it is another processor, this host answers: the boot CPU's flag in the APIC base MSR (`msr_policy`), CPUID
//! (`cpuid_policy`), the firmware configuration (`firmware_configuration`).

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use super::processors::{IDENTIFIER, read_apic, write_apic};

/// Registers of the local APIC that firmware sets for the boot processor alone: the vector of spurious interrupts, which enables
/// the APIC and must come first, and the pins, to which the interrupt controller of the PC (PIC) and NMI lead.
const FIRMWARE_SETTINGS: [usize; 3] = [0xFEE0_00F0, LINT0, LINT1];
const LINT0: usize = 0xFEE0_0350;
const LINT1: usize = 0xFEE0_0360;
const MASKED: u32 = 1 << 16;

/// Their values, on the way from one processor to the other.
static SETTINGS: [AtomicU32; FIRMWARE_SETTINGS.len()] =
    [const { AtomicU32::new(0) }; FIRMWARE_SETTINGS.len()];

/// Makes CPU 0, which runs this, number `number`, and leaves its interrupts to its replacement.
pub fn hand_over(number: u32) {
    for (register, value) in FIRMWARE_SETTINGS.into_iter().zip(&SETTINGS) {
        value.store(read_apic(register), Ordering::SeqCst);
    }
    write_apic(LINT0, MASKED);
    write_apic(LINT1, MASKED);
    write_apic(IDENTIFIER, number << 24);
}

/// Makes the processor that runs this number 0. CPU 0 has handed over.
pub fn take_over() {
    write_apic(IDENTIFIER, 0);
    for (register, value) in FIRMWARE_SETTINGS.into_iter().zip(&SETTINGS) {
        write_apic(register, value.load(Ordering::SeqCst));
    }
}

/// Halts CPU 0, which runs this, and never returns: without the global interrupt flag nothing ends a HLT.
pub fn rest() -> ! {
    loop {
        // SAFETY: EFER.SVME is set by the boot code.
        unsafe { asm!("clgi", "hlt", options(nomem, nostack)) };
    }
}
