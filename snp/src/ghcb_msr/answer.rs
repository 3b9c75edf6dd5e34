// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest makes of the host's answer to a request of the MSR protocol.

use super::{FRAME_MASK, HypervisorFeatures, INFO_MASK, code};
use crate::address::GuestPhysicalAddress;

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

/// The host's answer to [`super::Request::SevInfo`].
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

/// Parses the answer to [`super::Request::SevInfo`].
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

/// Parses the answer to [`super::Request::Cpuid`] for `register`.
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

/// Parses the answer to [`super::Request::PreferredGhcb`]; `None` is no preference.
///
/// # Errors
/// Another code, or an address beyond 52 bits.
pub const fn parse_preferred_ghcb(
    response: u64,
) -> Result<Option<GuestPhysicalAddress>, MsrProtocolError> {
    if let Err(error) = expect_code(response, code::PREFERRED_GHCB_RESPONSE) {
        return Err(error);
    }
    match response & !INFO_MASK {
        frame if frame == !INFO_MASK => Ok(None),
        frame if frame & !FRAME_MASK == 0 => Ok(Some(GuestPhysicalAddress::new(frame))),
        _ => Err(MsrProtocolError::UnexpectedResponse(response)),
    }
}

/// Parses the answer to [`super::Request::RegisterGhcb`].
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

/// Parses the answer to [`super::Request::PageStateChange`].
///
/// # Errors
/// Another code, set reserved bits, or the host's error word.
pub const fn parse_page_state_change(response: u64) -> Result<(), MsrProtocolError> {
    parse_error_word(response, code::PAGE_STATE_RESPONSE)
}

/// Parses the answer to [`super::Request::RunVmpl`].
///
/// # Errors
/// Another code, set reserved bits, or the host's error word.
pub const fn parse_run_vmpl(response: u64) -> Result<(), MsrProtocolError> {
    parse_error_word(response, code::RUN_VMPL_RESPONSE)
}

/// Parses the answer to [`super::Request::Features`].
///
/// # Errors
/// [`MsrProtocolError::UnexpectedResponse`] for another code.
pub const fn parse_features(response: u64) -> Result<HypervisorFeatures, MsrProtocolError> {
    match expect_code(response, code::FEATURES_RESPONSE) {
        Ok(()) => Ok(HypervisorFeatures::from_bits(response >> 12)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::response;
    use super::*;

    const PAGE: GuestPhysicalAddress = GuestPhysicalAddress::new(0x12_3000);

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

    #[test]
    fn golden_information() {
        let info = SevInfo {
            max_version: 2,
            min_version: 1,
            c_bit: 51,
        };
        assert_eq!(info.encode(), 0x0002_0001_3300_0001);
        assert_eq!(parse_sev_info(info.encode()), Ok(info));
        assert!(parse_sev_info(0x0002_0001_3300_0002).is_err());
        let features = HypervisorFeatures::new()
            .with_snp(true)
            .with_multi_vmpl(true);
        assert_eq!(response::features(features), 0x2_1081);
        assert_eq!(parse_features(0x2_1081), Ok(features));
        assert!(parse_features(0x2_1080).is_err());
    }

    #[test]
    fn a_page_state_answer_carries_an_error_word() {
        assert_eq!(
            parse_page_state_change(response::page_state_change(0)),
            Ok(())
        );
        assert_eq!(
            parse_page_state_change(0x8000_0000_0000_0015),
            Err(MsrProtocolError::Refused(0x8000_0000))
        );
        assert!(parse_page_state_change(response::run_vmpl(0)).is_err());
    }

    #[test]
    fn a_preference_is_an_address_or_none() {
        assert_eq!(
            parse_preferred_ghcb(response::no_preferred_ghcb()),
            Ok(None)
        );
        assert_eq!(parse_preferred_ghcb(PAGE.bits() | 0x011), Ok(Some(PAGE)));
        assert!(parse_preferred_ghcb(1 << 52 | 0x011).is_err());
        assert!(parse_preferred_ghcb(PAGE.bits() | 0x013).is_err());
    }
}
