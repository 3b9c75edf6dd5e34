// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which protocol a call belongs to.

use snp::svsm::{CallId, CallRegisters, ResultCode, core_protocol};
use svsm_swiotlb::Service;
use svsm_swiotlb::platform::{GuestMemory, HostPages, PageInstructions};

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
