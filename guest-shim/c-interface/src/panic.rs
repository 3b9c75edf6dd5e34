// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the bare-metal archive does where Rust would panic.

use core::panic::PanicInfo;

/// Stops this CPU. The library has no console and no way to unwind into C; going on would mean handing out memory by
/// records that are known to be wrong. Interrupts stay as they are, so a kernel's watchdog sees the CPU spin here.
#[panic_handler]
fn stop(_: &PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
