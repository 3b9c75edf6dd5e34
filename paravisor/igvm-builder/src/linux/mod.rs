// SPDX-License-Identifier: MIT OR Apache-2.0
//! A Linux kernel as payload: bzImage, initrd and command line become measured pages.
//!
//! `bzimage` reads the kernel's file, `initrd` checks that of the user space, `acpi` makes the tables,
//! `start_data` the pages around them, `place` decides where all of it lies.

mod acpi;
mod bzimage;
mod initrd;
mod place;
mod start_data;

pub use bzimage::is_kernel;
pub use place::linux_payload;
