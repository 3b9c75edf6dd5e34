// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosts that answer the GHCB MSR protocol wrongly (GHCB specification, 2.3.1): row H of the catalogue of attacks.
//!
//! A reply is checked by its code, by what it has to echo, by bits that have to be 0 and by its error. Each falsehood breaks
//! one of these. Requests without an echo or an error have the nearest thing: another C-bit, an older protocol,
//! a feature too few, none at all.

use bitfield_struct::bitfield;
use snp::address::Vmpl;
use snp::ghcb_msr::{HypervisorFeatures, Request, SevInfo, response};

use crate::memory_plan::C_BIT;
use crate::msr_protocol::FEATURES;

/// `data` of a record that arms it.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct FalseReplyWord {
    /// [`Asked`].
    #[bits(4)]
    pub asked: u8,
    /// [`Falsehood`].
    #[bits(4)]
    pub falsehood: u8,
    #[bits(24)]
    __: u32,
}

/// What is answered wrongly, each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SEV information.
    SevInfo,
    /// Hypervisor features.
    Features,
    /// Page-state changes.
    PageState,
    /// Registering a GHCB.
    Register,
    /// VMPL 0's RUN_VMPL.
    RunVmpl,
    /// A lower VMPL's RUN_VMPL of VMPL 0: a call.
    Call,
}

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Falsehood {
    /// The code of another answer.
    Code,
    /// Another page, another C-bit, or bits that have to be 0.
    Echo,
    /// An error.
    Error,
    /// The request itself, as if nobody had answered.
    None,
}

/// The code of an answer.
const CODE: u64 = 0xFFF;
/// Code of the answer about the preferred GHCB, which nobody here asks for.
const OTHER_CODE: u64 = 0x011;
/// A bit that is 0 in answers that carry no page.
const RESERVED_BIT: u64 = 1 << 12;

/// A wrong answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FalseReply {
    asked: Asked,
    falsehood: Falsehood,
}

impl FalseReply {
    /// Reads a record; `None` when a code is unknown.
    #[must_use]
    pub fn decode(data: u32) -> Option<Self> {
        let word = FalseReplyWord::from_bits(data);
        let asked = match word.asked() {
            0 => Asked::SevInfo,
            1 => Asked::Features,
            2 => Asked::PageState,
            3 => Asked::Register,
            4 => Asked::RunVmpl,
            5 => Asked::Call,
            _ => return None,
        };
        let falsehood = match word.falsehood() {
            0 => Falsehood::Code,
            1 => Falsehood::Echo,
            2 => Falsehood::Error,
            3 => Falsehood::None,
            _ => return None,
        };
        Some(Self { asked, falsehood })
    }

    /// What this host answers to `request` of `vmpl` in place of `answer`; `None` when it is honest about that.
    #[must_use]
    pub fn instead(self, vmpl: Vmpl, request: u64, answer: u64) -> Option<u64> {
        let asked = match Request::decode(request)? {
            Request::SevInfo => Asked::SevInfo,
            Request::Features => Asked::Features,
            Request::PageStateChange { .. } => Asked::PageState,
            Request::RegisterGhcb(_) => Asked::Register,
            Request::RunVmpl(_) if vmpl == Vmpl::Vmpl0 => Asked::RunVmpl,
            Request::RunVmpl(0) => Asked::Call,
            _ => return None,
        };
        if asked != self.asked {
            return None;
        }
        Some(match (self.falsehood, asked) {
            (Falsehood::Code, _) => answer & !CODE | OTHER_CODE,
            (Falsehood::None, _) => request,
            (Falsehood::Echo, Asked::SevInfo) => sev_info(2, C_BIT.to_le_bytes()[0] - 1),
            (Falsehood::Error, Asked::SevInfo) => sev_info(1, C_BIT.to_le_bytes()[0]),
            (Falsehood::Echo, Asked::Features) => {
                response::features(FEATURES.with_restricted_injection(false))
            }
            (_, Asked::Features) => response::features(HypervisorFeatures::new()),
            (Falsehood::Echo, _) => answer ^ RESERVED_BIT,
            // All ones: no page.
            (Falsehood::Error, Asked::Register) => answer | !CODE,
            (Falsehood::Error, Asked::PageState) => response::page_state_change(1),
            (Falsehood::Error, _) => response::run_vmpl(1),
        })
    }
}

const fn sev_info(version: u16, c_bit: u8) -> u64 {
    let info = SevInfo {
        max_version: version,
        min_version: version,
        c_bit,
    };
    info.encode()
}

#[cfg(test)]
mod tests {
    use snp::address::GuestPhysicalAddress;
    use snp::ghcb_msr::{
        parse_features, parse_page_state_change, parse_register_ghcb, parse_run_vmpl,
        parse_sev_info,
    };
    use snp::psc::PscOperation;

    use super::*;

    const PAGE: GuestPhysicalAddress = GuestPhysicalAddress::new(0x5000);

    fn lie(asked: u8, falsehood: u8, vmpl: Vmpl, request: Request, answer: u64) -> Option<u64> {
        let word = FalseReplyWord::new()
            .with_asked(asked)
            .with_falsehood(falsehood);
        let reply = FalseReply::decode(word.into_bits()).unwrap();
        reply.instead(vmpl, request.encode(), answer)
    }

    /// None of them passes for what was asked.
    #[test]
    fn each_falsehood_can_be_told() {
        let zero = Vmpl::Vmpl0;
        for falsehood in 0..4 {
            let told = |asked, request, answer| lie(asked, falsehood, zero, request, answer);
            let info = told(0, Request::SevInfo, sev_info(2, 51)).unwrap();
            let believed = parse_sev_info(info)
                .is_ok_and(|info| (info.min_version, info.max_version, info.c_bit) == (2, 2, 51));
            assert!(!believed);
            let features = told(
                1,
                Request::Features,
                response::features(HypervisorFeatures::new()),
            );
            let lacking = parse_features(features.unwrap())
                .is_ok_and(|some| !(some.snp() && some.restricted_injection()));
            assert!(lacking || falsehood % 3 == 0);
            let psc = Request::page_state_change(PAGE, PscOperation::Shared);
            let answer = told(2, psc, response::page_state_change(0)).unwrap();
            assert!(parse_page_state_change(answer).is_err());
            let answer = told(
                3,
                Request::RegisterGhcb(PAGE),
                response::register_ghcb(PAGE),
            );
            assert!(parse_register_ghcb(answer.unwrap(), PAGE).is_err());
            let answer = told(4, Request::RunVmpl(2), response::run_vmpl(0)).unwrap();
            assert!(parse_run_vmpl(answer).is_err());
        }
    }

    #[test]
    fn only_what_was_chosen_is_false() {
        let answer = response::run_vmpl(0);
        let (zero, two) = (Vmpl::Vmpl0, Vmpl::Vmpl2);
        assert_eq!(lie(4, 0, zero, Request::SevInfo, 1), None);
        assert_eq!(lie(4, 0, two, Request::RunVmpl(0), answer), None);
        assert_eq!(lie(5, 0, zero, Request::RunVmpl(2), answer), None);
        assert!(lie(5, 0, two, Request::RunVmpl(0), answer).is_some());
        assert_eq!(FalseReply::decode(6), None);
        assert_eq!(FalseReply::decode(0x40), None);
    }
}
