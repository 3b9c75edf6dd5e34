// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's own exceptions: each one is a fault of this host, is reported and ends the run.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use snp_host::record::{self, ExitCode, kind};
use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

use super::{BareMetal, stop};

global_asm!(include_str!("exceptions.S"));

unsafe extern "C" {
    /// First of 32 stubs, 16 bytes apart.
    static exception_stubs: u8;
    /// Handler of [`NMI`].
    static nmi_stub: u8;
}

const NMI: u64 = 2;

const VECTORS: usize = 32;
const STUB_BYTES: u64 = 16;
/// Present interrupt gate through the code segment of `boot.S`.
const GATE: u64 = (0x8E00 << 32) | (8 << 16);
/// Bytes of the table minus one.
const LIMIT: u16 = 32 * 16 - 1;

static DESCRIPTORS: [[AtomicU64; 2]; VECTORS] =
    [const { [AtomicU64::new(0), AtomicU64::new(0)] }; VECTORS];

/// Installs the handlers on this processor. Without them any fault of the host would be a silent reset.
pub fn install() {
    let stubs = (&raw const exception_stubs).addr() as u64;
    for (vector, [low, high]) in (0..).zip(&DESCRIPTORS) {
        let address: u64 = if vector == NMI {
            (&raw const nmi_stub).addr() as u64
        } else {
            stubs + vector * STUB_BYTES
        };
        let offset = (address & 0xFFFF) | ((address & 0xFFFF_0000) << 32);
        low.store(GATE | offset, Ordering::Relaxed);
        high.store(address >> 32, Ordering::Relaxed);
    }
    let base = VirtAddr::new(DESCRIPTORS.as_ptr().addr() as u64);
    // SAFETY: the table is static and complete; its gates lead to the stubs.
    unsafe { lidt(&DescriptorTablePointer { limit: LIMIT, base }) };
}

/// Called by the stubs; does not return.
#[unsafe(no_mangle)]
extern "sysv64" fn host_exception(vector: u64, stack: *const [u64; 3], cr2: u64) -> ! {
    // SAFETY: the processor has pushed at least three words there.
    let [first, second, third] = unsafe { *stack };
    record::write(
        &BareMetal,
        kind::DIED,
        format_args!(
            "what=host-exception vector={vector} stack={first:#x},{second:#x},{third:#x} cr2={cr2:#x}",
        ),
    );
    stop(ExitCode::HostFault)
}
