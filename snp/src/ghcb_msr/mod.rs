// SPDX-License-Identifier: MIT OR Apache-2.0
//! The GHCB MSR protocol (GHCB specification, 2.3.1): requests and responses in one register.
//!
//! Bits 11:0 name the exchange. Every response comes from the host and is hostile: the parsers
//! check the code, the reserved bits and, where the protocol echoes something, the echo.
//!
//! * [`Request`]: what a guest writes and a host decodes;
//! * [`answer`]: what a guest makes of the host's answer;
//! * [`response`]: how a host encodes one.

use bitfield_struct::bitfield;

use crate::address::PAGE_SIZE;

pub mod answer;
pub mod request;
pub mod response;

pub use answer::{
    MsrProtocolError, SevInfo, parse_cpuid, parse_features, parse_page_state_change,
    parse_preferred_ghcb, parse_register_ghcb, parse_run_vmpl, parse_sev_info,
};
pub use request::Request;

/// Bits 11:0: the code, or zero in the address of a GHCB.
const INFO_MASK: u64 = PAGE_SIZE - 1;
/// Bits 51:12: a guest frame number where an exchange carries one.
const FRAME_MASK: u64 = 0x000F_FFFF_FFFF_F000;

/// Codes in bits 11:0.
pub mod code {
    /// SEV information, response; also the register's value at reset.
    pub const SEV_INFO_RESPONSE: u64 = 0x001;
    /// SEV information, request.
    pub const SEV_INFO_REQUEST: u64 = 0x002;
    /// CPUID, request.
    pub const CPUID_REQUEST: u64 = 0x004;
    /// CPUID, response.
    pub const CPUID_RESPONSE: u64 = 0x005;
    /// Preferred GHCB address, request.
    pub const PREFERRED_GHCB_REQUEST: u64 = 0x010;
    /// Preferred GHCB address, response.
    pub const PREFERRED_GHCB_RESPONSE: u64 = 0x011;
    /// Register GHCB address, request.
    pub const REGISTER_GHCB_REQUEST: u64 = 0x012;
    /// Register GHCB address, response.
    pub const REGISTER_GHCB_RESPONSE: u64 = 0x013;
    /// Page-state change, request.
    pub const PAGE_STATE_REQUEST: u64 = 0x014;
    /// Page-state change, response.
    pub const PAGE_STATE_RESPONSE: u64 = 0x015;
    /// Run VMPL, request.
    pub const RUN_VMPL_REQUEST: u64 = 0x016;
    /// Run VMPL, response.
    pub const RUN_VMPL_RESPONSE: u64 = 0x017;
    /// Hypervisor features, request.
    pub const FEATURES_REQUEST: u64 = 0x080;
    /// Hypervisor features, response.
    pub const FEATURES_RESPONSE: u64 = 0x081;
    /// Terminate, request.
    pub const TERMINATE_REQUEST: u64 = 0x100;
}

/// Features a hypervisor reports (GHCB specification, 4.1.7).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct HypervisorFeatures {
    /// SEV-SNP guests.
    pub snp: bool,
    /// AP creation by VMSA.
    pub ap_creation: bool,
    /// Restricted injection and the #HV doorbell page.
    pub restricted_injection: bool,
    /// Timer under restricted injection.
    pub restricted_injection_timer: bool,
    /// APIC identifier list.
    pub apic_id_list: bool,
    /// Several VMPLs, RUN_VMPL among the requests.
    pub multi_vmpl: bool,
    /// Bits 6 and up.
    #[bits(58)]
    pub others: u64,
}
