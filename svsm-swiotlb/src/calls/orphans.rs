// SPDX-License-Identifier: MIT OR Apache-2.0
//! ADOPT, RELEASE_ORPHANS and DETACH: what becomes of chunks whose kernel is gone.

use protocol::Epoch;
use protocol::response::{Adopted, Detached, OrphansReleased};
use protocol::trace::TraceKind;
use snp::psc::PscOperation;
use snp::svsm::ResultCode;

use crate::host_reply::{BatchEnd, change_batch};
use crate::platform::{GuestMemory, HostPages};
use crate::pool::{InTransit, chunk_bytes};
use crate::trace::Event;
use crate::{Service, WORK_UNITS};

impl<P: HostPages + GuestMemory> Service<'_, P> {
    /// Makes chunks of an older epoch the caller's. The host is asked for nothing: they are shared, and stay so.
    pub(crate) fn adopt(&self, epoch: u32, from: u32) -> Result<Adopted, ResultCode> {
        let epoch = self.session.check(epoch)?;
        let from = Epoch::new(from).ok_or(ResultCode::INVALID_PARAMETER)?;
        let tally = self.pools.adopt(from, epoch, WORK_UNITS);
        if tally.moved == 0 && tally.left > 0 {
            return Err(ResultCode::BUSY);
        }
        let bytes = chunk_bytes(tally.moved);
        if bytes > 0 {
            let event = Event::of(TraceKind::Adopted, from.number(), bytes);
            self.counters.trace().note(&event);
        }
        Ok(Adopted {
            bytes,
            left: chunk_bytes(tally.left),
        })
    }

    /// Gives back one batch of an older epoch's chunks of one window, wherever in it they lie; host and accounts as with RELEASE.
    pub(crate) fn release_orphans(
        &self,
        epoch: u32,
        from: u32,
    ) -> Result<OrphansReleased, ResultCode> {
        self.session.check(epoch)?;
        let from = Epoch::new(from).ok_or(ResultCode::INVALID_PARAMETER)?;
        let (batch, left) = self.pools.claim_orphans(from);
        if batch.is_empty() {
            let none = OrphansReleased {
                bytes: 0,
                acknowledged: 0,
                left: 0,
            };
            return if left == 0 {
                Ok(none)
            } else {
                Err(ResultCode::BUSY)
            };
        }

        let (first, bytes) = (batch.first_address(), chunk_bytes(batch.chunks()));
        let end = change_batch(self.platform, &self.counters, &batch, PscOperation::Private);
        let acknowledged = match end {
            BatchEnd::Complete => {
                batch.free();
                bytes
            }
            BatchEnd::Refused { done } => {
                batch.free();
                chunk_bytes(done)
            }
            BatchEnd::Misbehaved => {
                batch.quarantine();
                let event = Event::at(TraceKind::Quarantined, 0, first, bytes);
                self.counters.trace().note(&event);
                0
            }
        };
        self.counters.released(bytes, acknowledged);
        let event = Event::at(TraceKind::OrphansReleased, from.number(), first, bytes);
        self.counters.trace().note(&event);
        Ok(OrphansReleased {
            bytes,
            acknowledged,
            left: chunk_bytes(left),
        })
    }

    /// Ends the epoch. Nothing is freed: devices that the kernel set up may still write to its chunks.
    pub(crate) fn detach(&self, epoch: u32) -> Result<Detached, ResultCode> {
        let epoch = self.session.end(epoch)?;
        let orphaned_bytes = self.pools.granted_bytes();
        let event = Event::of(TraceKind::Detached, epoch.number(), orphaned_bytes);
        self.counters.trace().note(&event);
        Ok(Detached { orphaned_bytes })
    }
}
