// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of a Linux boot, for people.

use std::fmt::Write;

use super::account::Account;
use crate::checks::Check;
use crate::run::Outcome;
use crate::table::{mebibytes, row, write_checks};
use crate::transcript::Counters;

/// Groups of counters with their titles, and whether their sum means anything.
const GROUPS: [(&str, &[&str], bool); 6] = [
    ("SVSM calls by kind", &["svsm."], true),
    ("page conversions, pages", &["convert.", "psmash"], false),
    (
        "page-state changes and other VMGEXITs by VMPL",
        &["vmgexit."],
        true,
    ),
    ("page instructions by VMPL", &["instruction."], false),
    ("exits by VMPL and cause", &["exit."], true),
    (
        "other events",
        &["vc404", "alias", "vmpl-switch", "hv.", "pattern.", "kick"],
        false,
    ),
];
/// Width of a counter's name.
const NAME: usize = 44;

/// The table of `outcome`.
#[must_use]
pub fn table(outcome: &Outcome, account: &Account, checks: &[Check]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_machine(&mut text, outcome)
        .and_then(|()| write_times(&mut text, outcome))
        .and_then(|()| write_account(&mut text, outcome, account))
        .and_then(|()| write_counters(&mut text, outcome))
        .and_then(|()| write_checks(&mut text, checks));
    text
}

fn write_machine(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let facts = &outcome.transcript.linux;
    writeln!(text, "\nimage and machine")?;
    let bytes = format_args!("{} bytes", outcome.igvm_bytes).to_string();
    row(text, "IGVM file", bytes)?;
    row(text, "SNP launch digest", outcome.digest)?;
    row(
        text,
        "kernel",
        facts.release.as_deref().unwrap_or("it did not say"),
    )?;
    row(text, "vCPUs", outcome.vcpus)?;
    row(text, "guest memory", mebibytes(outcome.memory_bytes))?;
    if let Some(window) = outcome.window_bytes {
        row(text, "of that, pool window", mebibytes(window))?;
    }
    if let Some(bytes) = facts.swiotlb_bytes {
        row(text, "the kernel's own swiotlb", mebibytes(bytes))?;
    }
    row(text, "QEMU (TCG, nested SVM)", &outcome.qemu_version)
}

fn write_times(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let facts = &outcome.transcript.linux;
    writeln!(text, "\nseconds from the start of the machine")?;
    for (name, seconds) in [
        ("the kernel starts", facts.kernel_start()),
        ("its first line", facts.first_line),
        ("user space", facts.user_space.map(|moment| moment.machine)),
        ("all steps done", facts.done.map(|moment| moment.machine)),
        ("the machine is off", Some(outcome.duration.as_secs_f64())),
    ] {
        if let Some(seconds) = seconds {
            row(text, name, format_args!("{seconds:.1}"))?;
        }
    }
    Ok(())
}

/// Phase by phase: what the guest asked for, and what was shared.
fn write_account(text: &mut String, outcome: &Outcome, account: &Account) -> std::fmt::Result {
    let facts = &outcome.transcript.linux;
    writeln!(text, "\nphase by phase, counted by the host")?;
    for (name, phase) in &account.phases {
        let page_state = &phase.page_state;
        row(text, &format!("{name}: SVSM calls"), phase.all_calls())?;
        row(
            text,
            &format!("{name}: page-state exits, guest and service"),
            format_args!(
                "{} and {}",
                page_state.msr_exits + page_state.ghcb_exits,
                page_state.service_exits
            ),
        )?;
    }
    for (name, shared) in [
        ("memory shared", &account.shared),
        ("of that, in the window", &account.window),
    ] {
        let [boot, in_use, peak, after] =
            [shared.boot, shared.in_use, shared.peak, shared.after].map(mebibytes);
        let moments = format!("{boot} at boot, {in_use} in use, {peak} peak, {after} after");
        row(text, name, moments)?;
    }
    for (title, lines) in [
        ("the module in the kernel's log", &facts.module_log),
        ("trouble in the kernel's log", &facts.trouble),
    ] {
        if !lines.is_empty() {
            writeln!(text, "\n{title}")?;
        }
        for line in lines {
            writeln!(text, "  {line}")?;
        }
    }
    Ok(())
}

fn write_counters(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let none = Counters::new();
    let newest = outcome.transcript.newest();
    let counters = newest.map_or(&none, |newest| &newest.counters);
    for (title, prefixes, has_sum) in GROUPS {
        let group: Vec<_> = counters
            .iter()
            .filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)))
            .collect();
        if group.is_empty() {
            continue;
        }
        writeln!(text, "\n{title}")?;
        for (name, value) in &group {
            writeln!(text, "  {name:<NAME$} {value:>10}")?;
        }
        if has_sum {
            let sum: u64 = group.iter().map(|(_, value)| **value).sum();
            writeln!(text, "  {:<NAME$} {sum:>10}", "in all")?;
        }
    }
    Ok(())
}
