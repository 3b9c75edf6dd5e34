// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VMPL0 image that runs the shared-pool service: its portable half.
//!
//! Everything here builds and is tested on any host. The bare-metal half (`src/main.rs`, feature
//! `bare-metal`) adds entry code, exception handlers, page tables and the platform traits.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod acceptance;
pub mod apic_ids;
pub mod boot_block;
pub mod boot_plan;
pub mod core_protocol;
pub mod dispatcher;
pub mod fault_fixup;
pub mod general_parameters;
pub mod guest_pages;
pub mod guest_vmsa;
pub mod handover;
pub mod host_features;
pub mod identity_map;
pub mod launch_area;
pub mod layout;
pub mod linux;
pub mod memory_map;
pub mod own_map;
pub mod page_account;
pub mod page_owner;
pub mod placement;
pub mod processor_memory;
pub mod range_list;
pub mod start_pages;
pub mod start_tables;
pub mod storage_needs;
pub mod termination;
pub mod vcpu_control;
pub mod vcpu_table;

#[cfg(test)]
mod test_machine;
