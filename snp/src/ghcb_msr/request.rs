// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests of the MSR protocol: the guest's side encodes, the host's side decodes.

use super::{FRAME_MASK, INFO_MASK, code};
use crate::address::{GuestPhysicalAddress, Vmpl};
use crate::psc::PscOperation;

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

    /// What a host reads; `None` for a GHCB address, a response, an unknown code or a set reserved
    /// bit.
    pub fn decode(value: u64) -> Option<Self> {
        Self::fields(value).filter(|request| request.encode() == value)
    }

    /// The fields of a request, reserved bits ignored.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "fields are cut out by masks"
    )]
    const fn fields(value: u64) -> Option<Self> {
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
    fn reserved_bits_make_no_request() {
        let run = Request::run_vmpl(Vmpl::Vmpl2).encode();
        let share = Request::page_state_change(PAGE, PscOperation::Shared).encode();
        for value in [
            run | 1 << 40,
            run | 1 << 12,
            share | 1 << 56,
            1 << 63 | 0x012,
            0x1080,
        ] {
            assert_eq!(Request::decode(value), None, "{value:#x}");
        }
    }
}
