// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counting what a guest asks of its SVSM: the calls behind the switches to VMPL 0, by RAX of the
//! caller (SVSM specification, section 5). Host and SVSM see the same register; nothing is decided
//! by it here.

use core::fmt;

use snp::svsm::CallId;

/// How the guest asked for the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// By the MSR protocol.
    Msr,
    /// By a GHCB.
    Ghcb,
}

const FORMS: [&str; 2] = ["msr", "ghcb"];
const PROTOCOLS: [&str; 5] = ["core", "attestation", "vtpm", "pool", "other"];
/// Number of the pool's protocol (docs/PROTOCOL.md); those before are 0 to 2.
const POOL: u32 = 0x4000_0001;
const CORE_CALLS: [&str; 8] = [
    "remap-ca",
    "pvalidate",
    "create-vcpu",
    "delete-vcpu",
    "deposit-mem",
    "withdraw-mem",
    "query-protocol",
    "configure-vtom",
];
/// Calls 0 to 16, and the others.
const CALLS: usize = 18;
const OTHER: usize = CALLS - 1;

/// Which call, as the counters have it; shown as the runner reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    protocol: usize,
    call: usize,
}

impl Kind {
    /// The call that `rax` asks for.
    pub(crate) fn of(rax: u64) -> Self {
        let id = CallId::from_rax(rax);
        let protocol = match id.protocol {
            protocol @ 0..=2 => protocol as usize,
            POOL => 3,
            _ => 4,
        };
        let call = (id.call as usize).min(OTHER);
        let call = if protocol == 0 && call >= CORE_CALLS.len() {
            OTHER
        } else {
            call
        };
        Self { protocol, call }
    }

    /// Its place in `values`.
    pub(crate) fn place<T>(self, values: &mut ByKind<T>) -> Option<&mut T> {
        values.get_mut(self.protocol)?.get_mut(self.call)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, call } = *self;
        let core = CORE_CALLS.get(call).filter(|_| protocol == 0);
        let name = PROTOCOLS.get(protocol).copied().unwrap_or_default();
        match core {
            Some(core) => write!(f, "{name}.{core}"),
            None if call == OTHER => write!(f, "{name}.other"),
            None => write!(f, "{name}.{call}"),
        }
    }
}

/// Values by protocol and call.
pub(crate) type ByKind<T> = [[T; CALLS]; PROTOCOLS.len()];

/// Every kind with its place in a [`ByKind`].
pub(crate) fn each<T>(values: &ByKind<T>) -> impl Iterator<Item = (Kind, &T)> {
    values.iter().enumerate().flat_map(|(protocol, calls)| {
        let kind = move |(call, value)| (Kind { protocol, call }, value);
        calls.iter().enumerate().map(kind)
    })
}

/// Counters by form, protocol and call.
#[derive(Clone, Debug, Default)]
pub struct SvsmCalls([ByKind<u64>; FORMS.len()]);

impl SvsmCalls {
    /// Counts the call that `rax` asks for.
    pub fn count(&mut self, form: Form, rax: u64) {
        let counters = self.0.get_mut(form as usize);
        if let Some(counter) = counters.and_then(|counters| Kind::of(rax).place(counters)) {
            *counter += 1;
        }
    }

    /// Calls `line` with name and value of each counter that is not zero.
    ///
    /// # Errors
    /// What `line` returns.
    pub fn for_each(
        &self,
        line: &mut impl FnMut(fmt::Arguments<'_>, u64) -> fmt::Result,
    ) -> fmt::Result {
        for (form, calls) in FORMS.iter().zip(&self.0) {
            for (kind, value) in each(calls).filter(|(_, value)| **value != 0) {
                line(format_args!("svsm.{form}.{kind}"), *value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};
    use std::vec::Vec;

    use super::*;

    #[test]
    fn calls_are_named_as_the_runner_reads_them() {
        let mut calls = SvsmCalls::default();
        let call = |protocol, call| CallId { protocol, call }.to_rax();
        calls.count(Form::Msr, call(0, 1));
        calls.count(Form::Msr, call(0, 1));
        calls.count(Form::Ghcb, call(0, 8));
        calls.count(Form::Ghcb, call(2, 15));
        calls.count(Form::Ghcb, call(2, 17));
        calls.count(Form::Ghcb, call(POOL, 3));
        calls.count(Form::Ghcb, call(POOL, 16));
        calls.count(Form::Ghcb, call(9, u32::MAX));
        let mut lines: Vec<(String, u64)> = Vec::new();
        calls
            .for_each(&mut |name, value| {
                lines.push((name.to_string(), value));
                Ok(())
            })
            .unwrap();
        let expected = [
            ("svsm.msr.core.pvalidate", 2),
            ("svsm.ghcb.core.other", 1),
            ("svsm.ghcb.vtpm.15", 1),
            ("svsm.ghcb.vtpm.other", 1),
            ("svsm.ghcb.pool.3", 1),
            ("svsm.ghcb.pool.16", 1),
            ("svsm.ghcb.other.other", 1),
        ];
        assert_eq!(
            lines,
            expected.map(|(name, value)| (name.to_string(), value))
        );
    }
}
