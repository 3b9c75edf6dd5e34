// SPDX-License-Identifier: MIT OR Apache-2.0
//! LIST_GRANTED: what is granted, to whom, run by run.

use protocol::list::{ENTRY_BYTES, GrantedRun, HEADER_BYTES, ListHeader, list_bytes};
use snp::address::GuestPhysicalAddress;
use snp::svsm::ResultCode;

use crate::guest_page::GuestPage;
use crate::platform::{GuestMemory, HostPages};
use crate::pool::chunk_bytes;
use crate::{Service, WORK_UNITS};

impl<P: HostPages + GuestMemory> Service<'_, P> {
    /// Fills the list from its cursor on, which numbers the chunks of all windows.
    ///
    /// # Errors
    /// INCOMPLETE when the list is full or the work of one call is done; the header says where to go on.
    pub(crate) fn list_granted(
        &self,
        list: GuestPhysicalAddress,
        epoch: u32,
        calling_area: Option<GuestPhysicalAddress>,
    ) -> Result<(), ResultCode> {
        self.session.check(epoch)?;
        self.with_guest_page(list, calling_area, |page| {
            // Fetched once; what the guest's other processors do to the page from here on changes nothing.
            let header: ListHeader = page.read(0)?;
            let chunks = self.pools.chunks();
            let cursor = usize::try_from(header.cursor).unwrap_or(usize::MAX);
            let fits = header.capacity > 0 && list_bytes(header.capacity) <= page.room();
            if !fits || cursor > chunks {
                return Err(ResultCode::INVALID_PARAMETER);
            }

            let stop = chunks.min(cursor.saturating_add(WORK_UNITS));
            let (written, cursor) = self.write_runs(page, header.capacity, cursor, stop)?;
            let cursor_out = u32::try_from(cursor).unwrap_or(u32::MAX);
            page.write(
                0,
                &ListHeader {
                    written,
                    cursor: cursor_out,
                    ..header
                },
            )?;
            if cursor < chunks {
                Err(ResultCode::INCOMPLETE)
            } else {
                Ok(())
            }
        })
    }

    /// Writes the runs of chunks `cursor` to `stop`; how many were written, and where to go on.
    fn write_runs(
        &self,
        page: &GuestPage<'_, P>,
        capacity: u16,
        mut cursor: usize,
        stop: usize,
    ) -> Result<(u16, usize), ResultCode> {
        let mut written = 0_u16;
        while cursor < stop && written < capacity {
            let Some((base, holder, count)) = self.pools.run_at(cursor, stop) else {
                cursor = cursor.saturating_add(1);
                continue;
            };
            let run = GrantedRun {
                base: base.bits(),
                bytes: chunk_bytes(count),
                epoch: holder.epoch.number(),
                generation: holder.generation.number(),
            };
            let offset = ENTRY_BYTES
                .saturating_mul(written.into())
                .saturating_add(HEADER_BYTES);
            page.write(offset, &run)?;
            written = written.saturating_add(1);
            cursor = cursor.saturating_add(count);
        }
        Ok((written, cursor))
    }
}
