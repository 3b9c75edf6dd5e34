// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long the SVSM keeps a CPU: for each call the longest one, in ticks of the time stamp counter.
//!
//! Two figures: what VMPL 0 itself executed, and everything between the guest's request and its next
//! instruction, this host's own work and emulation included. Under QEMU's `-icount` a tick is a
//! fixed part of an instruction, so the runner can tell instructions.

use core::fmt;

use crate::svsm_calls::{ByKind, Kind, each};

/// A call that is being served.
#[derive(Clone, Copy, Debug)]
pub struct ServedCall {
    kind: Kind,
    began: u64,
    at_vmpl0: u64,
}

impl ServedCall {
    /// The call that `rax` asks for begins.
    #[must_use]
    pub fn begin(rax: u64, now: u64) -> Self {
        Self {
            kind: Kind::of(rax),
            began: now,
            at_vmpl0: 0,
        }
    }

    /// VMPL 0 ran for so many ticks.
    pub const fn ran(&mut self, ticks: u64) {
        self.at_vmpl0 = self.at_vmpl0.saturating_add(ticks);
    }
}

/// The longest call of each kind, by each figure.
#[derive(Clone, Debug, Default)]
pub struct CallTimes {
    at_vmpl0: ByKind<u64>,
    whole: ByKind<u64>,
}

impl CallTimes {
    /// The caller goes on.
    pub fn end(&mut self, call: ServedCall, now: u64) {
        let whole = now.saturating_sub(call.began);
        for (longest, ticks) in [
            (&mut self.at_vmpl0, call.at_vmpl0),
            (&mut self.whole, whole),
        ] {
            if let Some(longest) = call.kind.place(longest) {
                *longest = (*longest).max(ticks);
            }
        }
    }

    /// Calls `line` with name and value of each figure that is not zero.
    ///
    /// # Errors
    /// What `line` returns.
    pub fn for_each(
        &self,
        line: &mut impl FnMut(fmt::Arguments<'_>, u64) -> fmt::Result,
    ) -> fmt::Result {
        for (name, values) in [("vmpl0", &self.at_vmpl0), ("whole", &self.whole)] {
            for (kind, value) in each(values).filter(|(_, value)| **value != 0) {
                line(format_args!("longest.{name}.{kind}"), *value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};
    use std::vec::Vec;

    use snp::svsm::CallId;

    use super::*;

    #[test]
    fn the_longest_of_each_kind_is_kept() {
        let rax = |protocol, call| CallId { protocol, call }.to_rax();
        let mut times = CallTimes::default();
        for (rax, began, own, ended) in [
            (rax(0x4000_0001, 7), 100, 40, 200),
            (rax(0x4000_0001, 7), 300, 60, 380),
            (rax(0, 1), 400, 1, 403),
        ] {
            let mut call = ServedCall::begin(rax, began);
            call.ran(own - 1);
            call.ran(1);
            times.end(call, ended);
        }
        let mut lines: Vec<(String, u64)> = Vec::new();
        times
            .for_each(&mut |name, value| {
                lines.push((name.to_string(), value));
                Ok(())
            })
            .unwrap();
        let expected = [
            ("longest.vmpl0.core.pvalidate", 1),
            ("longest.vmpl0.pool.7", 60),
            ("longest.whole.core.pvalidate", 3),
            ("longest.whole.pool.7", 100),
        ];
        assert_eq!(
            lines,
            expected.map(|(name, value)| (name.to_string(), value))
        );
    }
}
