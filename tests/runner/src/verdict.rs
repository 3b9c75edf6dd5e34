// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs an image and tells what came of it: table, files, exit status.

use std::collections::VecDeque;
use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::Failure;
use crate::chart::pool_chart;
use crate::checks::{Check, checks, death};
use crate::report::Report;
use crate::run::{Outcome, run};
use crate::run_options::RunOptions;
use crate::table::table;

/// Runs, reports, and gives the failure if the run is none of the promised kind.
///
/// # Errors
/// [`Failure::BadInput`] when nothing was started, [`Failure::Died`] when the run did not come to
/// its end, [`Failure::Checks`] when a promise was broken.
pub fn run_and_report(options: &RunOptions) -> Result<(), Failure> {
    let outcome = run(options)?;
    let death = death(&outcome);
    let checks = match death {
        Some(_) => Vec::new(),
        None => checks(&outcome),
    };
    if !options.quiet {
        print!("{}", table(&outcome, &checks));
    }
    if let Some(folder) = &options.report {
        write_report(folder, &outcome, &checks, death.as_deref())?;
        if !options.quiet {
            let folder = folder.display();
            println!("\nreport: {folder}/run.json, {folder}/pool.svg");
        }
    }
    if let Some(death) = death {
        // The cause comes last, where a terminal shows it.
        eprint!("{}", last_words(&outcome));
        return Err(Failure::Died(death));
    }
    judged(&checks)
}

/// The failure that names all broken checks, if there are any.
///
/// # Errors
/// [`Failure::Checks`] when one of `checks` does not hold.
pub fn judged(checks: &[Check]) -> Result<(), Failure> {
    let broken: Vec<_> = checks
        .iter()
        .filter(|check| !check.ok)
        .map(sentence)
        .collect();
    if broken.is_empty() {
        Ok(())
    } else {
        Err(Failure::Checks(broken))
    }
}

fn sentence(check: &Check) -> String {
    format!("{}: {}", check.name, check.detail)
}

fn write_report(
    folder: &Path,
    outcome: &Outcome,
    checks: &[Check],
    death: Option<&str>,
) -> Result<(), Failure> {
    let fail = |error: String| {
        Failure::bad_input(format!("cannot write to {}: {error}", folder.display()))
    };
    write_json(folder, "run.json", &Report::new(outcome, checks, death))?;
    let chart = pool_chart(&outcome.transcript).map_err(fail)?;
    std::fs::write(folder.join("pool.svg"), chart).map_err(|error| fail(error.to_string()))
}

/// Writes a report to the file `name` in `folder`, which is made if need be.
///
/// # Errors
/// [`Failure::BadInput`] when it cannot be written.
pub fn write_json(folder: &Path, name: &str, report: &impl Serialize) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)
        .map_err(|error| error.to_string())
        .and_then(|()| serde_json::to_vec_pretty(report).map_err(|error| error.to_string()))
        .and_then(|json| std::fs::write(folder.join(name), json).map_err(|error| error.to_string()))
        .map_err(|error| {
            Failure::bad_input(format!("cannot write to {}: {error}", folder.display()))
        })
}

/// The console's last lines.
#[must_use]
pub fn last_console(outcome: &Outcome) -> String {
    let mut text = String::new();
    quote(&mut text, "console lines", &outcome.transcript.last_console);
    text
}

/// What was said last, by each who spoke.
fn last_words(outcome: &Outcome) -> String {
    let mut text = String::new();
    let transcript = &outcome.transcript;
    let messages = outcome.qemu_messages.iter().cloned().collect();
    for (speaker, lines) in [
        ("records", &transcript.last_records),
        ("console lines", &transcript.last_console),
        ("messages of QEMU", &messages),
    ] {
        quote(&mut text, speaker, lines);
    }
    text
}

fn quote(text: &mut String, speaker: &str, lines: &VecDeque<String>) {
    // Writing to a string does not fail.
    let _ = if lines.is_empty() {
        writeln!(text, "\nno {speaker}")
    } else {
        writeln!(text, "\nlast {speaker}:")
    };
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
}
