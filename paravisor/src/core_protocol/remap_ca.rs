// SPDX-License-Identifier: MIT OR Apache-2.0
//! REMAP_CA: the calling vCPU moves its calling area.

use snp::address::GuestPhysicalAddress;
use snp::svsm::{CallRegisters, ResultCode};
use svsm_swiotlb::page_state::PageState;
use svsm_swiotlb::platform::{GuestMemory, PageInstructions};

use super::{CallResult, CoreProtocol, require_page};
use crate::vcpu_table::VcpuIndex;

impl<M: PageInstructions + GuestMemory> CoreProtocol<'_, M> {
    /// RCX: the new calling area. Naming the current one changes nothing.
    pub(super) fn remap_ca(&self, vcpu: VcpuIndex, registers: &CallRegisters) -> CallResult {
        let new = GuestPhysicalAddress::new(registers.rcx);
        require_page(new)?;
        let old = self
            .vcpus
            .calling_area(vcpu)
            .ok_or(ResultCode::INVALID_REQUEST)?;
        if new == old {
            return Ok(());
        }
        let new_page = self.hold(new, &[PageState::Valid])?;
        let old_page = match self.hold(old, &[PageState::CallingArea]) {
            Ok(page) => page,
            Err(refusal) => {
                new_page.keep();
                return Err(refusal);
            }
        };
        // A fault drops the guard, which quarantines the new page; the old one stays in use.
        if let Err(refusal) = self.clear_calling_area(new) {
            old_page.keep();
            return Err(refusal);
        }
        self.vcpus.set_calling_area(vcpu, new);
        new_page.change_to(PageState::CallingArea);
        old_page.change_to(PageState::Valid);
        Ok(())
    }
}
