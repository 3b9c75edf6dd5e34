// SPDX-License-Identifier: MIT OR Apache-2.0
//! `linux.json`: everything a boot of Linux showed, for programs.

use std::ops::Range;

use serde::Serialize;

use super::account::Account;
use super::facts::Facts;
use crate::checks::Check;
use crate::host_record::{Conversion, Termination};
use crate::run::Outcome;
use crate::transcript::Counters;

/// Version of the file's layout.
const VERSION: u32 = 1;

/// The file.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    version: u32,
    success: bool,
    /// Why the boot did not come to its end.
    death: Option<&'a str>,
    checks: &'a [Check],
    image_bytes: u64,
    launch_digest: String,
    windows: &'a [Range<u64>],
    memory_bytes: u64,
    vcpus: u32,
    qemu: &'a str,
    seconds: Seconds,
    guest: &'a Facts,
    /// What it cost, phase by phase.
    account: &'a Account,
    /// Sums that the next issues compare with.
    svsm_calls: u64,
    page_state_change_exits: u64,
    counters: Option<&'a Counters>,
    conversions: &'a [Conversion],
    termination: Option<Termination>,
    violation: Option<&'a str>,
    broken_lines: &'a [String],
    qemu_messages: &'a [String],
}

/// Seconds from the start of the machine.
#[derive(Debug, Serialize)]
struct Seconds {
    kernel_start: Option<f64>,
    first_line: Option<f64>,
    user_space: Option<f64>,
    done: Option<f64>,
    end: f64,
}

impl<'a> Report<'a> {
    /// The report of `outcome` with its verdict.
    #[must_use]
    pub fn new(
        outcome: &'a Outcome,
        account: &'a Account,
        checks: &'a [Check],
        death: Option<&'a str>,
    ) -> Self {
        let transcript = &outcome.transcript;
        let facts = &transcript.linux;
        let counters = transcript.newest().map(|newest| &newest.counters);
        let sum = |counts: fn(&str) -> bool| {
            let all = counters.into_iter().flatten();
            all.filter(|(name, _)| counts(name)).map(|(_, n)| n).sum()
        };
        Self {
            version: VERSION,
            success: death.is_none() && checks.iter().all(|check| check.ok),
            death,
            checks,
            image_bytes: outcome.igvm_bytes,
            launch_digest: outcome.digest.to_string(),
            windows: &outcome.windows,
            memory_bytes: outcome.memory_bytes,
            vcpus: outcome.vcpus,
            qemu: &outcome.qemu_version,
            seconds: Seconds {
                kernel_start: facts.kernel_start(),
                first_line: facts.first_line,
                user_space: facts.user_space.map(|moment| moment.machine),
                done: facts.done.map(|moment| moment.machine),
                end: outcome.duration.as_secs_f64(),
            },
            guest: facts,
            account,
            svsm_calls: sum(|name| name.starts_with("svsm.")),
            page_state_change_exits: sum(|name| {
                name.strip_prefix("vmgexit.2.")
                    .is_some_and(|cause| cause.contains("psc"))
            }),
            counters,
            conversions: &transcript.conversions,
            termination: transcript.termination,
            violation: transcript.violation.as_deref(),
            broken_lines: &transcript.broken,
            qemu_messages: &outcome.qemu_messages,
        }
    }
}
