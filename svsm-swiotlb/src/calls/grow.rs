// SPDX-License-Identifier: MIT OR Apache-2.0
//! GROW: reserve a run, ask the host to share it, grant what it shared.

use protocol::response::Granted;
use protocol::{CHUNK_BYTES, Epoch, Holder, Refusal, result};
use snp::psc::PscOperation;
use snp::svsm::ResultCode;

use super::discovery::BATCH_BYTES;
use crate::Service;
use crate::host_reply::{BatchEnd, change_batch};
use crate::platform::{GuestMemory, HostPages};
use crate::pool::{GrowWish, ReserveRefusal, TransitRun};

impl<P: HostPages + GuestMemory> Service<'_, P> {
    /// Grants one run of at most one batch. The page-state change is always issued, whatever the service believes the
    /// host's view to be: any VMPL with a GHCB could have changed it.
    pub(crate) fn grow(
        &self,
        epoch: Epoch,
        contiguous: bool,
        least: u64,
        most: u64,
    ) -> Result<Granted, Refusal> {
        if contiguous && least > BATCH_BYTES {
            return Err(Refusal::too_large(BATCH_BYTES));
        }
        let wish = GrowWish {
            least: chunks(least),
            most: chunks(most),
            contiguous,
        };
        let run = self.pool.reserve(wish).map_err(refusal_of)?;
        let end = change_batch(self.platform, &self.counters, &run, PscOperation::Shared);
        let done = match end {
            BatchEnd::Complete => run.chunks(),
            BatchEnd::Refused { done } => done,
            BatchEnd::Misbehaved => {
                run.quarantine();
                return Err(result::HOST_MISBEHAVED.into());
            }
        };
        if done < wish.needed() {
            return Err(self.undo(run, done));
        }
        let base = run.base();
        let generation = self.session.next_generation();
        let bytes = run.grant(Holder { epoch, generation }, done);
        Ok(Granted {
            base,
            bytes,
            generation,
        })
    }

    /// The host shared too little to be of use. The little goes back, so that the refusal leaves nothing behind that
    /// nobody holds.
    fn undo(&self, run: TransitRun<'_>, done: usize) -> Refusal {
        let misbehaved = done > 0
            && change_batch(self.platform, &self.counters, &run, PscOperation::Private)
                == BatchEnd::Misbehaved;
        if misbehaved {
            run.quarantine();
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
