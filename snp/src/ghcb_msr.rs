// SPDX-License-Identifier: MIT OR Apache-2.0
//! The GHCB MSR protocol (GHCB specification, 2.3.1): requests and responses in one register.
//!
//! Bits 11:0 name the exchange. Every response comes from the host and is hostile: the parsers
//! check the code, the reserved bits and, where the protocol echoes something, the echo.

use bitfield_struct::bitfield;

use crate::address::{GuestPhysicalAddress, PAGE_SIZE, Vmpl};
use crate::psc::PscOperation;

const INFO_MASK: u64 = PAGE_SIZE - 1;
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

/// A request a guest writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SEV information.
    SevInfo,
    /// One register (0 EAX to 3 EDX) of a CPUID leaf; sub-leaves cannot be asked for.
    Cpuid {
        /// CPUID function.
        function: u32,
        /// Register, 0 to 3.
        register: u8,
    },
    /// Which GHCB address the host would like.
    PreferredGhcb,
    /// Register this page as the vCPU's GHCB.
    RegisterGhcb(GuestPhysicalAddress),
    /// Change one 4 KiB page; the operation is not checked here.
    PageStateChange {
        /// The page.
        page: GuestPhysicalAddress,
        /// [`PscOperation`] as a number.
        operation: u8,
    },
    /// Run another privilege level of this vCPU; the level is not checked here.
    RunVmpl(u8),
    /// Hypervisor features.
    Features,
    /// End the VM.
    Terminate {
        /// Who defined the reason, 0 to 15.
        reason_set: u8,
        /// The reason.
        reason: u8,
    },
}

impl Request {
    /// A page-state change with a known operation.
    pub const fn page_state_change(page: GuestPhysicalAddress, operation: PscOperation) -> Self {
        Self::PageStateChange {
            page,
            operation: operation as u8,
        }
    }

    /// A switch to a known privilege level.
    pub const fn run_vmpl(vmpl: Vmpl) -> Self {
        Self::RunVmpl(vmpl.number())
    }

    /// The value to write into the GHCB MSR.
    pub const fn encode(self) -> u64 {
        match self {
            Self::SevInfo => code::SEV_INFO_REQUEST,
            Self::Cpuid { function, register } => {
                ((function as u64) << 32) | (((register & 3) as u64) << 30) | code::CPUID_REQUEST
            }
            Self::PreferredGhcb => code::PREFERRED_GHCB_REQUEST,
            Self::RegisterGhcb(page) => (page.bits() & FRAME_MASK) | code::REGISTER_GHCB_REQUEST,
            Self::PageStateChange { page, operation } => {
                (((operation & 0xF) as u64) << 52)
                    | (page.bits() & FRAME_MASK)
                    | code::PAGE_STATE_REQUEST
            }
            Self::RunVmpl(vmpl) => ((vmpl as u64) << 32) | code::RUN_VMPL_REQUEST,
            Self::Features => code::FEATURES_REQUEST,
            Self::Terminate { reason_set, reason } => {
                ((reason as u64) << 16)
                    | (((reason_set & 0xF) as u64) << 12)
                    | code::TERMINATE_REQUEST
            }
        }
    }

    /// What a host reads; `None` for a GHCB address, a response or an unknown code.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "fields are cut out by masks"
    )]
    pub const fn decode(value: u64) -> Option<Self> {
        let page = GuestPhysicalAddress::new(value & FRAME_MASK);
        Some(match value & INFO_MASK {
            code::SEV_INFO_REQUEST => Self::SevInfo,
            code::CPUID_REQUEST => Self::Cpuid {
                function: (value >> 32) as u32,
                register: ((value >> 30) & 3) as u8,
            },
            code::PREFERRED_GHCB_REQUEST => Self::PreferredGhcb,
            code::REGISTER_GHCB_REQUEST => Self::RegisterGhcb(page),
            code::PAGE_STATE_REQUEST => Self::PageStateChange {
                page,
                operation: ((value >> 52) & 0xF) as u8,
            },
            code::RUN_VMPL_REQUEST => Self::RunVmpl((value >> 32) as u8),
            code::FEATURES_REQUEST => Self::Features,
            code::TERMINATE_REQUEST => Self::Terminate {
                reason_set: ((value >> 12) & 0xF) as u8,
                reason: (value >> 16) as u8,
            },
            _ => return None,
        })
    }
}

