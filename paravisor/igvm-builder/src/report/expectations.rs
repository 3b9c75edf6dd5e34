// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a verifier wants of a report.

use crate::guest_policy::GuestPolicy;
use crate::report::tcb::MinimumTcb;

/// What has to be there, or that nobody cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<T> {
    /// This.
    Value(T),
    /// Anything.
    Any,
}

/// Everything that a report is compared with, but for its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectations {
    /// The launch digest for the VM's number of vCPUs.
    pub measurement: [u8; 48],
    /// The policy, bit for bit.
    pub policy: GuestPolicy,
    /// VMPL of whoever asked for the report.
    pub vmpl: u32,
    /// Least TCB version, reported, committed, current and at the launch.
    pub minimum_tcb: Wanted<MinimumTcb>,
    /// Bits that both mitigation vectors need; 0 for none.
    pub mitigations: u64,
    /// The check for aliases of memory has to be complete.
    pub alias_check: bool,
    /// What the verifier gave the guest, so that the report is fresh and the guest's.
    pub report_data: Wanted<[u8; 64]>,
    /// What the host has to have passed.
    pub host_data: Wanted<[u8; 32]>,
    /// Digest of the key that has to have signed the ID block.
    pub id_key_digest: Wanted<[u8; 48]>,
}
