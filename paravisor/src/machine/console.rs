// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log: lines with a prefix on the host's first serial port.
//!
//! The host reads everything written here, so nothing secret goes into a line.

use core::fmt::{self, Write};

use log::{LevelFilter, Log, Metadata, Record};

use super::ghcb::Ghcb;
use super::processor;

/// Prefix of every line, to tell it from the guest's on the same port.
const PREFIX: &str = "vmpl0: ";

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
        let mut port = Port(Ghcb::new(&processor::current().ghcb));
        // The port never fails; a host that swallows bytes is its own loss.
        let _ = writeln!(port, "{PREFIX}{}", record.args());
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
