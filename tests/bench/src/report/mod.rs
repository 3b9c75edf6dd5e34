// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the figures are compared with, and how they are shown.
//!
//! * [`results`](Results): what was measured
//! * [`figures`]: what the shim is to reach, and whether it does
//! * [`published`]: what others were measured at, elsewhere
//! * [`table`], [`listing`], [`csv`], [`plot`]: the same for people, for other programs, and drawn
//! * [`noise`]: how far a run can be believed
//! * [`faults`]: what must not happen at any speed

pub mod csv;
pub mod faults;
pub mod figures;
pub mod listing;
pub mod noise;
pub mod plot;
pub mod published;
mod results;
pub mod table;

pub use results::{Figure, LIMIT, Results, Row, SHIM, SHIM_SMALL};
