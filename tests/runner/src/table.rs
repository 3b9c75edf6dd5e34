// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table at the end of a run, for people.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::checks::Check;
use crate::guest_line::Trace;
use crate::longest_calls::longest_calls;
use crate::own_conversions::OwnConversion;
use crate::pool_story::PoolStory;
use crate::report::{boot_to_attach, bytes_bounced};
use crate::run::Outcome;
use crate::steady_state::SteadyState;
use crate::transcript::Counters;

/// Width of the first column.
const NAME: usize = 42;

/// The table of `outcome`.
#[must_use]
pub fn table(outcome: &Outcome, checks: &[Check]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_image(&mut text, outcome)
        .and_then(|()| write_digests(&mut text, outcome))
        .and_then(|()| write_devices(&mut text, outcome))
        .and_then(|()| write_pool(&mut text, outcome))
        .and_then(|()| write_own_conversions(&mut text, outcome))
        .and_then(|()| write_service(&mut text, outcome))
        .and_then(|()| write_counters(&mut text, outcome))
        .and_then(|()| write_checks(&mut text, checks));
    text
}

/// One line of two columns.
pub fn row(text: &mut String, name: &str, value: impl std::fmt::Display) -> std::fmt::Result {
    writeln!(text, "  {name:<NAME$} {value}")
}

/// Bytes in words.
#[must_use]
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn write_image(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    writeln!(text, "\nimage and machine")?;
    row(
        text,
        "IGVM file",
        format_args!("{} bytes", outcome.igvm_bytes),
    )?;
    row(text, "SNP launch digest, 1 vCPU", outcome.digest)?;
    row(text, "guest memory", mebibytes(outcome.memory_bytes))?;
    if let Some(window) = outcome.window_bytes {
        row(text, "of that, pool window", mebibytes(window))?;
    }
    row(text, "QEMU (TCG, nested SVM)", &outcome.qemu_version)?;
    let seconds = outcome.duration.as_secs_f64();
    row(text, "time", format_args!("{seconds:.1} s"))?;
    let resident = outcome.resident;
    for (name, bytes) in [
        ("memory of QEMU when the guest attached", resident.attached),
        ("at most", resident.peak),
        ("at last", resident.last),
    ] {
        if bytes != 0 {
            row(text, name, mebibytes(bytes))?;
        }
    }
    if let Some(seconds) = boot_to_attach(outcome) {
        row(
            text,
            "guest entry to attach",
            format_args!("{seconds:.3} s"),
        )?;
    }
    if let Some(after) = outcome.transcript.attach_heard {
        let seconds = after.as_secs_f64();
        row(
            text,
            "machine start to attach",
            format_args!("{seconds:.1} s"),
        )?;
    }
    Ok(())
}

fn write_digests(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let Some(host) = &outcome.disk_digests else {
        return Ok(());
    };
    let size = mebibytes(host.bytes);
    writeln!(text, "\nSHA-256 of {size}: the guest's beside the host's")?;
    for (phase, name, host) in [
        ("read1", "disk, first read", &host.first),
        ("read2", "disk, second read", &host.first),
        ("verify", "second disk, read back", &host.second),
    ] {
        let guest = outcome.transcript.digests.get(phase);
        let sign = if guest == Some(host) { '=' } else { '!' };
        let guest = guest.map_or("-", String::as_str);
        writeln!(text, "  {name:<23}{guest:<64} {sign} {host}")?;
    }
    if let Some(bytes) = bytes_bounced(&outcome.transcript.shim) {
        row(
            text,
            "bytes bounced",
            format_args!("{bytes} ({})", mebibytes(bytes)),
        )?;
    }
    Ok(())
}

/// One line for each device and pass, and for each vCPU's burst; nothing on the default run.
fn write_devices(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let transcript = &outcome.transcript;
    if transcript.busy.is_empty() {
        return Ok(());
    }
    let rate = transcript.ticks_per_second();
    writeln!(text, "\ndevices, all of them at once")?;
    for busy in &transcript.busy {
        let bytes = mebibytes(busy.bytes);
        let mut value = format!("vCPU {}, {} rounds of {bytes}", busy.cpu, busy.rounds);
        if let Some(rate) = rate {
            let seconds = busy.to.saturating_sub(busy.from) as f64 / rate;
            write!(value, " in {seconds:.1} s")?;
        }
        let host = match busy.phase.as_str() {
            "nvme1" | "nvme2" => outcome.device_files.nvme.as_ref(),
            "net1" | "net2" => outcome.device_files.fetched.as_ref(),
            _ => None,
        };
        if let Some(host) = host {
            let same = transcript.digests.get(&busy.phase) == Some(&host.sha256);
            value += if same {
                ", SHA-256 as the host's"
            } else {
                ", another SHA-256 than the host's"
            };
        }
        row(text, &busy.phase, value)?;
    }
    for burst in &transcript.bursts {
        let value = format!(
            "{} rounds, {} mappings, {} growths, {} give-backs of {}",
            burst.rounds,
            burst.maps,
            burst.grows,
            burst.releases,
            mebibytes(burst.released)
        );
        row(text, &format!("burst of vCPU {}", burst.cpu), value)?;
    }
    Ok(())
}

