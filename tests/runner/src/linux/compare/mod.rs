// SPDX-License-Identifier: MIT OR Apache-2.0
//! `runner linux-compare`: boots of the same kernel with the same disks and work, side by side.
//!
//! `boot` reads what `runner linux` wrote of each, `promises` judge them together, `table` and `chart` show them,
//! `report` puts it together.

mod boot;
mod chart;
mod instructions;
mod promises;
mod report;
mod table;

pub use report::{CompareOptions, compare_and_report};
