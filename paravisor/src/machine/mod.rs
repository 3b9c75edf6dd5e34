// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bare-metal half of the image: everything that needs `unsafe`.
//!
//! * `entry`, `exceptions`, `symbols`: how code gets to run at all
//! * `page_tables`, `tlb`: translations
//! * `msr_exit`, `host_page`, `ghcb`, `doorbell`, `console`: talking to the host
//! * `guest_access`: touching guest pages
//! * `vmsa_page`, `run_vmpl`: running the guest
//! * `processor`, `processor_start`: what belongs to one processor, and starting further ones
//! * `launched`: the pages that were there from the start, and the service's storage

pub mod coherency;
pub mod console;
pub mod doorbell;
mod entry;
pub mod exceptions;
pub mod ghcb;
pub mod guest_access;
pub mod host_page;
pub mod launched;
pub mod msr_exit;
pub mod page_tables;
pub mod processor;
mod processor_start;
pub mod run_vmpl;
mod symbols;
pub mod tlb;
pub mod vmsa_page;

/// The machine as the portable half sees it: implements the platform traits of the service.
#[derive(Debug)]
pub struct Machine;

/// The address of a page or field as a pointer: everything is mapped where it is.
#[expect(
    clippy::cast_possible_truncation,
    reason = "addresses have 64 bits on this target"
)]
const fn pointer<T>(gpa: u64) -> *mut T {
    core::ptr::with_exposed_provenance_mut(gpa as usize)
}
