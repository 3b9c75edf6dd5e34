// SPDX-License-Identifier: MIT OR Apache-2.0
//! Benchmarks of the guest shim against the limits and other allocators.
//!
//! * [`abi`]: the interface that every allocator is measured through, see `include/bb_abi.h`
//! * [`allocators`]: what is measured
//! * [`driver`]: how it is measured
//! * [`report`]: what the figures are compared with, tables, plots
//!
//! Built as a shared object this crate is an allocator for other drivers of the interface: it exports `bb_get_ops`.

pub mod abi;
pub mod allocators;
pub mod driver;
pub mod peers;
pub mod plan;
pub mod report;
pub mod run;

/// The shim's entry of the interface, for drivers that load this as a shared object.
#[unsafe(no_mangle)]
pub extern "C" fn bb_get_ops() -> *const abi::Operations {
    &raw const allocators::shim::OPERATIONS
}
