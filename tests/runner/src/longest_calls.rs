// SPDX-License-Identifier: MIT OR Apache-2.0
//! The longest SVSM call of each kind, as the host measured it.

use protocol::Call;
use serde::Serialize;

use crate::transcript::Counters;

/// QEMU's `-icount shift`: an instruction is 2^shift ns of virtual time, and the time stamp counter counts those.
pub const ICOUNT_SHIFT: u32 = 2;

/// The longest call of a kind. Ticks of the time stamp counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LongestCall {
    /// The call: `core.pvalidate`, `pool.grow`, ...
    pub call: String,
    /// At VMPL 0, the paravisor's own instructions.
    pub vmpl0_ticks: u64,
    /// From the request to the caller's next instruction, the host's work and emulation included.
    pub whole_ticks: u64,
    /// `vmpl0_ticks` in instructions, on a machine that counts them.
    pub vmpl0_instructions: Option<u64>,
    /// `whole_ticks` in instructions, on a machine that counts them.
    pub whole_instructions: Option<u64>,
}

/// The longest calls in `counters`; `counted` if the machine counts instructions instead of time.
#[must_use]
pub fn longest_calls(counters: &Counters, counted: bool) -> Vec<LongestCall> {
    let whole = counters
        .iter()
        .filter_map(|(name, ticks)| Some((name.strip_prefix("longest.whole.")?, *ticks)));
    let call = |(name, whole_ticks): (&str, u64)| {
        let own = counters.get(&format!("longest.vmpl0.{name}"));
        let vmpl0_ticks = own.copied().unwrap_or(0);
        let instructions = |ticks: u64| counted.then_some(ticks >> ICOUNT_SHIFT);
        LongestCall {
            call: readable(name),
            vmpl0_ticks,
            whole_ticks,
            vmpl0_instructions: instructions(vmpl0_ticks),
            whole_instructions: instructions(whole_ticks),
        }
    };
    whole.map(call).collect()
}

/// The pool's calls by name instead of number.
fn readable(name: &str) -> String {
    let number = name
        .strip_prefix("pool.")
        .and_then(|call| call.parse().ok());
    match number.and_then(|number: u32| Call::try_from(number).ok()) {
        Some(call) => format!("pool.{}", call.name()),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_instructions_where_instructions_are_counted() {
        let counters = [
            ("longest.vmpl0.pool.7", 400),
            ("longest.whole.pool.7", 4003),
            ("longest.whole.core.pvalidate", 8),
            ("svsm.msr.pool.7", 3),
        ];
        let counters = counters
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        let calls = longest_calls(&counters, true);
        let figures = |call: &LongestCall| {
            (
                call.call.clone(),
                call.vmpl0_instructions,
                call.whole_instructions,
            )
        };
        let expected = [
            ("core.pvalidate".to_owned(), Some(0), Some(2)),
            ("pool.grow".to_owned(), Some(100), Some(1000)),
        ];
        assert_eq!(calls.iter().map(figures).collect::<Vec<_>>(), expected);
        let timed = longest_calls(&counters, false);
        assert_eq!(timed[1].whole_ticks, 4003);
        assert_eq!(timed[1].whole_instructions, None);
    }
}
