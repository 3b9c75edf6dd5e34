// SPDX-License-Identifier: MIT OR Apache-2.0
//! The comparison as table, file and drawing, and its exit status.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::boot::Boot;
use super::chart::chart;
use super::instructions::figures;
use super::promises::{promises, trouble_without};
use super::table::{Row, rows, table};
use crate::Failure;
use crate::checks::Check;
use crate::linux::account::Account;
use crate::table::write_checks;
use crate::verdict::{judged, write_json};

/// Version of the file's layout.
const VERSION: u32 = 1;

/// What to set side by side.
#[derive(Debug, Clone, Args)]
pub struct CompareOptions {
    /// A boot and the linux.json that 'runner linux' wrote of it; once for each
    #[arg(long = "boot", value_name = "NAME=FILE", required = true)]
    pub boots: Vec<String>,
    /// The linux.json of a boot with map_bench.ko that counted instructions
    #[arg(long, value_name = "FILE")]
    pub instructions: Option<PathBuf>,
    /// Also demand that each boot without the module runs into a full swiotlb
    #[arg(long)]
    pub expect_trouble: bool,
    /// Folder for compare.json and compare.svg
    #[arg(long, value_name = "DIR")]
    pub report: PathBuf,
}

/// `compare.json`.
#[derive(Debug, Serialize)]
struct Comparison<'a> {
    version: u32,
    success: bool,
    promises: &'a [Check],
    boots: Vec<Column<'a>>,
    /// What the table shows: name, and a cell for each boot.
    rows: &'a [Row],
}

#[derive(Debug, Serialize)]
struct Column<'a> {
    name: &'a str,
    driver: Option<&'a str>,
    account: &'a Account,
}

/// Compares, reports, and gives the failure if a promise was broken.
///
/// # Errors
/// [`Failure::BadInput`] when a report cannot be read or written, [`Failure::Checks`] when a promise was broken.
pub fn compare_and_report(options: &CompareOptions) -> Result<(), Failure> {
    let boots = options.boots.iter().map(|named| Boot::read(named));
    let boots = boots.collect::<Result<Vec<_>, _>>()?;
    let measured = match &options.instructions {
        Some(file) => figures(&Boot::read(&format!("instructions={}", file.display()))?),
        None => Vec::new(),
    };
    let rows = rows(&boots, &measured);
    let mut promises = promises(&boots);
    if options.expect_trouble {
        promises.push(trouble_without(&boots));
    }
    let mut text = table(&boots, &rows);
    // Writing to a string does not fail.
    let _ = write_checks(&mut text, &promises);
    println!("\n{text}");

    let comparison = Comparison {
        version: VERSION,
        success: promises.iter().all(|check| check.ok),
        promises: &promises,
        boots: boots
            .iter()
            .map(|boot| Column {
                name: &boot.name,
                driver: boot.guest.driver.as_deref(),
                account: &boot.account,
            })
            .collect(),
        rows: &rows,
    };
    let folder = options.report.display();
    write_json(&options.report, "compare.json", &comparison)?;
    let fail =
        |error: String| Failure::bad_input(format!("cannot write {folder}/compare.svg: {error}"));
    let drawing = chart(&boots).map_err(fail)?;
    std::fs::write(options.report.join("compare.svg"), drawing)
        .map_err(|error| fail(error.to_string()))?;
    println!("report: {folder}/compare.json, {folder}/compare.svg");
    judged(&promises)
}
