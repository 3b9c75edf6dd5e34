// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine in process: the rules of this crate over real bytes, with a host that can be told to
//! lie. The service runs on it unmodified; see [`Machine`].

mod memory;
mod platform;
mod state;

pub use memory::{AccessFault, Pattern};
pub use state::{Counters, Machine};
