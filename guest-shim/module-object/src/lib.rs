// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Rust part of the Linux module as one relocatable object.
//!
//! [`compile`] builds the C interface of the shim with the mitigations that a kernel's own code has, by the compiler's
//! own options. [`check`] then reads the result and refuses what a module loader, objtool or a kernel's rules would not
//! take, and everything that it does not know. No byte of what the compiler wrote is changed.

mod check;
mod compile;
mod instructions;
mod provenance;
mod relocations;
mod sections;
mod symbols;

pub use check::{Refused, check};
pub use compile::{CompileError, OBJECT_NAME, RUST_FLAGS, compile};
pub use instructions::InstructionFault;
pub use provenance::provenance;
pub use relocations::RelocationFault;
pub use sections::SectionFault;
pub use symbols::SymbolFault;
