// SPDX-License-Identifier: MIT OR Apache-2.0
//! One file per call group. Each takes decoded arguments and returns results by value; what they have in common is
//! [`crate::Service`], which they see as their parts only.

mod attach;
mod convert;
mod discovery;
mod grow;
mod limits;
mod list_granted;
mod memory_form;
mod orphans;
mod release;
mod statistics;
mod trace;
