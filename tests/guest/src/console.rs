// SPDX-License-Identifier: MIT OR Apache-2.0
//! The console: text to the first serial port, one exit for each line.

use core::fmt;

use crate::ghcb_channel::{GhcbChannel, GhcbPage};
use crate::port;

/// Longest line that is sent in one piece.
const LINE_BYTES: usize = 240;

/// Collects a line and sends it with one string OUT.
#[derive(Debug)]
pub struct Console<P> {
    channel: GhcbChannel<P>,
    line: [u8; LINE_BYTES],
    length: usize,
}

impl<P: GhcbPage> Console<P> {
    /// A console over `channel`.
    pub const fn new(channel: GhcbChannel<P>) -> Self {
        Self {
            channel,
            line: [0; LINE_BYTES],
            length: 0,
        }
    }

    /// Sends what was collected. A host that refuses the output loses it: there is nobody to tell.
    fn flush(&mut self) {
        if let Some(line) = self.line.get(..self.length) {
            let _ = self.channel.port_write_string(port::SERIAL_DATA, line);
        }
        self.length = 0;
    }
}

impl<P: GhcbPage> fmt::Write for Console<P> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if let Some(slot) = self.line.get_mut(self.length) {
                *slot = byte;
                self.length += 1;
            }
            if byte == b'\n' || self.length == LINE_BYTES {
                self.flush();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ghcb_channel::fake::{FakePage, answer, string};
    use core::fmt::Write;
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::string::String;
    use std::vec::Vec;

    #[test]
    fn a_line_is_one_exit_and_a_long_line_loses_nothing() {
        let sent: Rc<RefCell<Vec<String>>> = Rc::default();
        let log = Rc::clone(&sent);
        let page = FakePage::new(move |ghcb| {
            assert_eq!(ghcb.sw_exit_info_1 >> 16, 0x3f8);
            log.borrow_mut()
                .push(String::from_utf8(string(ghcb)).expect("text"));
            answer(ghcb, 0);
        });
        let mut console = Console::new(GhcbChannel::new(page));
        write!(console, "a={} ", 1).expect("infallible");
        assert!(sent.borrow().is_empty());
        writeln!(console, "b={}", 2).expect("infallible");
        assert_eq!(*sent.borrow(), ["a=1 b=2\n"]);
        let long = "x".repeat(LINE_BYTES + 3);
        writeln!(console, "{long}").expect("infallible");
        assert_eq!(sent.borrow().len(), 3);
        assert_eq!(sent.borrow()[1..].concat(), long + "\n");
    }
}
