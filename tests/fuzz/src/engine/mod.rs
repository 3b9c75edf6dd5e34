// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a case: the pool beside the reference model, compared after every step.

mod checks;
mod device;
mod mapping;
mod misuse;
mod promise;
mod reservations;
mod run;
mod shared;

pub use run::{Engine, run, step};
