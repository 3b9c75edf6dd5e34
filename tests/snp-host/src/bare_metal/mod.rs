// SPDX-License-Identifier: MIT OR Apache-2.0
//! What only bare metal has. All `unsafe` of this package is below this module.
//!
//! * `boot.S`, [`exceptions`]: entry, the host's own faults
//! * [`processor`]: SVM, world switch, CPUID, time
//! * [`waiting`]: a processor without work
//! * [`processors`]: starting the others, kicks; [`replacement`]: which is the first; [`lock`]: what they share
//! * [`raw_memory`]: host physical memory
//! * [`ports`]: ports and device memory

pub mod exceptions;
pub mod lock;
pub mod ports;
pub mod processor;
pub mod processors;
pub mod raw_memory;
pub mod replacement;
pub mod waiting;

use snp_host::hardware::Devices;
use snp_host::record::{EXIT_PORT, ExitCode};

core::arch::global_asm!(include_str!("boot.S"));

/// The machine itself; everything it does goes through the traits of `snp_host::hardware`.
#[derive(Clone, Copy, Debug)]
pub struct BareMetal;

/// Ends QEMU with status `code * 2 + 1`.
pub fn stop(code: ExitCode) -> ! {
    BareMetal.port_write(EXIT_PORT, 4, code as u32);
    loop {
        x86_64::instructions::hlt();
    }
}
