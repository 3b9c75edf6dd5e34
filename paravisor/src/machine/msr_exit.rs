// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exits by the GHCB MSR protocol: what works without a GHCB.

use paravisor::termination::{REASON_SET, Reason};
use snp::address::GuestPhysicalAddress;
use snp::ghcb_msr::{
    HypervisorFeatures, Request, SevInfo, parse_features, parse_page_state_change,
    parse_register_ghcb, parse_sev_info,
};
use snp::instructions::{read_ghcb_msr, read_sev_status, vmgexit, write_ghcb_msr};
use snp::psc::PscOperation;

/// One request and its raw answer.
fn exchange(request: Request) -> u64 {
    // SAFETY: We run at CPL 0 with interrupts off; the value is a request of the protocol, and the
    // #HV handler does not touch the MSR.
    unsafe {
        write_ghcb_msr(request.encode());
        vmgexit();
        read_ghcb_msr()
    }
}

/// SEV_STATUS.
pub fn sev_status() -> u64 {
    // SAFETY: CPL 0; the boot VMSA made us an SNP guest, whose processor has the register.
    unsafe { read_sev_status() }
}

/// SEV_FEATURES of our VMSA, which SEV_STATUS shows above its two lowest bits.
pub fn sev_features() -> u64 {
    sev_status() >> 2
}

/// Protocol versions and C-bit position by the host's word.
pub fn sev_info() -> Result<SevInfo, Reason> {
    parse_sev_info(exchange(Request::SevInfo)).map_err(|_| Reason::GhcbProtocol)
}

/// Features of the host.
pub fn features() -> Result<HypervisorFeatures, Reason> {
    parse_features(exchange(Request::Features)).map_err(|_| Reason::HypervisorFeatures)
}

/// Asks the host to make one page shared.
pub fn share(page: GuestPhysicalAddress) -> Result<(), Reason> {
    let request = Request::page_state_change(page, PscOperation::Shared);
    parse_page_state_change(exchange(request)).map_err(|_| Reason::GhcbShare)
}

/// Registers `page` as this vCPU's GHCB; the host has to echo it.
pub fn register_ghcb(page: GuestPhysicalAddress) -> Result<(), Reason> {
    parse_register_ghcb(exchange(Request::RegisterGhcb(page)), page)
        .map_err(|_| Reason::GhcbRegister)
}

/// Ends the VM with a reason code of our set.
pub fn terminate(reason: u8) -> ! {
    loop {
        exchange(Request::Terminate {
            reason_set: REASON_SET,
            reason,
        });
        // A host that goes on all the same gets the same answer for ever.
        x86_64::instructions::hlt();
    }
}
