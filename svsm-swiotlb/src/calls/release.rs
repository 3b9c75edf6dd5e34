// SPDX-License-Identifier: MIT OR Apache-2.0
//! RELEASE: take a run from its holder, tell the host, free it.

use protocol::response::Released;
use protocol::trace::TraceKind;
use protocol::{Generation, Holder, result};
use snp::address::GuestPhysicalAddress;
use snp::psc::PscOperation;
use snp::svsm::ResultCode;

use crate::Service;
use crate::host_reply::{BatchEnd, change_batch};
use crate::platform::{GuestMemory, HostPages};
use crate::pool::{ReleaseRefusal, chunk_bytes};
use crate::trace::Event;

impl<P: HostPages + GuestMemory> Service<'_, P> {
    /// Gives back at most what one call moves from the start of the range.
    ///
    /// A host that refuses costs itself the memory and nobody else anything: no page of a window is validated, and a
    /// later GROW asks for the chunk again whatever the host did. So the chunk is free either way, and the guest is told
    /// how much the host acknowledged. Only a reply that breaks the rules quarantines.
    pub(crate) fn release(
        &self,
        base: GuestPhysicalAddress,
        bytes: u64,
        epoch: u32,
        generation: u32,
    ) -> Result<Released, ResultCode> {
        let epoch = self.session.check(epoch)?;
        let (pool, chunks) = (self.pools)
            .chunk_range(base, bytes)
            .ok_or(ResultCode::INVALID_ADDRESS)?;
        let generation = Generation::new(generation).ok_or(result::NOT_HELD)?;
        let run = pool
            .claim_held(chunks, Holder { epoch, generation })
            .map_err(code_of)?;

        let released = run.bytes();
        let acknowledged =
            match change_batch(self.platform, &self.counters, &run, PscOperation::Private) {
                BatchEnd::Complete => {
                    run.free();
                    released
                }
                BatchEnd::Refused { done } => {
                    run.free();
                    chunk_bytes(done)
                }
                BatchEnd::Misbehaved => {
                    self.quarantine(run);
                    0
                }
            };
        self.counters.released(released, acknowledged);
        let event = Event::at(TraceKind::Released, generation.number(), base, released);
        self.counters.trace().note(&event);
        Ok(Released {
            bytes: released,
            acknowledged,
        })
    }
}

fn code_of(refusal: ReleaseRefusal) -> ResultCode {
    match refusal {
        ReleaseRefusal::NotHeld => result::NOT_HELD,
        ReleaseRefusal::Busy => ResultCode::BUSY,
    }
}
