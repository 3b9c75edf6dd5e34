// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processor, memory and host: everything that needs `unsafe`.
//!
//! * [`entry`]: first instructions and stack; [`exceptions`]: descriptor tables and handlers
//! * [`processor`]: time stamp, CR3, GHCB MSR requests; [`memory`]: raw access to private pages
//! * [`calling`]: SVSM calls and what the shim asks of its kernel; [`ghcb`]: the registered GHCB
//! * [`cpu`], [`team`], [`spin_lock`]: which vCPU this is, the further ones, and what they share
//! * [`net`], [`nvme_memory`], [`burst`]: the other devices' memory, and a load beside them
//! * [`conversion`]: the costs of converting pages; [`watch`]: a page that is read while it is converted
//! * [`attacked`], [`host_replies`]: calls whose pages the host attacks, or whose requests it answers falsely; [`caller`]: what
//!   they share
//! * [`restart`], [`overtaken`]: a kernel that starts anew, and one whose other vCPUs go on with their calls
//! * [`block`]: virtio-blk as a [`test_guest::transfer::Disk`]; [`pass_watch`]: hash and samples of a
//!   pass; [`heap`]: the driver's descriptor lists; [`ending`]: termination and panics

pub mod attacked;
pub mod block;
pub mod burst;
pub mod caller;
pub mod calling;
pub mod conversion;
pub mod cpu;
pub mod ending;
mod entry;
pub mod exceptions;
pub mod ghcb;
mod heap;
pub mod host_replies;
pub mod memory;
pub mod net;
pub mod nvme_memory;
pub mod overtaken;
pub mod pass_watch;
pub mod processor;
pub mod restart;
pub mod spin_lock;
pub mod team;
pub mod watch;
