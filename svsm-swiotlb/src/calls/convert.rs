// SPDX-License-Identifier: MIT OR Apache-2.0
//! CONVERT: pages of the guest's own, from private to shared and back.

use protocol::convert::{ConvertEntry, ENTRY_BYTES, HEADER_BYTES, Outcome};
use snp::address::GuestPhysicalAddress;
use snp::svsm::{ListHeader, ResultCode};
use zerocopy::IntoBytes;

use crate::Service;
use crate::conversion::{BATCH_ENTRIES, Batch, Conversion, End};
use crate::guest_page::GuestPage;
use crate::platform::{GuestMemory, HostPages, PageInstructions};

/// Offset of the cursor in the header.
const NEXT_OFFSET: u64 = core::mem::offset_of!(ListHeader, next) as u64;

impl<P: HostPages + GuestMemory + PageInstructions> Service<'_, P> {
    /// Converts one batch from the list's cursor on and moves it.
    ///
    /// # Errors
    /// INCOMPLETE when there is more; see [`End::code`]; and what is wrong with the list or its first entry, with which
    /// nothing has changed.
    pub(crate) fn convert(
        &self,
        list: GuestPhysicalAddress,
        epoch: u32,
        calling_area: Option<GuestPhysicalAddress>,
    ) -> Result<(), ResultCode> {
        self.session.check(epoch)?;
        self.with_guest_page(list, calling_area, |page| {
            // Header and entries are fetched once, and no more entries than a batch can hold. What the guest's other
            // processors write there from here on changes nothing.
            let header: ListHeader = page.read(0)?;
            let room = ListHeader::capacity(list, ENTRY_BYTES);
            let ListHeader { entries, next, .. } = header;
            if header.reserved != 0 || u64::from(entries) > room || next >= entries {
                return Err(ResultCode::INVALID_PARAMETER);
            }
            let first = HEADER_BYTES.saturating_add(ENTRY_BYTES.saturating_mul(next.into()));
            let count = usize::from(entries.saturating_sub(next)).min(BATCH_ENTRIES);
            let mut fetched = [ConvertEntry::new(); BATCH_ENTRIES];
            let fetched = fetched.get_mut(..count).unwrap_or_default();
            page.read_bytes(first, fetched.as_mut_bytes())?;

            let mut batch = Batch::new();
            let conversion = Conversion::new(self.platform, &self.pages, &self.counters);
            let end = conversion.run(list.page_base(), fetched, &mut batch)?;
            let next = u16::try_from(batch.len())
                .ok()
                .and_then(|done| next.checked_add(done))
                .unwrap_or(entries);
            let told = self
                .report(page, first, fetched, &batch)
                .and_then(|()| page.write(NEXT_OFFSET, &next));
            if end == End::Tampered {
                // Whatever became of the list: no answer may hide that the service has stopped.
                self.stop();
            } else {
                told?;
            }
            match end.code() {
                Some(code) => Err(code),
                None if next < entries => Err(ResultCode::INCOMPLETE),
                None => Ok(()),
            }
        })
    }

    /// Writes the entries that were not converted, with what became of them.
    fn report(
        &self,
        page: &GuestPage<'_, P>,
        mut offset: u64,
        entries: &[ConvertEntry],
        batch: &Batch<'_>,
    ) -> Result<(), ResultCode> {
        for (entry, outcome) in entries.iter().zip(batch.outcomes()) {
            if outcome != Outcome::Converted {
                page.write(offset, &entry.with_outcome(outcome))?;
            }
            offset = offset.saturating_add(ENTRY_BYTES);
        }
        Ok(())
    }
}
