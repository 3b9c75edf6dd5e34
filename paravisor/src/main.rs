// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VMPL0 image: bare metal, entered by the boot VMSA of an IGVM file.
//!
//! ```text
//!   machine::entry (32-bit) -> start -> boot -> serve (run loop) -> dispatcher -> core protocol, service
//!                  CREATE_VCPU -> start_further -> serve, on each further processor
//! ```
//!
//! This file and `boot`, `serve` say what happens; `machine` is how; everything that can be tested on a
//! host is in the library half of the package.

#![no_std]
#![no_main]

mod boot;
mod machine;
mod serve;

use core::panic::PanicInfo;

use machine::{exceptions, processor};
use paravisor::termination::Reason;

/// First Rust code: on the boot stack, with the entry code's page tables. `c_bit` is the mask of the
/// C-bit.
extern "sysv64" fn start(c_bit: u64) -> ! {
    processor::install_boot();
    exceptions::install();
    match boot::boot(c_bit) {
        Ok(never) => match never {},
        Err(reason) => exceptions::fail(reason),
    }
}

/// First code of a further processor: on its own stack, with the page tables and control registers of
/// the one that started it.
extern "sysv64" fn start_further() -> ! {
    exceptions::install();
    match boot::serve_further() {
        Ok(never) => match never {},
        Err(reason) => exceptions::fail(reason),
    }
}

/// A panic is a bug of ours; the VM ends.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    log::error!("{info}");
    exceptions::fail(Reason::Panic)
}
