// SPDX-License-Identifier: MIT OR Apache-2.0
//! The run loop of one vCPU: run the guest, serve its call, run it again (SVSM specification,
//! section 5).

#![forbid(unsafe_code)]

use paravisor::dispatcher::Dispatcher;
use paravisor::termination::Reason;
use paravisor::vcpu_table::VcpuIndex;
use snp::svsm::{CallRegisters, ResultCode};
use svsm_swiotlb::page_state::{HoldError, PageState};

use crate::machine::Machine;
use crate::machine::doorbell::Doorbell;
use crate::machine::guest_access::take_call_pending;
use crate::machine::run_vmpl::{Switch, run_guest};
use crate::machine::vmsa_page::VmsaPage;

/// One vCPU and what serves it.
#[derive(Debug)]
pub struct Server<'a> {
    /// The protocols.
    pub dispatcher: &'a Dispatcher<'a, Machine>,
    /// Events of the host.
    pub doorbell: Doorbell<'a>,
    /// The guest's registers.
    pub vmsa: VmsaPage,
    /// The vCPU.
    pub vcpu: VcpuIndex,
}

/// Whether the guest set CALL_PENDING.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    /// It did; the byte is clear again.
    Yes,
    /// It did not, or its calling area is gone.
    No,
    /// Another vCPU has the page: it named it in a call of its own. CALL_PENDING stays as it is.
    Unknown,
}

impl Server<'_> {
    /// Runs until the VM has to end, and says why.
    pub fn run(&self) -> Reason {
        loop {
            if let Err(reason) = self.turn() {
                return reason;
            }
        }
    }

    /// One entry into the guest and what it wants on return.
    fn turn(&self) -> Result<(), Reason> {
        self.doorbell.acknowledge()?;
        self.vmsa.allow_running();
        let switch = run_guest(&self.doorbell);
        // From here on the host cannot run the guest behind our back.
        self.vmsa.forbid_running();
        match switch {
            Switch::Returned => {}
            Switch::Cancelled => return Ok(()),
            Switch::Refused => return Err(Reason::RunVmpl),
        }
        // A return for another reason, or without a call, is the host's doing: ignored.
        if !self.vmsa.stopped_by_vmgexit() {
            return Ok(());
        }
        let call = self.vmsa.call();
        let answer = match self.take_pending() {
            Pending::Yes => self.dispatcher.call(self.vcpu, &call)?,
            Pending::No => return Ok(()),
            Pending::Unknown => CallRegisters {
                rax: ResultCode::BUSY.to_rax(),
                ..call
            },
        };
        self.vmsa.answer(&answer);
        Ok(())
    }

    /// Whether the guest wants a call. A calling area that is gone is the guest's loss: it cannot call
    /// any more, and finds its CALL_PENDING unconsumed.
    fn take_pending(&self) -> Pending {
        let core = &self.dispatcher.core;
        let Some(area) = core.vcpus.calling_area(self.vcpu) else {
            return Pending::No;
        };
        let page = match core.states.hold(area, &[PageState::CallingArea]) {
            Ok(page) => page,
            Err(HoldError::Busy) => return Pending::Unknown,
            Err(_) => return Pending::No,
        };
        match take_call_pending(area) {
            Ok(pending) => {
                page.keep();
                if pending { Pending::Yes } else { Pending::No }
            }
            Err(_) => {
                log::warn!("the calling area at {area} is gone");
                Pending::No // dropping the guard quarantines the page
            }
        }
    }
}
