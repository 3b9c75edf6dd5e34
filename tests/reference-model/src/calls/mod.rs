// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls of chapter 5, after their arguments were found possible: window index, epoch, state (clause P-4.9).
//!
//! The outer result is the judgement of the platform calls, the inner one the answer.

mod change;
mod conversion;
mod convert;
mod guest_page;
mod instructions;
mod lifetime;
mod memory_form;

use protocol::{Refusal, ResultRegisters, result};
use snp::svsm::ResultCode;

use crate::asked::Asked;
use crate::state::{Model, bytes};
use crate::{Event, Violation};

/// The answer of a call that the platform calls allow.
type Answer = Result<Result<ResultRegisters, Refusal>, Violation>;

const fn results(rcx: u64, rdx: u64, r8: u64) -> ResultRegisters {
    ResultRegisters { rcx, rdx, r8 }
}

fn refused(code: ResultCode) -> Answer {
    Ok(Err(code.into()))
}

impl Model {
    pub(crate) fn perform(&mut self, asked: Asked, events: &mut &[Event]) -> Answer {
        if let Asked::Describe { window, .. }
        | Asked::Grow { window, .. }
        | Asked::SetLimits { window, .. } = asked
            && self.shape.numbers(window).is_none()
        {
            return refused(ResultCode::INVALID_PARAMETER); // P-3.2
        }
        if let Asked::ListGranted { epoch, .. }
        | Asked::Adopt { epoch, .. }
        | Asked::ReleaseOrphans { epoch, .. }
        | Asked::Detach { epoch }
        | Asked::Convert { epoch, .. }
        | Asked::Grow { epoch, .. }
        | Asked::Release { epoch, .. }
        | Asked::SetLimits { epoch, .. } = asked
            && let Some(code) = self.wrong_epoch(epoch)
        {
            return refused(code);
        }
        match asked {
            Asked::Identify => Ok(Ok(self.identity)),
            Asked::Describe { item: 0, window } => {
                let chunks = self.chunks_of_window(window).len();
                let first = self.shape.numbers(window).map_or(0, |all| all.start);
                Ok(Ok(results(
                    self.shape.chunk_address(first),
                    bytes(chunks),
                    21,
                )))
            }
            Asked::Describe { item: 1, window } => Ok(Ok(results(
                bytes(self.cap_of(window)),
                bytes(self.granted_of(window)),
                bytes(self.quarantined_of(window)),
            ))),
            Asked::Describe { .. } => Ok(Ok(results(4096, 253, bytes(253)))), // P-6.4
            Asked::Attach { version } => Ok(self.attach(version)),
            Asked::ListGranted { list, .. } => self.list_granted(list, events),
            Asked::Adopt { epoch, older } => Ok(Ok(self.adopt(epoch, older))),
            Asked::ReleaseOrphans { older, .. } => self.release_orphans(older, events),
            Asked::Convert { list, .. } => self.convert(list, events),
            Asked::Trace {
                buffer,
                bytes,
                from,
            } => self.write_trace(buffer, bytes, from, events),
            Asked::Detach { .. } => Ok(Ok(self.detach())),
            Asked::Grow {
                window,
                contiguous,
                least,
                most,
                ..
            } => self.grow(window, contiguous, least, most, events),
            Asked::Release {
                base,
                chunks,
                epoch,
                generation,
            } => self.release(base, chunks, epoch, generation, events),
            Asked::Statistics { buffer, bytes } => self.write_statistics(buffer, bytes, events),
            Asked::SetLimits { window, cap, .. } => Ok(self.set_limits(window, cap)),
            Asked::MemoryForm { .. } => refused(ResultCode::UNSUPPORTED_CALL), // P-5.16.5
        }
    }

    /// Clause P-3.5.
    fn wrong_epoch(&self, claimed: u32) -> Option<ResultCode> {
        if !self.attached {
            return Some(result::NOT_ATTACHED);
        }
        (claimed != self.epoch).then_some(result::STALE_EPOCH)
    }

    fn set_limits(&mut self, window: u64, cap: u64) -> Result<ResultRegisters, Refusal> {
        let cap = usize::try_from(cap).unwrap_or(usize::MAX);
        let index = usize::try_from(window).unwrap_or(usize::MAX);
        let hard_cap = self.shape.windows().nth(index).map(|one| one.hard_cap);
        if hard_cap.is_none_or(|hard_cap| cap > hard_cap) {
            return Err(ResultCode::INVALID_PARAMETER.into()); // P-5.12.1
        }
        let previous = std::mem::replace(&mut self.caps[index], cap);
        Ok(results(bytes(previous), 0, 0))
    }
}
