// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log: lines with a prefix on the host's first serial port.
//!
//! The host reads everything written here, so nothing secret goes into a line.
//!
//! Each processor writes through its own GHCB. A line waits for one that another processor has begun,
//! but not for long: the host may stop that processor at any time, and torn lines do no harm.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use log::{LevelFilter, Log, Metadata, Record};

use super::ghcb::Ghcb;
use super::processor;

/// Prefix of every line, to tell it from the guest's on the same port.
const PREFIX: &str = "vmpl0: ";

/// How often a line looks whether the one before has ended: some milliseconds, or a long line's exits
/// on the slowest of hosts.
const PATIENCE: u32 = 1 << 22;

/// A line is being written.
static WRITING: AtomicBool = AtomicBool::new(false);

/// Writes to the serial port through the GHCB of the current processor.
struct Port(Ghcb<'static>);

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.0.write_console(byte));
        Ok(())
    }
}

/// The logger.
struct Console;

impl Log for Console {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut patience = PATIENCE;
        while WRITING.swap(true, Ordering::Acquire) && patience > 0 {
            core::hint::spin_loop();
            patience -= 1;
        }
        let mut port = Port(Ghcb::new(&processor::current().ghcb));
        // The port never fails; a host that swallows bytes is its own loss.
        let _ = writeln!(port, "{PREFIX}{}", record.args());
        WRITING.store(false, Ordering::Release);
    }

    fn flush(&self) {}
}

/// Starts logging; before this, lines vanish.
pub fn install() {
    static CONSOLE: Console = Console;
    if log::set_logger(&CONSOLE).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}
