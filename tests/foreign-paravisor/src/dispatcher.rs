// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which protocol a call belongs to.

use snp::svsm::{CallId, CallRegisters, ResultCode, core_protocol};
use svsm_swiotlb::platform::{GuestMemory, HostPages, PageInstructions};

use crate::calling_areas::Cpu;
use crate::core_protocol::{CoreProtocol, Refusal};
use crate::echo::{self, Echo};

// [dispatcher]
/// Three protocols: core, this paravisor's own, and the shared pool's.
#[derive(Debug)]
pub struct Dispatcher<'a, P> {
    /// The core protocol; it knows the service.
    pub core: CoreProtocol<'a, P>,
    /// Our own.
    pub echo: Echo,
}

/// What the run loop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Put these registers into the guest's VMSA and run it.
    Resume(CallRegisters),
    /// Run it as it is: it made no call that can be seen, so the host returned on its own account.
    RunOn,
    /// End the VM: a page was validated behind our back.
    End,
}

impl<P: PageInstructions + GuestMemory + HostPages> Dispatcher<'_, P> {
    /// One return from the guest on `cpu`. The guest's VMSA cannot be run by anybody meanwhile (EFER.SVME is clear in
    /// it), `call` was read from it, and no lock is held.
    pub fn returned(&self, cpu: Cpu, call: &CallRegisters) -> Next {
        let core = &self.core;
        let states = core.service.page_states();
        let (areas, launch) = (core.areas, core.launch_area);
        match areas.claim_launch_area(cpu, launch, call, states, core.platform)
            || areas.take_pending(cpu, states, core.platform)
        {
            true => self.call(cpu, call),
            false => Next::RunOn,
        }
    }

    /// A call that the guest does want.
    fn call(&self, cpu: Cpu, call: &CallRegisters) -> Next {
        let mut registers = *call;
        match CallId::from_rax(call.rax).protocol {
            core_protocol::NUMBER => {
                if self.core.call(cpu, &mut registers) == Err(Refusal::ValidatedTwice) {
                    return Next::End;
                }
            }
            echo::NUMBER => self.echo.call(&mut registers),
            number if number == self.core.service.protocol_number() => {
                registers = self.core.service.dispatch(call, self.core.areas.of(cpu));
                // After each call: CONVERT has found a page valid that by every account was not (P-5.9.11).
                if self.core.service.has_stopped() {
                    return Next::End;
                }
            }
            _ => registers = refused(call, ResultCode::UNSUPPORTED_PROTOCOL),
        }
        Next::Resume(registers)
    }
}
// [end]

fn refused(call: &CallRegisters, code: ResultCode) -> CallRegisters {
    CallRegisters {
        rax: code.to_rax(),
        ..*call
    }
}
