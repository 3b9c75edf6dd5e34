// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of an SEV-SNP machine as plain code.
//!
//! * [`rmp`]: the reverse map: who owns a page, whether it is validated, what each VMPL may do;
//!   PVALIDATE, RMPADJUST, RMPQUERY for guests, RMPUPDATE and PSMASH for the host;
//! * [`access`]: what an access of a guest does, given the page's entry;
//! * [`psc`]: how a host works through a page-state-change descriptor, honestly or not;
//! * [`run_vmpl`]: when a host may switch to another VMPL;
//! * [`layout`]: guest physical ranges to page indices.
//!
//! The same code serves the in-process tests (feature `machine`) and `tests/snp-host`, which makes
//! QEMU an SNP machine. No allocation, no panic, no `unsafe`.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "machine"))]
extern crate std;

pub mod access;
pub mod layout;
#[cfg(feature = "machine")]
pub mod machine;
pub mod psc;
pub mod rmp;
pub mod run_vmpl;
