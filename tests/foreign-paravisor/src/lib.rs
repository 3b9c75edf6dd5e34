// SPDX-License-Identifier: MIT OR Apache-2.0
//! Another paravisor, with the shared-pool service wired in: the worked example of docs/INTEGRATION.md.
//!
//! It shares no code with `paravisor/`. What an existing paravisor has already is the trait [`hardware::Hardware`]; the
//! rest is what an integrator writes: the platform traits over it, the boot, a core protocol that keeps window and state
//! words, a protocol of its own, and the dispatcher of the three. Parts between `[name]` marks are shown in the document;
//! `tests/document.rs` compares them.
//!
//! Left out, because every paravisor has its own: the run loop around VMGEXIT, the start of further processors (so
//! CREATE_VCPU and DELETE_VCPU are not offered), and how memory becomes the slices of [`boot::Storage`].
#![no_std]
#![forbid(unsafe_code)]

pub mod boot;
pub mod calling_areas;
pub mod core_protocol;
pub mod dispatcher;
pub mod echo;
pub mod hardware;
pub mod page_changes;
pub mod platform;
pub mod watch;
