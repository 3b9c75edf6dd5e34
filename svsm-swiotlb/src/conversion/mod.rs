// SPDX-License-Identifier: MIT OR Apache-2.0
//! Converting pages of the guest's own, in batches (docs/PROTOCOL.md, P-5.9.4 to P-5.9.11; invariant P2).
//!
//! To shared, all permissions of a batch are revoked, one flush makes that binding for every processor, all validation
//! is rescinded, and one page-state change tells the host. Back, the host is asked first, and each page is validated,
//! zeroed and granted, in this order. The words of the pages are taken all the while, across the VMGEXIT too.
//!
//! * `batch`: the pages of a batch, and what becomes of each
//! * `to_shared`, `to_private`: the two directions
//! * `host`: the page-state change of a batch
//! * `convert`: which entries make up a batch, and what a call answers

mod batch;
mod convert;
mod host;
mod to_private;
mod to_shared;

pub(crate) use batch::{BATCH_ENTRIES, Batch};
pub(crate) use convert::{Conversion, End};
