// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine in process: the rules of this crate over real bytes, with a host that can be told to
//! lie. The service runs on it unmodified; see [`Machine`].

//! * `frames`: what memory holds, encrypted or not
//! * `memory`: accesses
//! * `state`: the machine, and what the host does to it
//! * `platform`: the service's platform

mod frames;
mod memory;
mod platform;
mod state;
#[cfg(test)]
mod tests;

pub use memory::AccessFault;
pub use state::{Counters, Machine};
