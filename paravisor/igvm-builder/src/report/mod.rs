// SPDX-License-Identifier: MIT OR Apache-2.0
//! Judges an attestation report: what docs/ATTESTATION.md says that a verifier checks.
//!
//! `layout` is the report as the firmware writes it, `tcb` the versions in it, `expectations` what a verifier wants and where it
//! comes from, `check` compares both, `certificate` checks the signature, `finding` says in one line what is wrong.

mod certificate;
mod check;
mod command;
mod expectations;
mod finding;
mod layout;
mod tcb;

pub use certificate::Certificate;
pub use check::check;
pub use command::{Verdict, VerifyError, VerifyOptions, verify};
pub use expectations::{Expectations, Wanted};
pub use finding::Finding;
pub use layout::{AttestationReport, EcdsaSignature, PlatformInfo, SIGNED_BYTES, SigningKey};
pub use tcb::{MinimumTcb, TcbVersion};
