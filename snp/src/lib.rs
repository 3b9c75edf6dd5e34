// SPDX-License-Identifier: MIT OR Apache-2.0
//! What AMD defines for SEV-SNP guests, as types: the GHCB and its MSR protocol, page-state
//! changes, the VMSA, the CPUID and secrets pages, SVSM calls, and the operands of PVALIDATE and
//! RMPADJUST.
//!
//! Structures are plain data with named fields; sizes and offsets are asserted when the crate is
//! compiled, golden bytes are tests. Values that come from a host or a guest are open newtypes or
//! integers until something checks them.
//!
//! Sources, by the names the modules use: *SVSM specification* (AMD 58019), *GHCB specification*
//! (AMD 56421), *SNP firmware ABI* (AMD 56860), *APM* (AMD 24593 and 24594).
//!
//! Without the feature `instructions` the crate has no `unsafe`. With it, the module
//! `instructions` holds the only inline assembly of the libraries.

#![no_std]
#![cfg_attr(not(feature = "instructions"), forbid(unsafe_code))]

#[cfg(test)]
extern crate std;

pub mod address;
pub mod cpuid;
pub mod ghcb;
pub mod ghcb_msr;
#[cfg(feature = "instructions")]
pub mod instructions;
pub mod msr;
pub mod operands;
pub mod psc;
pub mod secrets;
pub mod svsm;
pub mod vmsa;
