// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small hypervisor that makes an unmodified QEMU (TCG, 7.2 or later) an SEV-SNP machine by
//! nested SVM, so that an IGVM image is tested as it ships.
//!
//! The library is the hypervisor's logic: portable, without `unsafe`, over the narrow traits of
//! [`hardware`]. The rules of SNP come from `snp_model`. The binary adds what only bare metal has:
//! boot, world switch, ports and raw memory.
//!
//! | part | modules |
//! |---|---|
//! | interface to the runner | [`launch`], [`switches`], [`record`], [`counters`], [`memory_plan`] |
//! | what the runner judges | [`inspection`] |
//! | state | [`machine`], [`vcpu`], [`residence`], [`vmcb`], [`permission_maps`], [`shared_view`] |
//! | memory | [`nested_tables`], [`page_conversion`], [`guest_memory`] |
//! | exits | [`exits`], [`trapped_instruction`], [`translations`], [`nested_fault`], [`decode`], [`exception_frame`] |
//! | requests | [`msr_protocol`], [`ghcb_exit`], [`port_access`], [`firmware_configuration`], [`power`], [`interrupt_filter`], [`destinations`], [`nmi`], [`msr_policy`], [`cpuid_policy`] |
//! | VMPLs and CPUs | [`vmpl_switch`], [`vcpu_creation`], [`svsm_calls`], [`call_times`] |
//! | misbehaviour | [`doorbell_event`], [`switch_manner`], [`psc_manner`], [`recurrence`]; page states: `snp_model::psc` |
//! | attacks | [`attack`], [`page_attack`], [`frames`], [`false_reply`], [`injection`], [`surplus_launch`] |
//!
//! What it does not model: #HV is raised before a switch of VMPL
//! 0 only, and only where the launch asks for it, debug registers are shared between VMPLs, user and
//! supervisor execute permissions are one, and a fetch or walk without C-bit opens its page to C=0
//! data accesses of the same VMPL until the VMPL changes.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod attack;
pub mod call_times;
pub mod counters;
pub mod cpuid_policy;
pub mod decode;
pub mod destinations;
pub mod doorbell_event;
pub mod exception_frame;
pub mod exits;
pub mod false_reply;
pub mod firmware_configuration;
pub mod frames;
pub mod ghcb_exit;
pub mod guest_memory;
pub mod hardware;
pub mod injection;
pub mod inspection;
pub mod interrupt_filter;
pub mod launch;
pub mod launch_guest;
pub mod machine;
pub mod memory_plan;
pub mod msr_policy;
pub mod msr_protocol;
pub mod nested_fault;
pub mod nested_tables;
pub mod nmi;
pub mod page_attack;
pub mod page_conversion;
pub mod permission_maps;
pub mod port_access;
pub mod power;
pub mod psc_manner;
pub mod record;
pub mod recurrence;
pub mod residence;
pub mod served_features;
pub mod shared_view;
pub mod shared_watch;
pub mod surplus_launch;
pub mod svsm_calls;
pub mod switch_manner;
pub mod switches;
#[cfg(test)]
mod test_hardware;
#[cfg(test)]
mod tests;
pub mod translations;
pub mod trapped_instruction;
pub mod vcpu;
pub mod vcpu_creation;
pub mod vmcb;
pub mod vmpl_switch;
