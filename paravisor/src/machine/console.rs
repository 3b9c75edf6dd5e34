// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log: lines with a prefix on the host's first serial port.
//!
//! The host reads everything written here, so nothing secret goes into a line.
//!
//! Each processor writes through its own GHCB. A line waits for one that another processor has begun,
//! but not for long: the host may stop that processor at any time, and torn lines do no harm. It does not
//! wait for a line of its own processor, which an exception interrupted.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU32, Ordering};

use log::{LevelFilter, Log, Metadata, Record};

use super::ghcb::Ghcb;
use super::processor;

/// Prefix of every line, to tell it from the guest's on the same port.
const PREFIX: &str = "vmpl0: ";

/// How often a line looks whether the one before has ended: some milliseconds, or a long line's exits
/// on the slowest of hosts.
const PATIENCE: u32 = 1 << 22;

/// Number of the processor that writes a line, plus 1; 0 between lines.
static WRITER: AtomicU32 = AtomicU32::new(0);

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
        let processor = processor::current();
        let own = processor.number() + 1;
        let mut patience = PATIENCE;
        while let Err(writer) =
            WRITER.compare_exchange(0, own, Ordering::Acquire, Ordering::Relaxed)
            && writer != own
            && patience > 0
        {
            core::hint::spin_loop();
            patience -= 1;
        }
        let mut port = Port(Ghcb::new(processor.ghcb));
        // The port never fails; a host that swallows bytes is its own loss.
        let _ = writeln!(port, "{PREFIX}{}", record.args());
        WRITER.store(0, Ordering::Release);
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
