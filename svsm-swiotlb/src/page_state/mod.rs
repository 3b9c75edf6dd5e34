// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state of every 4 KiB page of guest RAM, one byte each.
//!
//! The RMP cannot be read, so the paravisor keeps its own account of what it validated and for whom. Everything at VMPL0
//! that touches a guest page or changes its state first takes the page's word by compare-and-swap (invariant P5); a taken
//! word answers BUSY and nobody waits for it, so it may be kept across a VMGEXIT.
//!
//! Pages of the pool window are not in here: none of them is ever validated (invariant W1), see [`crate::pool::Window`].

mod guard;
mod ranges;
mod states;

pub use guard::{HeldPages, HoldError, PageStates};
pub use ranges::{MAX_RANGES, RamRange, RamRanges, RangeError};
pub use states::PageState;
