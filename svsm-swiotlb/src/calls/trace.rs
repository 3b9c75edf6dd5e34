// SPDX-License-Identifier: MIT OR Apache-2.0
//! TRACE.

use protocol::response::TraceWritten;
use protocol::trace::RECORD_BYTES;
use snp::address::GuestPhysicalAddress;
use snp::svsm::ResultCode;

use crate::Service;
use crate::platform::{GuestMemory, HostPages};

impl<P: HostPages + GuestMemory> Service<'_, P> {
    /// Writes the records from number `from` on, or from the oldest there is, as many as there is room for.
    pub(crate) fn write_trace(
        &self,
        buffer: GuestPhysicalAddress,
        room: u64,
        from: u64,
        calling_area: Option<GuestPhysicalAddress>,
    ) -> Result<TraceWritten, ResultCode> {
        self.with_guest_page(buffer, calling_area, |page| {
            let trace = self.counters.trace();
            // The end is fixed before the walk: events of other processors cannot prolong it.
            let (oldest, end) = (trace.oldest(), trace.next());
            let mut bytes = 0_u64;
            let mut next = from.max(oldest).min(end);
            while next < end && room.saturating_sub(bytes) >= RECORD_BYTES {
                if let Some(record) = trace.record(next) {
                    page.write(bytes, &record)?;
                    bytes = bytes.saturating_add(RECORD_BYTES);
                }
                next = next.saturating_add(1);
            }
            Ok(TraceWritten {
                bytes,
                next,
                oldest,
            })
        })
    }
}
