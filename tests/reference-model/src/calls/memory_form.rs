// SPDX-License-Identifier: MIT OR Apache-2.0
//! MEMORY_FORM (section 5.16).

use protocol::Refusal;
use snp::svsm::{CallRegisters, ResultCode};

use super::guest_page::read;
use crate::asked::{Asked, asked};
use crate::events::kind;
use crate::state::Model;
use crate::{Event, Violation};

/// Number of the call.
const NUMBER: u64 = 16;
/// Bytes of the block (clause P-5.16.1).
const BLOCK: u64 = 32;

impl Model {
    /// P-5.9.11: once stopped, no call is any.
    pub(crate) fn is_memory_form(&self, call: &CallRegisters) -> bool {
        call.rax == u64::from(self.protocol) << 32 | NUMBER && !self.stopped
    }

    /// P-5.16.3 and P-8.7.
    pub(crate) fn memory_form(
        &mut self,
        call: &CallRegisters,
        events: &mut &[Event],
    ) -> Result<CallRegisters, Violation> {
        self.counters.memory_form_calls += 1;
        let inside = |answer: CallRegisters| CallRegisters {
            rax: 0,
            r9: answer.rax,
            ..answer
        };
        match self.block(call, events)? {
            Ok(block) => {
                self.tried.answers.insert((NUMBER, 0));
                let answer = self.one(&block, kind::REFUSED_IN_A_BLOCK, events)?;
                Ok(inside(answer))
            }
            Err(refusal) => {
                self.counters.memory_form_refused += 1;
                let code = refusal.code;
                let answer = self.conclude(call, Err(refusal), kind::REFUSED);
                // P-5.16.6
                Ok(if code == ResultCode::BUSY {
                    inside(answer)
                } else {
                    answer
                })
            }
        }
    }

    fn block(
        &mut self,
        call: &CallRegisters,
        events: &mut &[Event],
    ) -> Result<Result<CallRegisters, Refusal>, Violation> {
        let block = match asked(call, self.protocol, self.features) {
            Ok(Asked::MemoryForm { block }) => block,
            Ok(other) => return Err(format!("P-4.1: {other:?} for a block")),
            Err(refusal) => return Ok(Err(refusal)),
        };
        // P-5.16.2, and P-7.5 for a page that was lost.
        if self.calling_area != Some(block - block % 4096) {
            return Ok(Err(ResultCode::INVALID_ADDRESS.into()));
        }
        if let Some(code) = self.no_structure(block) {
            return Ok(Err(code.into()));
        }
        let Some(bytes) = read(block, BLOCK, events)? else {
            self.lose_structure(block);
            return Ok(Err(ResultCode::INVALID_ADDRESS.into()));
        };
        let word = |index: usize| {
            let bytes = bytes.chunks_exact(8).nth(index);
            bytes
                .and_then(|bytes| bytes.try_into().ok())
                .map_or(0, u64::from_le_bytes)
        };
        let arguments = [word(1), word(2), word(3)];
        Ok(Ok(CallRegisters::new(word(0), arguments)))
    }
}
