// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypervisor's logic on sparse memory, without a processor: each test sets up an exit in the
//! control block and looks at what becomes of the guest.

mod attacks;
mod bench;
mod doorbell_events;
mod faults;
mod firmware;
mod inspection;
mod instructions;
mod launching;
mod nmis;
mod page_states;
mod requests;
mod several_cpus;
mod surplus_launch;
mod vmpl_switches;
