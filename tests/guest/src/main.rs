// SPDX-License-Identifier: MIT OR Apache-2.0
//! The test guest, bare-metal half: entered at VMPL2 in 64-bit mode, RSI naming the hand-over page.
//!
//! [`machine`] holds what touches the processor, memory and the host, and all `unsafe` code;
//! [`start`] is the way from the first instruction to a running pool; [`probe`], [`disk_job`] and,
//! where there is more than a disk and a vCPU, [`many_job`] are what the guest is for; [`restart_job`]
//! is for kernels that crash, [`windows_job`] for machines with two windows.

#![no_std]
#![no_main]

mod device_work;
mod devices;
mod disk_job;
mod machine;
mod many_job;
mod probe;
mod restart_job;
mod service_report;
mod start;
mod windows_job;
