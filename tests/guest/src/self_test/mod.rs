// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every wrong call, the answer the documents promise, and the proof that nothing changed.
//!
//! * [`Facts`]: addresses of every kind a caller can get wrong
//! * [`Case`]: a call and its expected answer; the tables are [`pool_cases`],
//!   [`convert_cases`], [`memory_cases`], [`core_cases`] and [`lost_cases`]
//! * [`run`]: sends a table and compares code, registers, list, memory and the pool's usage
//!
//! The codes come from docs/PROTOCOL.md and from SVSM specification chapters 5 and 6.

mod case;
mod check;
pub mod convert_cases;
pub mod core_cases;
mod facts;
pub mod lost_cases;
pub mod memory_cases;
pub mod pool_cases;

pub use case::{Case, ListPage};
pub use check::{Outcome, Prober, run};
pub use facts::Facts;