/// Why a response of the host is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrProtocolError {
    /// The code in bits 11:0 is not the response to the request.
    UnexpectedResponse(u64),
    /// The host reports this error.
    Refused(u32),
    /// What should have been echoed differs.
    WrongEcho(u64),
}

/// The host's answer to [`Request::SevInfo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SevInfo {
    /// Highest GHCB protocol version.
    pub max_version: u16,
    /// Lowest GHCB protocol version.
    pub min_version: u16,
    /// The C-bit's position; to be compared with the CPUID page, never to be used.
    pub c_bit: u8,
}

impl SevInfo {
    /// The response the host writes.
    pub const fn encode(self) -> u64 {
        ((self.max_version as u64) << 48)
            | ((self.min_version as u64) << 32)
            | ((self.c_bit as u64) << 24)
            | code::SEV_INFO_RESPONSE
    }
}

const fn expect_code(response: u64, code: u64) -> Result<(), MsrProtocolError> {
    if response & INFO_MASK == code {
        Ok(())
    } else {
        Err(MsrProtocolError::UnexpectedResponse(response))
    }
}

/// An error word in bits 63:32 with zeros in 31:12.
const fn parse_error_word(response: u64, code: u64) -> Result<(), MsrProtocolError> {
    if let Err(error) = expect_code(response, code) {
        return Err(error);
    }
    if (response >> 32) != 0 {
        return Err(MsrProtocolError::Refused((response >> 32) as u32));
    }
    if response != code {
        return Err(MsrProtocolError::UnexpectedResponse(response));
    }
    Ok(())
}

/// Parses the answer to [`Request::SevInfo`].
///
/// # Errors
/// [`MsrProtocolError::UnexpectedResponse`] for another code.
#[expect(
    clippy::cast_possible_truncation,
    reason = "fields are cut out by shifts"
)]
pub const fn parse_sev_info(response: u64) -> Result<SevInfo, MsrProtocolError> {
    match expect_code(response, code::SEV_INFO_RESPONSE) {
        Ok(()) => Ok(SevInfo {
            max_version: (response >> 48) as u16,
            min_version: (response >> 32) as u16,
            c_bit: (response >> 24) as u8,
        }),
        Err(error) => Err(error),
    }
}

/// Parses the answer to [`Request::Cpuid`] for `register`.
///
/// # Errors
/// Another code, or another register than the one asked for.
pub const fn parse_cpuid(response: u64, register: u8) -> Result<u32, MsrProtocolError> {
    if let Err(error) = expect_code(response, code::CPUID_RESPONSE) {
        return Err(error);
    }
    if (response >> 30) & 3 != register as u64 & 3 {
        return Err(MsrProtocolError::WrongEcho(response));
    }
    Ok((response >> 32) as u32)
}

/// Parses the answer to [`Request::RegisterGhcb`].
///
/// # Errors
/// Another code, or another page than the one registered.
pub const fn parse_register_ghcb(
    response: u64,
    page: GuestPhysicalAddress,
) -> Result<(), MsrProtocolError> {
    if let Err(error) = expect_code(response, code::REGISTER_GHCB_RESPONSE) {
        return Err(error);
    }
    if response & !INFO_MASK != page.bits() {
        return Err(MsrProtocolError::WrongEcho(response));
    }
    Ok(())
}

/// Parses the answer to [`Request::PageStateChange`].
///
/// # Errors
/// Another code, set reserved bits, or the host's error word.
pub const fn parse_page_state_change(response: u64) -> Result<(), MsrProtocolError> {
    parse_error_word(response, code::PAGE_STATE_RESPONSE)
}

