// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's side: answers as the register's next value.

use super::{FRAME_MASK, HypervisorFeatures, INFO_MASK, code};
use crate::address::GuestPhysicalAddress;

/// Answers a CPUID request.
pub const fn cpuid(register: u8, value: u32) -> u64 {
    ((value as u64) << 32) | (((register & 3) as u64) << 30) | code::CPUID_RESPONSE
}

/// "No preference" for a GHCB address.
pub const fn no_preferred_ghcb() -> u64 {
    !INFO_MASK | code::PREFERRED_GHCB_RESPONSE
}

/// Accepts a GHCB address by echoing it.
pub const fn register_ghcb(page: GuestPhysicalAddress) -> u64 {
    (page.bits() & FRAME_MASK) | code::REGISTER_GHCB_RESPONSE
}

/// Answers a page-state change; 0 is success.
pub const fn page_state_change(error: u32) -> u64 {
    ((error as u64) << 32) | code::PAGE_STATE_RESPONSE
}

/// Answers a run-VMPL request; 0 is success.
pub const fn run_vmpl(error: u32) -> u64 {
    ((error as u64) << 32) | code::RUN_VMPL_RESPONSE
}

/// Reports features.
pub const fn features(features: HypervisorFeatures) -> u64 {
    (features.into_bits() << 12) | code::FEATURES_RESPONSE
}
