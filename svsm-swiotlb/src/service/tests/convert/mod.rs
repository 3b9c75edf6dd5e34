// SPDX-License-Identifier: MIT OR Apache-2.0
//! CONVERT through the entry: order and batches, lists and entries that are wrong, and what becomes of every page when an
//! instruction or the host fails.

mod failures;
mod instructions;
mod lists;
mod machine;
mod order;
mod traced;
mod world;
