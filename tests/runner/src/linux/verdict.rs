// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots Linux and tells what came of it: table, file, exit status.

use super::account::Account;
use super::checks::checks;
use super::death::death;
use super::report::Report;
use super::table::table;
use crate::Failure;
use crate::expectation::Expectation;
use crate::run::run;
use crate::run_options::RunOptions;
use crate::verdict::{judged, last_console, write_json};

/// Boots, reports, and gives the failure if the boot is none of the promised kind.
///
/// # Errors
/// [`Failure::BadInput`] when nothing was started, [`Failure::Died`] when the boot did not come to
/// its end, [`Failure::Checks`] when a promise was broken.
pub fn linux_and_report(options: &RunOptions) -> Result<(), Failure> {
    let mut options = options.clone();
    options.expect = Some(Expectation::Linux);
    let outcome = run(&options)?;
    let death = death(&outcome);
    let account = Account::of(&outcome);
    let checks = match death {
        Some(_) => Vec::new(),
        None => checks(&outcome, &account),
    };
    if !options.quiet {
        print!("{}", table(&outcome, &account, &checks));
    }
    if let Some(folder) = &options.report {
        let report = Report::new(&outcome, &account, &checks, death.as_deref());
        write_json(folder, "linux.json", &report)?;
        if !options.quiet {
            println!("\nreport: {}/linux.json", folder.display());
        }
    }
    let verdict = match death {
        Some(death) => Err(Failure::Died(death)),
        None => judged(&checks),
    };
    if verdict.is_err() {
        // The cause comes last, where a terminal shows it.
        eprint!("{}", last_console(&outcome));
    }
    verdict
}
