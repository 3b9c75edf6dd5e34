// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processor, memory and host: everything that needs `unsafe`.
//!
//! * [`entry`]: first instructions and stack; [`exceptions`]: descriptor tables and handlers
//! * [`processor`]: time stamp, CR3, GHCB MSR requests; [`memory`]: raw access to private pages
//! * [`calling`]: SVSM calls and what the shim asks of its kernel; [`ghcb`]: the registered GHCB
//! * [`block`]: virtio-blk as a [`test_guest::transfer::Disk`]; [`pass_watch`]: hash and samples of a
//!   pass; [`heap`]: the driver's descriptor lists; [`ending`]: termination and panics

pub mod block;
pub mod calling;
pub mod ending;
mod entry;
pub mod exceptions;
pub mod ghcb;
mod heap;
pub mod memory;
pub mod pass_watch;
pub mod processor;
