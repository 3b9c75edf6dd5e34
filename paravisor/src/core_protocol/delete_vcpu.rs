// SPDX-License-Identifier: MIT OR Apache-2.0
//! DELETE_VCPU: undoes CREATE_VCPU.

use core::mem::offset_of;

use snp::address::{GuestPhysicalAddress, PageSize, Vmpl};
use snp::operands::{InstructionCode, RmpAdjustTarget, RmpPermissions};
use snp::svsm::{CallRegisters, ResultCode};
use snp::vmsa::{EFER_SVME, Vmsa};
use svsm_swiotlb::page_state::PageState;
use svsm_swiotlb::platform::{GuestMemory, PageInstructions};

use super::{CallResult, CoreProtocol, lost, require_page};

/// The vCPU is running.
const IN_USE: ResultCode = ResultCode::protocol_error(3);

impl<M: PageInstructions + GuestMemory> CoreProtocol<'_, M> {
    /// RCX: VMSA page of a vCPU that CREATE_VCPU made. The boot vCPU's is not the guest's.
    pub(super) fn delete_vcpu(&self, registers: &CallRegisters) -> CallResult {
        let vmsa = GuestPhysicalAddress::new(registers.rcx);
        require_page(vmsa)?;
        let page = self.hold(vmsa, &[PageState::Vmsa])?;
        let Some(vcpu) = self.vcpus.find(vmsa) else {
            page.keep();
            return Err(ResultCode::INVALID_REQUEST.into());
        };
        self.forbid_running(vmsa)?;
        let all = RmpPermissions::READ_WRITE_EXECUTE;
        let target = RmpAdjustTarget::grant(Vmpl::Vmpl2, all);
        match self
            .owner
            .machine()
            .rmpadjust(vmsa, PageSize::Size4K, target)
        {
            Ok(InstructionCode::SUCCESS) => {}
            Ok(InstructionCode::FAIL_INUSE) => {
                page.keep();
                return Err(IN_USE.into());
            }
            _ => return Err(lost()), // quarantines the page
        }
        if let Some(area) = self.vcpus.remove(vcpu)
            && let Ok(area) = self.states.hold(area, &[PageState::CallingArea])
        {
            area.change_to(PageState::Valid);
        }
        page.change_to(PageState::Valid);
        Ok(())
    }

    /// Clears EFER.SVME, without which the host cannot run the vCPU.
    fn forbid_running(&self, vmsa: GuestPhysicalAddress) -> CallResult {
        let efer = GuestPhysicalAddress::new(vmsa.bits() + offset_of!(Vmsa, efer) as u64);
        let mut bytes = [0; 8];
        self.owner
            .machine()
            .read(efer, &mut bytes)
            .map_err(|_| lost())?;
        let stopped = u64::from_le_bytes(bytes) & !EFER_SVME;
        self.owner
            .machine()
            .write(efer, &stopped.to_le_bytes())
            .map_err(|_| lost())
    }
}
