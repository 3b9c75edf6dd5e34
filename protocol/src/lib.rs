// SPDX-License-Identifier: MIT OR Apache-2.0
//! The call protocol between a guest kernel and the shared-pool service at VMPL0.
//!
//! Types only: what travels in RAX, RCX, RDX and R8 and in the guest's pages, with both directions of every encoding.
//! The service decodes requests and encodes answers, the guest does the reverse; both sides use this crate, so an
//! encoding exists once. No state, no `unsafe`, no allocation, no panic on any input.
//!
//! The normative text is `docs/PROTOCOL.md`; items here name its clauses (`P-4.2`).
//!
//! * [`call`]: the calls and their numbers
//! * [`request`]: arguments of a call, checked once while they are decoded
//! * [`response`]: results of a call
//! * [`result`]: result codes and who is to blame
//! * [`holder`]: epoch and generation, the proof of who holds a chunk
//! * [`identity`]: protocol number, UUID, versions and features
//! * [`memory_form`]: a call whose registers lie in memory
//! * [`list`], [`convert`], [`statistics`], [`trace`]: structures in a guest's page
#![no_std]
#![forbid(unsafe_code)]

pub mod call;
pub mod convert;
pub mod holder;
pub mod identity;
pub mod list;
pub mod memory_form;
pub mod request;
pub mod response;
pub mod result;
pub mod statistics;
pub mod trace;

pub use call::Call;
pub use holder::{Epoch, Generation, Holder};
pub use identity::{DEFAULT_PROTOCOL_NUMBER, PROTOCOL_VERSION};
pub use request::Request;
pub use response::{Refusal, ResultRegisters};

/// Bytes of a chunk, the unit in which the pool grows and shrinks: one large page (clause P-3.1).
pub const CHUNK_BYTES: u64 = snp::address::LARGE_PAGE_SIZE;

/// Windows that the encoding has room for; version 1 services have exactly one, index 0 (clause P-3.2).
pub const MAX_WINDOWS: u8 = 8;
