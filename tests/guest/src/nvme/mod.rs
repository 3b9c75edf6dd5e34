// SPDX-License-Identifier: MIT OR Apache-2.0
//! A polling NVMe driver (NVM Express base specification 2.0): enough to read a namespace with many
//! requests in flight.
//!
//! Every byte the controller reaches is pool memory: queues and PRP lists are shared buffers, data
//! are mappings. What the controller writes is attacker data: each completion is copied out once
//! and checked.
//!
//! * [`registers`]: the controller's registers, reached by explicit exits
//! * [`command`]: submission and completion entries
//! * [`prp`]: the pages of a transfer
//! * [`memory`]: the shared memory the driver asks for
//! * [`queue`]: a pair of queues
//! * [`controller`]: start, identification, creation of queue pairs
//! * [`disk`]: a namespace as a [`crate::transfer::Disk`]

pub mod command;
pub mod controller;
pub mod disk;
pub mod memory;
pub mod prp;
pub mod queue;
pub mod registers;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use crate::ghcb_channel::ExitError;

/// Bytes of a controller page: the smallest memory page size, which every controller has.
pub const PAGE_BYTES: usize = 4096;

/// Why the driver cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NvmeError {
    /// The host refused an access to a register.
    Exit(ExitError),
    /// The controller has no 4 KiB pages or no NVM command set.
    Capabilities(u64),
    /// The controller did not become ready, or idle, in time.
    NotReady,
    /// The controller reports a fatal error.
    Fatal,
    /// A command was not completed in time.
    Timeout,
    /// A command was completed with this status (status code type and status code).
    Status(u16),
    /// A completion names a command that is not in flight, or another queue.
    UnknownCommand(u16),
    /// The identification does not fit the driver: no namespace, metadata, strange block size.
    Identification,
    /// The pool has no memory for queues or lists.
    Memory,
    /// A buffer cannot be mapped or unmapped.
    Mapping,
    /// A transfer that needs more than one PRP list, has no bytes or a misaligned address.
    Transfer,
    /// The queue is full.
    QueueFull,
}

impl From<ExitError> for NvmeError {
    fn from(error: ExitError) -> Self {
        Self::Exit(error)
    }
}
