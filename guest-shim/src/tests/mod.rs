// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shim on a small machine: a service in memory, and a window that really is one.
#![expect(clippy::cast_possible_truncation, reason = "small numbers of tests")]

mod attach;
mod buffer;
mod growth;
mod interrupted;
mod machine;
mod maintenance;
mod mapping;
mod memory;
mod misuse;
mod model;
mod reservation;
mod service;
#[cfg(feature = "virtio")]
mod virtio;
