// SPDX-License-Identifier: MIT OR Apache-2.0
//! The second full read, between the guest's markers 1 and 2: what happened then, by the host's
//! counters, which the guest cannot embellish.

use serde::Serialize;

use crate::transcript::{Counters, Transcript};

/// Marker before the second read, after the last growth.
pub const FROM: u64 = 1;
/// Marker behind it.
pub const TO: u64 = 2;
/// VMPL of the guest.
const GUEST: &str = "2";

/// Counters of the steady state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SteadyState {
    /// Requests of the guest to run VMPL0.
    pub svsm_calls: u64,
    /// Page-state changes, explicit or by the host on its own, and the guest's page instructions.
    pub conversions: u64,
    /// Every counter that grew.
    pub counters: Counters,
}

impl SteadyState {
    /// `None` when a marker is missing.
    #[must_use]
    pub fn of(transcript: &Transcript) -> Option<Self> {
        let counters = transcript.growth(FROM, TO)?;
        let sum = |counts: fn(&str) -> bool| {
            let matching = counters.iter().filter(|(name, _)| counts(name));
            matching.map(|(_, value)| value).sum()
        };
        Some(Self {
            svsm_calls: sum(is_call),
            conversions: sum(is_conversion),
            counters,
        })
    }
}

/// A VMGEXIT with which the guest asks for VMPL0, by MSR or page protocol.
fn is_call(name: &str) -> bool {
    let mut parts = name.split('.');
    parts.next() == Some("vmgexit")
        && parts.next() == Some(GUEST)
        && parts.next().is_some_and(|cause| cause.contains("run-vmpl"))
}

/// A change of a page's state, whoever caused it.
fn is_conversion(name: &str) -> bool {
    let mut parts = name.split('.');
    match parts.next() {
        Some("convert") => true,
        Some("instruction") => matches!(parts.nth(1), Some("pvalidate" | "rmpadjust")),
        Some("vmgexit") => parts.nth(1).is_some_and(|cause| cause.contains("psc")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{SteadyState, is_call, is_conversion};
    use crate::transcript::Transcript;

    #[test]
    fn names_are_sorted_out() {
        for name in ["vmgexit.2.msr-run-vmpl", "vmgexit.2.run-vmpl"] {
            assert!(is_call(name), "{name}");
        }
        for name in ["vmgexit.0.run-vmpl", "exit.2.run-vmpl", "vmgexit.2.psc"] {
            assert!(!is_call(name), "{name}");
        }
        for name in [
            "convert.shared.2m",
            "vmgexit.0.psc",
            "vmgexit.2.msr-psc",
            "instruction.0.pvalidate",
        ] {
            assert!(is_conversion(name), "{name}");
        }
        for name in [
            "instruction.2.rmpquery",
            "vmgexit.2.mmio-write",
            "exit.2.npf",
            "pattern.checked",
        ] {
            assert!(!is_conversion(name), "{name}");
        }
    }

    #[test]
    fn both_markers_are_needed() {
        let mut transcript = Transcript::default();
        let mut say = |records: [&str; 4]| {
            records
                .iter()
                .for_each(|record| transcript.host_says(record));
            SteadyState::of(&transcript)
        };
        assert_eq!(
            say([
                "snapshot id=1 tsc=1",
                "count name=vmgexit.2.msr-run-vmpl value=7",
                "count name=convert.shared.2m value=3",
                "end id=1",
            ]),
            None
        );
        let steady = say([
            "snapshot id=2 tsc=2",
            "count name=vmgexit.2.msr-run-vmpl value=9",
            "count name=convert.shared.2m value=3",
            "end id=2",
        ]);
        let steady = steady.expect("both markers");
        assert_eq!((steady.svsm_calls, steady.conversions), (2, 0));
    }
}
