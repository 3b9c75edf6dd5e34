// SPDX-License-Identifier: MIT OR Apache-2.0
//! GROW: reserve a run, ask the host to share it, grant what it shared.

use protocol::response::Granted;
use protocol::trace::TraceKind;
use protocol::{CHUNK_BYTES, Epoch, Holder, Refusal, result};
use snp::psc::PscOperation;
use snp::svsm::ResultCode;

use crate::Service;
use crate::host_reply::{BatchEnd, change_batch};
use crate::platform::{GuestMemory, HostPages};
use crate::pool::{GrowWish, InTransit, Pool, ReserveRefusal, TransitRun, chunk_bytes};
use crate::trace::Event;

impl<P: HostPages + GuestMemory> Service<'_, P> {
    /// Grants one run of this pool, of at most what one call moves. The page-state change is always issued, whatever the service believes the
    /// host's view to be: any VMPL with a GHCB could have changed it.
    pub(crate) fn grow(
        &self,
        pool: &Pool<'_>,
        epoch: Epoch,
        contiguous: bool,
        least: u64,
        most: u64,
    ) -> Result<Granted, Refusal> {
        let limit = chunk_bytes(pool.call_chunks());
        if contiguous && least > limit {
            return Err(Refusal::too_large(limit));
        }
        let wish = GrowWish {
            least: chunks(least),
            most: chunks(most),
            contiguous,
        };
        let run = pool.reserve(wish).map_err(refusal_of)?;
        // Only now is it certain that an ATTACH beside this call counts the run, if it is granted.
        if let Err(code) = self.session.confirm(epoch) {
            run.free();
            return Err(code.into());
        }
        let end = change_batch(self.platform, &self.counters, &run, PscOperation::Shared);
        let done = match end {
            BatchEnd::Complete => run.chunks(),
            BatchEnd::Refused { done } => done,
            BatchEnd::Misbehaved => {
                self.quarantine(run);
                return Err(result::HOST_MISBEHAVED.into());
            }
        };
        if done < wish.needed() {
            return Err(self.undo(run, done));
        }
        let base = run.base();
        let generation = self.session.next_generation();
        let bytes = run.grant(Holder { epoch, generation }, done);
        let event = Event::at(TraceKind::Grown, generation.number(), base, bytes);
        self.counters.trace().note(&event);
        Ok(Granted {
            base,
            bytes,
            generation,
        })
    }

    /// The state of the run is unknown.
    pub(super) fn quarantine(&self, run: TransitRun<'_>) {
        let event = Event::at(TraceKind::Quarantined, 0, run.base(), run.bytes());
        run.quarantine();
        self.counters.trace().note(&event);
    }

    /// The host shared too little to be of use. The little goes back, so that the refusal leaves nothing behind that
    /// nobody holds.
    fn undo(&self, run: TransitRun<'_>, done: usize) -> Refusal {
        let misbehaved = done > 0
            && change_batch(self.platform, &self.counters, &run, PscOperation::Private)
                == BatchEnd::Misbehaved;
        if misbehaved {
            self.quarantine(run);
            return result::HOST_MISBEHAVED.into();
        }
        run.free();
        result::HOST_REFUSED.into()
    }
}

/// Chunks in a multiple of the chunk size; a batch bounds them later.
fn chunks(bytes: u64) -> usize {
    usize::try_from(bytes / CHUNK_BYTES).unwrap_or(usize::MAX)
}

fn refusal_of(refusal: ReserveRefusal) -> Refusal {
    match refusal {
        ReserveRefusal::CapReached => result::CAP_REACHED,
        ReserveRefusal::NoContiguousRun => result::NO_CONTIGUOUS_RUN,
        ReserveRefusal::Busy => ResultCode::BUSY,
    }
    .into()
}
