// SPDX-License-Identifier: MIT OR Apache-2.0
//! DELETE_VCPU: undoes CREATE_VCPU.

use core::mem::offset_of;

use snp::address::{GuestPhysicalAddress, PageSize, Vmpl};
use snp::operands::{InstructionCode, RmpAdjustTarget, RmpPermissions};
use snp::svsm::{CallRegisters, ResultCode};
use snp::vmsa::{EFER_SVME, Vmsa};
use svsm_swiotlb::page_state::{HeldPages, PageState};
use svsm_swiotlb::platform::{Fault, GuestMemory, PageInstructions};

use super::{CallResult, CoreProtocol, Refusal, lost, require_page};
use crate::vcpu_table::VcpuIndex;

/// The vCPU is running.
const IN_USE: ResultCode = ResultCode::protocol_error(3);

impl<M: PageInstructions + GuestMemory> CoreProtocol<'_, M> {
    /// RCX: VMSA page of a vCPU that CREATE_VCPU made. The boot vCPU's is not the guest's, and a vCPU
    /// cannot delete itself: the answer needs its VMSA.
    pub(super) fn delete_vcpu(&self, caller: VcpuIndex, registers: &CallRegisters) -> CallResult {
        let vmsa = GuestPhysicalAddress::new(registers.rcx);
        require_page(vmsa)?;
        let page = self.hold(vmsa, &[PageState::Vmsa])?;
        let other = |vcpu: &VcpuIndex| *vcpu != caller;
        let Some((vcpu, area)) = self
            .vcpus
            .find(vmsa)
            .filter(other)
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
        if self.set_runnable(vmsa, false).is_err() {
            // The host took the page away, and with it the vCPU. Quarantines the page.
            self.vcpus.remove(vcpu);
            release(area_page, PageState::Valid);
            return Err(lost());
        }
        let all = RmpPermissions::READ_WRITE_EXECUTE;
        let target = RmpAdjustTarget::grant(Vmpl::Vmpl2, all);
        match self
            .owner
            .machine()
            .rmpadjust(vmsa, PageSize::Size4K, target)
        {
            Ok(InstructionCode::SUCCESS) => {
                self.vcpus.remove(vcpu);
                release(area_page, PageState::Valid);
                page.change_to(PageState::Valid);
                Ok(())
            }
            Ok(InstructionCode::FAIL_INUSE) => {
                release(area_page, PageState::CallingArea);
                self.set_runnable(vmsa, true).map_err(|_| lost())?;
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

    /// Sets or clears EFER.SVME, without which the host cannot run the vCPU. Only the byte with the bit
    /// is written.
    fn set_runnable(&self, vmsa: GuestPhysicalAddress, runnable: bool) -> Result<(), Fault> {
        const BYTE: u64 = EFER_SVME.trailing_zeros() as u64 / 8;
        const BIT: u8 = 1 << (EFER_SVME.trailing_zeros() % 8);
        let byte = offset_of!(Vmsa, efer) as u64 + BYTE;
        let byte = GuestPhysicalAddress::new(vmsa.bits() + byte);
        let mut value = [0];
        self.owner.machine().read(byte, &mut value)?;
        let [value] = value;
        let value = if runnable { value | BIT } else { value & !BIT };
        self.owner.machine().write(byte, &[value])
    }
}

/// Gives the word of a calling area back, if there still was one.
fn release(area: Option<HeldPages<'_>>, state: PageState) {
    if let Some(page) = area {
        page.change_to(state);
    }
}