fn write_pool(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let transcript = &outcome.transcript;
    if transcript.attach.is_none() {
        return Ok(());
    }
    let story = PoolStory::of(transcript);
    let rate = transcript.ticks_per_second();
    writeln!(text, "\npool size over time")?;
    row(text, "at attach", mebibytes(story.start))?;
    for (step, (ticks, granted)) in story.growth_steps.iter().enumerate() {
        let name = format!("growth step {}", step + 1);
        match rate {
            Some(rate) => {
                let seconds = *ticks as f64 / rate;
                let value = format!("{:<12} at {seconds:.3} s", mebibytes(*granted));
                row(text, &name, value)?;
            }
            None => row(text, &name, mebibytes(*granted))?,
        }
    }
    row(text, "peak", mebibytes(story.peak))?;
    row(text, "most in use", mebibytes(story.peak_used))?;
    row(
        text,
        "give-back requested by the guest",
        mebibytes(story.given_back),
    )?;
    row(text, "converted back by the host", mebibytes(story.freed))?;
    row(text, "at the end", mebibytes(story.end))
}

/// CONVERT beside what a guest does without it; nothing where the guest did not try.
fn write_own_conversions(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let found = OwnConversion::of(&outcome.transcript);
    if outcome.transcript.converted.is_none() {
        return Ok(());
    }
    let title = "pages of the guest's own";
    writeln!(
        text,
        "\n{title:<NAME$}   {:>9} {:>7} {:>10} {:>8} {:>13}",
        "bytes", "calls", "PSC exits", "flushes", "instructions"
    )?;
    for one in found {
        writeln!(
            text,
            "  {:<NAME$} {:>9} {:>7} {:>10} {:>8} {:>13}",
            one.name(),
            mebibytes(one.bytes),
            one.calls,
            one.psc_exits,
            one.flushes,
            one.instructions
        )?;
    }
    Ok(())
}

/// What the service said of itself, and how long it took.
fn write_service(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let transcript = &outcome.transcript;
    if !transcript.service.is_empty() {
        writeln!(text, "\nthe service, by its own counters")?;
        for (name, value) in &transcript.service {
            row(text, name, value)?;
        }
    }
    if !transcript.trace.is_empty() {
        writeln!(text, "\nits newest events")?;
        for event in &transcript.trace {
            let name = format!("{} {}", event.sequence, event.kind);
            let Trace {
                code,
                detail,
                address,
                bytes,
                ..
            } = event;
            let value = format!("code {code}, detail {detail:#x}, {address:#x} + {bytes:#x}");
            row(text, &name, value)?;
        }
    }
    let counters = transcript.newest().map(|newest| &newest.counters);
    let calls = counters.map(|counters| longest_calls(counters, outcome.deterministic));
    let calls = calls.filter(|calls| !calls.is_empty()).unwrap_or_default();
    if let Some(first) = calls.first() {
        let counted = first.whole_instructions.is_some();
        let unit = if counted { "instructions" } else { "ticks" };
        let title = format!("longest SVSM call by kind, {unit}");
        writeln!(
            text,
            "\n{title:<NAME$}   {:>12} {:>13}",
            "at VMPL0", "as a whole"
        )?;
        for call in &calls {
            let own = call.vmpl0_instructions.unwrap_or(call.vmpl0_ticks);
            let whole = call.whole_instructions.unwrap_or(call.whole_ticks);
            writeln!(text, "  {:<NAME$} {own:>12} {whole:>13}", call.call)?;
        }
    }
    Ok(())
}

fn write_counters(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let transcript = &outcome.transcript;
    let none = Counters::new();
    let whole = transcript.newest().map_or(&none, |newest| &newest.counters);
    let steady = SteadyState::of(transcript);
    let steady_counters = steady.as_ref().map(|steady| &steady.counters);
    if !transcript.calls.is_empty() {
        writeln!(text, "\nSVSM calls by kind, counted by the guest")?;
        for (name, count) in &transcript.calls {
            row(text, name, count)?;
        }
    }
    for (title, prefixes) in [
        ("page conversions by kind", &["convert.", "psmash"][..]),
        ("VMGEXITs by VMPL and cause", &["vmgexit."]),
        ("page instructions by VMPL", &["instruction."]),
        ("exits by VMPL and cause", &["exit."]),
        (
            "other events",
            &[
                "vc404",
                "alias",
                "vmpl-switch",
                "switch.",
                "hv.",
                "pattern.",
            ],
        ),
    ] {
        let names: BTreeSet<_> = whole
            .keys()
            .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
            .collect();
        if names.is_empty() {
            continue;
        }
        writeln!(
            text,
            "\n{title:<NAME$}   {:>12} {:>13}",
            "whole run", "steady state"
        )?;
        for name in names {
            let value = |counters: &Counters| counters.get(name).copied().unwrap_or(0);
            let steady = steady_counters.map_or("-".into(), |counters| value(counters).to_string());
            writeln!(text, "  {name:<NAME$} {:>12} {steady:>13}", value(whole))?;
        }
    }
    if let Some(steady) = &steady {
        writeln!(text, "\nsteady state (the second full read)")?;
        row(text, "SVSM calls", steady.svsm_calls)?;
        row(text, "page conversions", steady.conversions)?;
    }
    Ok(())
}

/// The checks and their outcome.
pub fn write_checks(text: &mut String, checks: &[Check]) -> std::fmt::Result {
    if checks.is_empty() {
        return Ok(());
    }
    writeln!(text, "\nchecks")?;
    for check in checks {
        let verdict = if check.ok { "ok  " } else { "FAIL" };
        writeln!(text, "  {verdict} {}: {}", check.name, check.detail)?;
    }
    Ok(())
}
