// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine in process: the rules of this crate over real bytes, with a host that can be told to
//! lie. The service runs on it unmodified; see [`Machine`].

//! * `frames`: what memory holds, encrypted or not
//! * `memory`, `processor`: accesses, by the entry of the page or by a translation that a processor keeps
//! * `state`: the machine, and what the host does to it
//! * `platform`: the service's platform

mod frames;
mod memory;
mod platform;
mod processor;
mod state;
#[cfg(test)]
mod tests;

pub use memory::AccessFault;
pub use processor::Processor;
pub use state::{Counters, Machine};
