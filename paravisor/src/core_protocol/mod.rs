// SPDX-License-Identifier: MIT OR Apache-2.0
//! The SVSM core protocol, version 1 (SVSM specification, section 6).
//!
//! Every call that names a page first takes that page's state word (invariant P5), so that two vCPUs
//! cannot change one page at a time; a taken word answers BUSY. Pages of the pool window and of the
//! paravisor have no word a guest could take: INVALID_ADDRESS.
//!
//! Calls run on several processors at once. What one of them takes is the state words of pages and the
//! vCPU table's slot of an APIC identifier; none of it is waited for, so both may be kept across the
//! VMGEXIT that starts a processor.
//!
//! DEPOSIT_MEM and WITHDRAW_MEM answer UNSUPPORTED_CALL: all memory of the paravisor is its own from
//! boot.

mod create_vcpu;
mod delete_vcpu;
mod pvalidate;
mod query_protocol;
mod remap_ca;
mod rescinded;
#[cfg(test)]
mod tests;

pub use query_protocol::VersionRange;

use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use snp::svsm::{CallId, CallRegisters, ListHeader, ResultCode, core_protocol as call};
use svsm_swiotlb::page_state::{HeldPages, PageState, PageStates};
use svsm_swiotlb::platform::{GuestMemory, PageInstructions};

use crate::apic_ids::ApicIds;
use crate::launch_area::LaunchArea;
use crate::page_owner::{OwnError, PageOwner};
use crate::termination::Reason;
use crate::vcpu_control::VcpuControl;
use crate::vcpu_table::{VcpuIndex, VcpuTable};

/// Work units of one call: one per 4 KiB page touched, one per 2 MiB page that is not touched.
pub const WORK_UNITS: u64 = 4096;

/// CREATE_VCPU: the host did not start the processor. Nothing changed; the guest may ask again.
pub const HOST_REFUSED: ResultCode = ResultCode(0x8000_1012);

/// How a call ended, other than well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The guest gets this code.
    Code(ResultCode),
    /// The VM has to end.
    Fatal(Reason),
}

impl From<ResultCode> for Refusal {
    fn from(code: ResultCode) -> Self {
        Self::Code(code)
    }
}

/// Result of a call's implementation.
type CallResult = Result<(), Refusal>;

/// The protocol with everything it works on.
#[derive(Debug)]
pub struct CoreProtocol<'a, M> {
    /// Owner of the instructions.
    pub owner: PageOwner<'a, M>,
    /// States of all guest RAM.
    pub states: &'a PageStates<'a>,
    /// The guest's vCPUs.
    pub vcpus: VcpuTable<'a>,
    /// SEV_FEATURES of the guest's VMSAs.
    pub guest_features: u64,
    /// The processors whose vCPUs the guest may use.
    pub processors: ApicIds<'a>,
    /// The calling area that the guest's secrets page names.
    pub launch_area: LaunchArea,
    /// The other protocols, for QUERY_PROTOCOL.
    pub protocols: &'a [VersionRange],
}

impl<M: PageInstructions + GuestMemory + VcpuControl> CoreProtocol<'_, M> {
    /// Handles a call of `vcpu`; `registers` become the answer.
    ///
    /// # Errors
    /// The reason with which the VM has to end.
    pub fn call(&self, vcpu: VcpuIndex, registers: &mut CallRegisters) -> Result<(), Reason> {
        let result = match CallId::from_rax(registers.rax).call {
            call::REMAP_CA => self.remap_ca(vcpu, registers),
            call::PVALIDATE => self.pvalidate(vcpu, registers),
            call::CREATE_VCPU => self.create_vcpu(vcpu, registers),
            call::DELETE_VCPU => self.delete_vcpu(vcpu, registers),
            call::QUERY_PROTOCOL => {
                self.query_protocol(registers);
                Ok(())
            }
            _ => Err(ResultCode::UNSUPPORTED_CALL.into()),
        };
        let code = match result {
            Ok(()) => ResultCode::SUCCESS,
            Err(Refusal::Code(code)) => code,
            Err(Refusal::Fatal(reason)) => return Err(reason),
        };
        registers.rax = code.to_rax();
        Ok(())
    }
}

impl<M: PageInstructions + GuestMemory> CoreProtocol<'_, M> {
    /// Takes a page of the guest that is in one of `allowed`.
    fn hold(
        &self,
        page: GuestPhysicalAddress,
        allowed: &[PageState],
    ) -> Result<HeldPages<'_>, Refusal> {
        self.states
            .hold(page, allowed)
            .map_err(|error| Refusal::Code(error.into()))
    }

    /// Clears CALL_PENDING and the other header bytes of a calling area that the caller holds.
    fn clear_calling_area(&self, page: GuestPhysicalAddress) -> CallResult {
        let header = [0; size_of::<ListHeader>()];
        self.owner
            .machine()
            .write(page, &header)
            .map_err(|_| lost())
    }
}

/// The answer when a page vanished or ended in an unknown state; the page itself is quarantined.
const fn lost() -> Refusal {
    Refusal::Code(ResultCode::INVALID_ADDRESS)
}

/// Refuses an address that is no page address.
fn require_page(address: GuestPhysicalAddress) -> CallResult {
    if address.is_aligned(PAGE_SIZE) {
        Ok(())
    } else {
        Err(ResultCode::INVALID_PARAMETER.into())
    }
}

/// The answer for a page that did not change hands.
fn refusal(error: OwnError) -> Refusal {
    /// EAX values that have a result code of their own.
    const KNOWN_CODES: u32 = 16;
    /// The answer for any other EAX.
    const UNKNOWN: ResultCode = ResultCode(0x8000_1011);
    Refusal::Code(match error {
        OwnError::Tampered => return Refusal::Fatal(Reason::ValidateTwice),
        OwnError::Forbidden | OwnError::Lost => ResultCode::INVALID_ADDRESS,
        OwnError::NotValid => ResultCode(call::ERROR_NO_CHANGE),
        OwnError::Unchanged(code) if code.0 < KNOWN_CODES => ResultCode::protocol_error(code.0),
        OwnError::Unchanged(_) => UNKNOWN,
    })
}
