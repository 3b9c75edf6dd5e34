// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hostile-host catalogue, row by row, and the hooks of an emulated machine.

mod conversion_pages;
mod conversion_replies;
mod memory_maps;
mod pages;
mod replies;
mod table;
