// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which protocol a call belongs to.

use snp::address::GuestPhysicalAddress;
use snp::svsm::{CallId, CallRegisters, ResultCode, core_protocol};
use svsm_swiotlb::Service;
use svsm_swiotlb::page_state::PageState;
use svsm_swiotlb::platform::{Fault, GuestMemory, HostPages, PageInstructions};

use crate::core_protocol::CoreProtocol;
use crate::termination::Reason;
use crate::vcpu_control::VcpuControl;
use crate::vcpu_table::VcpuIndex;

/// Both protocols.
#[derive(Debug)]
pub struct Dispatcher<'a, M> {
    /// The core protocol.
    pub core: CoreProtocol<'a, M>,
    /// The shared-pool service.
    pub service: &'a Service<'a, M>,
}

impl<M: PageInstructions + GuestMemory + HostPages + VcpuControl> Dispatcher<'_, M> {
    /// Serves what `vcpu` has stopped for, if that is a call: the registers it goes on with. `take` reads CALL_PENDING of a
    /// calling area and clears it; the launch area's comes first. `None` when it is clear, or when the area is gone or taken by
    /// another call: then the host perhaps returned on its own account, so the registers are left alone. A guest that did call
    /// finds the byte still set.
    ///
    /// # Errors
    /// The reason with which the VM has to end.
    // As with `LaunchArea::claim`.
    #[inline(always)]
    pub fn serve(
        &self,
        vcpu: VcpuIndex,
        registers: &CallRegisters,
        take: impl Fn(GuestPhysicalAddress) -> Result<bool, Fault>,
    ) -> Result<Option<CallRegisters>, Reason> {
        let CoreProtocol {
            launch_area,
            vcpus,
            states,
            ..
        } = &self.core;
        if launch_area.claim(vcpus, states, vcpu, registers, &take) || self.is_pending(vcpu, take) {
            self.call(vcpu, registers).map(Some)
        } else {
            Ok(None)
        }
    }

    fn is_pending(
        &self,
        vcpu: VcpuIndex,
        take: impl FnOnce(GuestPhysicalAddress) -> Result<bool, Fault>,
    ) -> bool {
        let Some(area) = self.core.vcpus.calling_area(vcpu) else {
            return false;
        };
        let Ok(page) = self.core.states.hold(area, &[PageState::CallingArea]) else {
            return false;
        };
        let Ok(pending) = take(area) else {
            log::warn!("the calling area at {area} is gone");
            return false; // dropping the guard quarantines the page
        };
        page.keep();
        pending
    }

    /// Handles a call of `vcpu`: the registers it made it with in, the registers it goes on with out.
    ///
    /// # Errors
    /// The reason with which the VM has to end.
    pub fn call(&self, vcpu: VcpuIndex, call: &CallRegisters) -> Result<CallRegisters, Reason> {
        let protocol = CallId::from_rax(call.rax).protocol;
        if protocol == core_protocol::NUMBER {
            let mut registers = *call;
            self.core.call(vcpu, &mut registers)?;
            return Ok(registers);
        }
        if protocol == self.service.protocol_number() {
            // The area that CALL_PENDING was found in: only the vCPU's own REMAP_CA moves it.
            let area = self.core.vcpus.calling_area(vcpu);
            let answer = self.service.dispatch(call, area);
            if self.service.has_stopped() {
                return Err(Reason::ValidateTwice);
            }
            return Ok(answer);
        }
        Ok(CallRegisters {
            rax: ResultCode::UNSUPPORTED_PROTOCOL.to_rax(),
            ..*call
        })
    }
}

#[cfg(test)]
mod tests;
