// SPDX-License-Identifier: MIT OR Apache-2.0
//! MEMORY_FORM: the registers of a call lie in the caller's calling area.

use protocol::memory_form::{CallBlock, encode_answer};
use protocol::trace::TraceKind;
use protocol::{Call, Request};
use snp::address::GuestPhysicalAddress;
use snp::svsm::{CallId, CallRegisters, ResultCode};

use crate::Service;
use crate::platform::{GuestMemory, HostPages, PageInstructions};

impl<P: HostPages + GuestMemory + PageInstructions> Service<'_, P> {
    /// Whether these registers name a block. Not once the service has stopped: then no call is anything.
    pub(crate) fn is_memory_form(&self, call: &CallRegisters) -> bool {
        let ours = CallId {
            protocol: self.protocol_number(),
            call: Call::MemoryForm.number(),
        };
        CallId::from_rax(call.rax) == ours && !self.has_stopped()
    }

    /// Serves the call in the block as if its registers had been the caller's.
    ///
    /// The block's page is given back before that: the call may need it for a list of its own, and what other processors
    /// write there meanwhile changes nothing.
    pub(crate) fn memory_form(
        &self,
        call: &CallRegisters,
        calling_area: Option<GuestPhysicalAddress>,
    ) -> CallRegisters {
        self.counters.memory_form();
        match self.read_block(call, calling_area) {
            Ok(block) => {
                let inner =
                    self.serve(&block.registers(), calling_area, TraceKind::RefusedInMemory);
                encode_answer(&inner)
            }
            Err(code) => {
                self.counters.memory_form_refused();
                let refused = self.conclude(call, Err(code.into()), TraceKind::Refused);
                // A kernel repeats a call that is answered BUSY, interrupts off and without end, so that its own caller
                // cannot give up. BUSY is therefore told where the code of the call in the block would be.
                if code == ResultCode::BUSY {
                    encode_answer(&refused)
                } else {
                    refused
                }
            }
        }
    }

    /// Fetches the block, once.
    fn read_block(
        &self,
        call: &CallRegisters,
        calling_area: Option<GuestPhysicalAddress>,
    ) -> Result<CallBlock, ResultCode> {
        let Request::MemoryForm { block } = Request::decode(call)? else {
            return Err(ResultCode::UNSUPPORTED_CALL);
        };
        // Another page could be another processor's calling area, whose word has to be free when that processor calls.
        if calling_area != Some(block.page_base()) {
            return Err(ResultCode::INVALID_ADDRESS);
        }
        self.with_guest_page(block, calling_area, |page| page.read(0))
    }
}
