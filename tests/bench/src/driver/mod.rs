// SPDX-License-Identifier: MIT OR Apache-2.0
//! The workload: what is done to every allocator, and how it is measured.
//!
//! A [`Machine`] is the memory of the modelled guest; a [`Session`] is one allocator at work in it. The scenarios are
//! functions over both:
//!
//! * [`pair`]: cost of a map and its unmap, at a size, a fill, a number of threads, with and without copies
//! * [`capacity`]: how much payload fits
//! * [`burst`]: four times the pool, without an unmap
//! * [`failing`]: cost of a map that must fail
//! * [`constrained`]: maps of the shim alone, with constraints
//! * [`selftest`]: whether the allocator does its job at all
//!
//! Seeds, order of requests, warm-up and repetition are part of the workload: two drivers that keep them can be compared.

mod callbacks;
mod clock;
mod fill;
mod guest;
mod machine;
mod memory;
mod random;
mod rounding;
mod session;

pub mod burst;
pub mod capacity;
pub mod constrained;
pub mod failing;
pub mod pair;
pub mod selftest;

pub use callbacks::{Conversions, conversions, refuse_conversions, set_conversion_ticks};
pub use clock::{Clock, stamp};
pub use fill::{Ballast, Fill, fill};
pub use guest::Guest;
pub use machine::{CopyRoutine, Machine, Setup};
pub use random::{LONGEST, Random};
pub use rounding::whole;
pub use session::{Allocator, Session};
