// SPDX-License-Identifier: MIT OR Apache-2.0
//! DELETE_VCPU, and what else makes a vCPU go.
//!
//! A vCPU may run at any moment, and nothing may be written to the VMSA of one that does: on hardware that is a nested
//! fault, again and again until it stops, which stalls the caller (APM volume 2, 15.36.10). So RMPADJUST alone decides: it
//! refuses while the vCPU runs, and otherwise leaves an ordinary page, which no host can run (APM volume 3).

use snp::address::{GuestPhysicalAddress, PageSize, Vmpl};
use snp::operands::{InstructionCode, RmpAdjustTarget, RmpPermissions};
use snp::svsm::{CallRegisters, ResultCode};
use svsm_swiotlb::page_state::{HeldPages, PageState};
use svsm_swiotlb::platform::{GuestMemory, PageInstructions};

use super::{CallResult, CoreProtocol, Refusal, lost, require_page};
use crate::vcpu_table::{Reservation, VcpuIndex};

/// The vCPU is running.
const IN_USE: ResultCode = ResultCode::protocol_error(3);

/// A vCPU that CREATE_VCPU made and that may go now: the words of its pages are taken.
#[derive(Debug)]
pub(super) struct Leaving<'a> {
    vcpu: VcpuIndex,
    vmsa: GuestPhysicalAddress,
    page: HeldPages<'a>,
    area_address: GuestPhysicalAddress,
    /// None when the page was lost, and with it quarantined.
    area: Option<HeldPages<'a>>,
}

impl<'a> Leaving<'a> {
    /// Gives the words back; the vCPU stays what it is.
    pub(super) fn keep(self) {
        self.page.keep();
        if let Some(area) = self.area {
            area.keep();
        }
    }

    /// Leaves its calling area behind if that is `area`: word and page are the new vCPU's.
    pub(super) fn leave_area(
        mut self,
        area: GuestPhysicalAddress,
    ) -> (Self, Option<HeldPages<'a>>) {
        let kept = (self.area_address == area).then(|| self.area.take());
        (self, kept.flatten())
    }
}

impl<M: PageInstructions + GuestMemory> CoreProtocol<'_, M> {
    /// RCX: VMSA page of a vCPU that CREATE_VCPU made. The boot vCPU's is not the guest's, and a vCPU
    /// cannot delete itself: the answer needs its VMSA. One that runs on another processor is IN_USE,
    /// one whose call is being served there BUSY.
    pub(super) fn delete_vcpu(&self, caller: VcpuIndex, registers: &CallRegisters) -> CallResult {
        let vmsa = GuestPhysicalAddress::new(registers.rcx);
        require_page(vmsa)?;
        // First: the caller's word is taken for as long as its call is served.
        if self.vcpus.find(vmsa) == Some(caller) {
            return Err(ResultCode::INVALID_REQUEST.into());
        }
        match self.take_vcpu(vmsa) {
            Ok(leaving) => self.retire(leaving).map(drop),
            // Replaced already, which whoever replaced it need not know.
            Err(Refusal::Code(ResultCode::INVALID_ADDRESS)) if self.vcpus.forget_replaced(vmsa) => {
                Ok(())
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Makes the pages of a vCPU the guest's again for the one that gets its place. The guest may still delete it, once.
    pub(super) fn replace(&self, leaving: Leaving<'_>) -> Result<Reservation<'_>, Refusal> {
        let vmsa = leaving.vmsa;
        let place = self.retire(leaving)?;
        place.set_replaced(vmsa);
        Ok(place)
    }

    /// Takes both words of a vCPU first, so that nothing has changed when one of them is busy.
    pub(super) fn take_vcpu(&self, vmsa: GuestPhysicalAddress) -> Result<Leaving<'_>, Refusal> {
        let page = self.hold(vmsa, &[PageState::Vmsa])?;
        let found = self.vcpus.find(vmsa);
        let Some((vcpu, area_address)) =
            found.and_then(|vcpu| Some((vcpu, self.vcpus.calling_area(vcpu)?)))
        else {
            page.keep();
            return Err(ResultCode::INVALID_REQUEST.into());
        };
        let area = match self.hold(area_address, &[PageState::CallingArea]) {
            Ok(area) => Some(area),
            Err(Refusal::Code(ResultCode::BUSY)) => {
                page.keep();
                return Err(ResultCode::BUSY.into());
            }
            Err(_) => None,
        };
        Ok(Leaving {
            vcpu,
            vmsa,
            page,
            area_address,
            area,
        })
    }

    /// Makes the pages of a vCPU the guest's again; its processor's place is the caller's.
    fn retire(&self, leaving: Leaving<'_>) -> Result<Reservation<'_>, Refusal> {
        let all = RmpPermissions::READ_WRITE_EXECUTE;
        let target = RmpAdjustTarget::grant(Vmpl::Vmpl2, all);
        let adjusted = self
            .owner
            .machine()
            .rmpadjust(leaving.vmsa, PageSize::Size4K, target);
        match adjusted {
            Ok(InstructionCode::SUCCESS) => {}
            Ok(InstructionCode::FAIL_INUSE) => {
                leaving.keep();
                return Err(IN_USE.into());
            }
            // Perhaps still a VMSA, so it keeps its processor. Quarantines the page.
            _ => {
                if let Some(area) = leaving.area {
                    area.keep();
                }
                return Err(lost());
            }
        }
        let place = self.vcpus.vacate(leaving.vcpu, leaving.vmsa);
        leaving.page.change_to(PageState::Valid);
        if let Some(area) = leaving.area {
            area.change_to(PageState::Valid);
        }
        place.ok_or(ResultCode::INVALID_REQUEST.into())
    }

    /// An access to the VMSA of a vCPU, whose word is `page`, has faulted under the hands of the processor that runs it.
    /// The page is quarantined. Its calling area is the guest's again and its processor free only when RMPADJUST confirms that
    /// the page is no VMSA any more: a host that can forge the fault could else run two VMSAs on one processor.
    pub fn lose_vcpu(&self, vcpu: VcpuIndex, page: HeldPages<'_>) {
        let target = RmpAdjustTarget::revoke(Vmpl::Vmpl2);
        let machine = self.owner.machine();
        if let Some(vmsa) = self.vcpus.vmsa(vcpu)
            && let Some(area) = self.vcpus.calling_area(vcpu)
            && machine.rmpadjust(vmsa, PageSize::Size4K, target) == Ok(InstructionCode::SUCCESS)
            && let Some(place) = self.vcpus.vacate(vcpu, vmsa)
        {
            if let Ok(area) = self.hold(area, &[PageState::CallingArea]) {
                area.change_to(PageState::Valid);
            }
            drop(place);
        }
        drop(page);
    }
}