/// Parses the answer to [`Request::RunVmpl`].
///
/// # Errors
/// Another code, set reserved bits, or the host's error word.
pub const fn parse_run_vmpl(response: u64) -> Result<(), MsrProtocolError> {
    parse_error_word(response, code::RUN_VMPL_RESPONSE)
}

/// Parses the answer to [`Request::Features`].
///
/// # Errors
/// [`MsrProtocolError::UnexpectedResponse`] for another code.
pub const fn parse_features(response: u64) -> Result<HypervisorFeatures, MsrProtocolError> {
    match expect_code(response, code::FEATURES_RESPONSE) {
        Ok(()) => Ok(HypervisorFeatures::from_bits(response >> 12)),
        Err(error) => Err(error),
    }
}

/// The host's side: responses as the register's next value.
pub mod response {
    use super::{FRAME_MASK, HypervisorFeatures, code};
    use crate::address::GuestPhysicalAddress;

    /// Answers a CPUID request.
    pub const fn cpuid(register: u8, value: u32) -> u64 {
        ((value as u64) << 32) | (((register & 3) as u64) << 30) | code::CPUID_RESPONSE
    }

    /// "No preference" for a GHCB address.
    pub const fn no_preferred_ghcb() -> u64 {
        !0xFFF | code::PREFERRED_GHCB_RESPONSE
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: GuestPhysicalAddress = GuestPhysicalAddress::new(0x12_3000);

    #[test]
    fn golden_requests() {
        assert_eq!(
            Request::page_state_change(PAGE, PscOperation::Shared).encode(),
            0x20_0000_0012_3014
        );
        assert_eq!(Request::run_vmpl(Vmpl::Vmpl2).encode(), 0x2_0000_0016);
        assert_eq!(
            Request::Terminate {
                reason_set: 1,
                reason: 7
            }
            .encode(),
            0x7_1100
        );
        assert_eq!(
            Request::Cpuid {
                function: 0x8000_001F,
                register: 1
            }
            .encode(),
            0x8000_001F_4000_0004
        );
    }

    #[test]
    fn requests_round_trip() {
        for request in [
            Request::SevInfo,
            Request::Cpuid {
                function: 7,
                register: 3,
            },
            Request::PreferredGhcb,
            Request::RegisterGhcb(PAGE),
            Request::PageStateChange {
                page: PAGE,
                operation: 1,
            },
            Request::RunVmpl(2),
            Request::Features,
            Request::Terminate {
                reason_set: 10,
                reason: 200,
            },
        ] {
            assert_eq!(Request::decode(request.encode()), Some(request));
        }
        assert_eq!(Request::decode(PAGE.bits()), None);
    }

    #[test]
    fn a_response_is_checked() {
        assert_eq!(parse_run_vmpl(response::run_vmpl(0)), Ok(()));
        assert_eq!(
            parse_run_vmpl(response::run_vmpl(2)),
            Err(MsrProtocolError::Refused(2))
        );
        assert_eq!(
            parse_run_vmpl(0x1017),
            Err(MsrProtocolError::UnexpectedResponse(0x1017))
        );
        assert_eq!(
            parse_run_vmpl(0x16),
            Err(MsrProtocolError::UnexpectedResponse(0x16))
        );
        assert_eq!(
            parse_register_ghcb(response::register_ghcb(PAGE), PAGE),
            Ok(())
        );
        let other = response::register_ghcb(GuestPhysicalAddress::new(0x1000));
        assert_eq!(
            parse_register_ghcb(other, PAGE),
            Err(MsrProtocolError::WrongEcho(other))
        );
        assert_eq!(parse_cpuid(response::cpuid(1, 51), 1), Ok(51));
        assert!(parse_cpuid(response::cpuid(1, 51), 2).is_err());
    }
}
