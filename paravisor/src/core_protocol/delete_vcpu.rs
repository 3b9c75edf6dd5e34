// SPDX-License-Identifier: MIT OR Apache-2.0
//! DELETE_VCPU: undoes CREATE_VCPU.

use snp::address::{GuestPhysicalAddress, PageSize, Vmpl};
use snp::operands::{InstructionCode, RmpAdjustTarget, RmpPermissions};
use snp::svsm::{CallRegisters, ResultCode};
use svsm_swiotlb::page_state::{HeldPages, PageState};
use svsm_swiotlb::platform::{GuestMemory, PageInstructions};

use super::{CallResult, CoreProtocol, Refusal, lost, require_page};
use crate::vcpu_control::VcpuControl;
use crate::vcpu_table::VcpuIndex;

/// The vCPU is running.
const IN_USE: ResultCode = ResultCode::protocol_error(3);

impl<M: PageInstructions + GuestMemory + VcpuControl> CoreProtocol<'_, M> {
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
        let page = self.hold(vmsa, &[PageState::Vmsa])?;
        let Some((vcpu, area)) = self
            .vcpus
            .find(vmsa)
            .and_then(|vcpu| Some((vcpu, self.vcpus.calling_area(vcpu)?)))
        else {
            page.keep();
            return Err(ResultCode::INVALID_REQUEST.into());
        };
        // Both words first, so that nothing has changed when one of them is busy.
        let area_page = match self.hold(area, &[PageState::CallingArea]) {
            Ok(page) => Some(page),
            Err(Refusal::Code(ResultCode::BUSY)) => {
                page.keep();
                return Err(ResultCode::BUSY.into());
            }
            Err(_) => None, // quarantined when it was lost
        };
        let machine = self.owner.machine();
        if machine.set_runnable(vmsa, false).is_err() {
            // The host took the page away, and with it the vCPU. Quarantines the page.
            self.vcpus.remove(vcpu);
            release(area_page, PageState::Valid);
            return Err(lost());
        }
        let all = RmpPermissions::READ_WRITE_EXECUTE;
        let target = RmpAdjustTarget::grant(Vmpl::Vmpl2, all);
        match machine.rmpadjust(vmsa, PageSize::Size4K, target) {
            Ok(InstructionCode::SUCCESS) => {
                self.vcpus.remove(vcpu);
                release(area_page, PageState::Valid);
                page.change_to(PageState::Valid);
                Ok(())
            }
            Ok(InstructionCode::FAIL_INUSE) => {
                release(area_page, PageState::CallingArea);
                machine.set_runnable(vmsa, true).map_err(|_| lost())?;
                page.keep();
                Err(IN_USE.into())
            }
            // Perhaps still a VMSA, so it keeps its APIC identifier. Quarantines the page.
            _ => {
                release(area_page, PageState::CallingArea);
                Err(lost())
            }
        }
    }

    /// The page of a vCPU, whose word is `page`, is gone under the hands of the processor that runs it:
    /// the vCPU is no more, its page quarantined, its calling area the guest's again.
    pub fn lose_vcpu(&self, vcpu: VcpuIndex, page: HeldPages<'_>) {
        let area = self.vcpus.remove(vcpu);
        let area = area.and_then(|area| self.hold(area, &[PageState::CallingArea]).ok());
        release(area, PageState::Valid);
        drop(page);
    }
}

/// Gives the word of a calling area back, if there still was one.
fn release(area: Option<HeldPages<'_>>, state: PageState) {
    if let Some(page) = area {
        page.change_to(state);
    }
}
