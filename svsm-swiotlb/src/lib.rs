// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shared-pool service at VMPL0.
//!
//! A confidential guest bounces its I/O through memory it shares with the host. This crate owns that memory's pool: it
//! grants and takes back 2 MiB chunks of a window of guest physical addresses of which no page is ever validated, so
//! that growing is one request to the host and nothing else. The protocol is `docs/PROTOCOL.md`, the types on the wire
//! are in the `protocol` crate.
//!
//! A call flows one way, results return by value:
//!
//! ```text
//!   Service::dispatch -> calls -> pool (chunks)          -> host_reply -> platform::HostPages
//!                              -> guest_page, page_state -> platform::GuestMemory
//!                              -> conversion, ownership  -> platform::PageInstructions
//! ```
//!
//! * [`service`]: the entry; decoding is `protocol::Request`, past which only checked arguments travel
//! * `calls`: one file per call
//! * [`pool`]: window, chunk records, search, accounts
//! * [`host_reply`]: the page-state-change loop and every check of the host's reply
//! * `conversion`, [`ownership`]: pages of the guest's own change hands
//! * [`page_state`], [`guest_page`]: the state words of guest RAM, and structures in the guest's pages
//! * [`platform`]: the traits an integrator implements
//! * [`trace`]: the newest events; [`statistics`]: the counters
//! * [`state`]: what an owner hands to its successor
//! * [`storage`]: how much memory an integrator sets aside
//!
//! No allocation, no `unsafe`, no panic path, no lock. Every loop is bounded by a batch, a page, the window or a constant.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod calls;
mod conversion;
pub mod guest_page;
pub mod host_reply;
pub mod ownership;
pub mod page_state;
pub mod platform;
pub mod pool;
pub mod service;
pub mod session;
pub mod state;
pub mod statistics;
pub mod storage;
mod sync;
#[cfg(test)]
mod test_platform;
pub mod trace;

pub use service::{Configuration, Service};

/// Work units of one call: one per 4 KiB page touched or chunk record listed, one per 2 MiB request (clause P-6.5).
pub const WORK_UNITS: usize = 4096;
