// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hostile-host catalogue, row by row, and the hooks of an emulated machine.

mod catalogue;
mod conversion_pages;
mod conversion_replies;
mod hooks;
mod memory_maps;
mod pages;
mod qemu_tests;
mod replies;
mod table;
