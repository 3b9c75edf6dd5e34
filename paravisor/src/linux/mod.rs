// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a Linux kernel is handed beyond the pages every guest gets.
//!
//! The image builder makes zero page, command line, descriptor table, confidential-computing blob and
//! ACPI tables, which are measured. Only what depends on the machine is written here, at boot: the
//! memory map (`e820`) and the list of processors (`madt`), both from checked values.

pub mod boot_params;
pub mod e820;
mod machine_pages;
pub mod madt;

pub use machine_pages::write;
