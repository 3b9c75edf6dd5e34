// SPDX-License-Identifier: MIT OR Apache-2.0
//! ATTACH.

use protocol::response::Attached;
use protocol::trace::TraceKind;
use protocol::{Epoch, PROTOCOL_VERSION, result};
use snp::svsm::ResultCode;

use crate::Service;
use crate::platform::{GuestMemory, HostPages};
use crate::trace::Event;

impl<P: HostPages + GuestMemory> Service<'_, P> {
    /// Begins a new epoch. Everything granted before is an orphan from now on: neither freed nor granted again, because
    /// a device that an earlier kernel set up may still write to it.
    pub(crate) fn attach(&self, version: u64) -> Result<Attached, ResultCode> {
        if version != u64::from(PROTOCOL_VERSION) {
            return Err(result::UNSUPPORTED_VERSION);
        }
        let epoch = self.session.begin().ok_or(ResultCode::INVALID_REQUEST)?;
        self.pools.begin_epoch(epoch);
        let orphaned_bytes = self.pools.granted_bytes();
        let event = Event::of(TraceKind::Attached, epoch.number(), orphaned_bytes);
        self.counters.trace().note(&event);
        Ok(Attached {
            epoch,
            fresh: epoch == Epoch::FIRST,
            orphaned_bytes,
        })
    }
}
