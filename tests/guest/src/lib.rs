// SPDX-License-Identifier: MIT OR Apache-2.0
//! The test guest, portable half: a small kernel at VMPL2 that drives real disks through the pool.
//!
//! Everything here builds and is tested on any host; the machine is reached through narrow traits.
//! The bare-metal half (`src/main.rs`, feature `bare-metal`) implements them: entry code, exception
//! handlers, page-table switch, VMGEXIT, SVSM calls.
//!
//! In the order of a run:
//! * [`boot_facts`], [`command_line`]: what the guest was started with, checked once
//! * [`acceptance`], [`page_state`]: making RAM usable where the paravisor left that to the guest
//! * [`arena`], [`page_table`]: private memory and the guest's own address space
//! * [`self_test`]: every wrong call, its expected answer, and the proof that nothing changed
//! * [`ghcb_channel`]: exits to the host; on top of it [`console`], [`port`],
//!   [`pci_configuration`] and [`virtio_pci`], by explicit calls instead of a #VC emulator
//! * [`request_plan`], [`transfer`], [`copy`]: many disk requests in flight, seen in order
//! * [`nvme`], [`http`], [`fetch`]: the drivers and protocols of the other devices
//! * [`ap_state`], [`schedule`]: further vCPUs, and what each of them drives
//! * [`record`]: the machine-readable lines on the console
//! * [`stop`]: how a run ends

#![cfg_attr(not(test), no_std)]

pub mod acceptance;
pub mod ap_state;
pub mod arena;
pub mod boot_facts;
pub mod command_line;
pub mod console;
pub mod copy;
pub mod fetch;
pub mod ghcb_channel;
pub mod http;
pub mod nvme;
pub mod page_state;
pub mod page_table;
pub mod pci_configuration;
pub mod port;
pub mod record;
pub mod request_plan;
pub mod schedule;
pub mod self_test;
pub mod stop;
pub mod transfer;
pub mod virtio_pci;
