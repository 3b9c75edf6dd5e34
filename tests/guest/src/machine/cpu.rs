// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which vCPU this is: its number, behind GS, and what each has for itself.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use test_guest::schedule::MAX_CPUS;

/// What GS points to: the vCPU's number.
static NUMBERS: [u64; MAX_CPUS] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// GS.base.
const GS_BASE: u32 = 0xc000_0101;

/// The value of GS.base on the vCPU `number`.
pub fn gs_base(number: usize) -> u64 {
    NUMBERS
        .get(number)
        .map_or(&raw const NUMBERS as u64, |block| &raw const *block as u64)
}

/// Tells this vCPU, the boot vCPU, its number. Before this [`number`] must not be asked.
pub fn install_boot() {
    let base = gs_base(0);
    // SAFETY: CPL 0; nothing else uses GS, and the segment register is never loaded afterwards. The
    // image lies below 4 GiB, but both halves are given all the same.
    unsafe {
        asm!("wrmsr", in("ecx") GS_BASE, in("eax") base & 0xffff_ffff, in("edx") base >> 32,
            options(nomem, nostack, preserves_flags));
    }
}

/// The number of this vCPU, below [`MAX_CPUS`].
pub fn number() -> usize {
    let number: u64;
    // SAFETY: GS.base is one of the elements of `NUMBERS` since the vCPU's first instructions.
    unsafe { asm!("mov {}, gs:[0]", out(reg) number, options(nostack, preserves_flags, readonly)) };
    usize::try_from(number).unwrap_or(0)
}

/// A number for each vCPU.
#[derive(Debug)]
pub struct PerCpu([AtomicU64; MAX_CPUS]);

impl PerCpu {
    /// Zeros.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; MAX_CPUS])
    }

    /// The one of `cpu`.
    pub fn of(&self, cpu: usize) -> u64 {
        self.0
            .get(cpu)
            .map_or(0, |value| value.load(Ordering::Acquire))
    }

    /// That of this vCPU.
    pub fn own(&self) -> u64 {
        self.of(number())
    }

    /// Sets that of `cpu`.
    pub fn set(&self, cpu: usize, value: u64) {
        if let Some(slot) = self.0.get(cpu) {
            slot.store(value, Ordering::Release);
        }
    }

    /// Adds 1 to that of this vCPU.
    pub fn count(&self) {
        if let Some(slot) = self.0.get(number()) {
            slot.fetch_add(1, Ordering::Relaxed);
        }
    }
}
