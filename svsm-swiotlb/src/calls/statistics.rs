// SPDX-License-Identifier: MIT OR Apache-2.0
//! STATISTICS.

use protocol::response::StatisticsWritten;
use snp::address::GuestPhysicalAddress;
use snp::svsm::ResultCode;
use zerocopy::IntoBytes;

use crate::Service;
use crate::platform::{GuestMemory, HostPages};

impl<P: HostPages + GuestMemory> Service<'_, P> {
    /// Writes the counters, or as much of them as the guest has room for.
    pub(crate) fn write_statistics(
        &self,
        buffer: GuestPhysicalAddress,
        room: u64,
        calling_area: Option<GuestPhysicalAddress>,
    ) -> Result<StatisticsWritten, ResultCode> {
        self.with_guest_page(buffer, calling_area, |page| {
            let statistics = self
                .counters
                .snapshot(self.session.epoch_number(), &self.pools);
            let bytes = statistics.as_bytes();
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            page.write(0, bytes.get(..room).unwrap_or_default())?;
            Ok(StatisticsWritten {
                bytes: u64::try_from(room).unwrap_or(0),
            })
        })
    }
}
