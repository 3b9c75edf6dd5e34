// SPDX-License-Identifier: MIT OR Apache-2.0
//! PVALIDATE: validates and rescinds a list of pages.
//!
//! The list is fetched once and judged by that copy; only the cursor `next` is written back. A call
//! stops at the first entry that fails, or with INCOMPLETE when its work units are spent.

use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize};
use snp::svsm::{CallRegisters, ListHeader, PvalidateListEntry, ResultCode, core_protocol as call};
use svsm_swiotlb::page_state::{HoldError, PageState};
use svsm_swiotlb::platform::{GuestMemory, PageInstructions};
use zerocopy::{FromZeros, IntoBytes};

use super::{CallResult, CoreProtocol, Refusal, WORK_UNITS, lost, refusal};
use crate::page_owner::OwnError;

/// Entries of a list that fills its page.
const MAX_ENTRIES: usize = 511;
/// Alignment of a list.
const ALIGNMENT: u64 = 8;
/// Offset of `next` in the header.
const NEXT_OFFSET: u64 = core::mem::offset_of!(ListHeader, next) as u64;
/// PVALIDATE answered with CF set, or would have.
const NO_CHANGE: ResultCode = ResultCode(call::ERROR_NO_CHANGE);
/// The pages of a large entry are not all in one state: the guest has to go through them one by one.
const SIZE_MISMATCH: ResultCode = ResultCode::protocol_error(6);

/// A list, fetched.
struct List {
    header: ListHeader,
    entries: [u64; MAX_ENTRIES],
}

impl<M: PageInstructions + GuestMemory> CoreProtocol<'_, M> {
    /// RCX: the list.
    pub(super) fn pvalidate(&self, registers: &CallRegisters) -> CallResult {
        let list = GuestPhysicalAddress::new(registers.rcx);
        if !list.is_aligned(ALIGNMENT) {
            return Err(ResultCode::INVALID_PARAMETER.into());
        }
        let list_page = self.hold(list, &[PageState::Valid, PageState::CallingArea])?;
        let Ok(mut fetched) = self.fetch(list) else {
            return Err(lost()); // quarantines the page
        };
        let result = self
            .check(list, &fetched)
            .and_then(|()| self.work(&mut fetched));
        let next = GuestPhysicalAddress::new(list.bits() + NEXT_OFFSET);
        let written = self
            .owner
            .machine()
            .write(next, fetched.header.next.as_bytes());
        if written.is_err() {
            return result.and(Err(lost()));
        }
        list_page.keep();
        result
    }

    /// Copies the list into our memory, each byte once.
    fn fetch(&self, list: GuestPhysicalAddress) -> Result<List, svsm_swiotlb::platform::Fault> {
        let mut fetched = List {
            header: ListHeader::new_zeroed(),
            entries: [0; MAX_ENTRIES],
        };
        self.owner
            .machine()
            .read(list, fetched.header.as_mut_bytes())?;
        let room = ListHeader::capacity(list, size_of::<u64>() as u64);
        let count = room.min(u64::from(fetched.header.entries));
        let first = GuestPhysicalAddress::new(list.bits() + size_of::<ListHeader>() as u64);
        let count = usize::try_from(count).unwrap_or(0);
        if let Some(entries) = fetched.entries.get_mut(..count)
            && !entries.is_empty()
        {
            self.owner.machine().read(first, entries.as_mut_bytes())?;
        }
        Ok(fetched)
    }

    /// Refuses a list that is longer than its page or finished, as an empty one is. The header's reserved word is
    /// not looked at: Linux leaves there whatever an earlier call put into its buffer.
    fn check(&self, list: GuestPhysicalAddress, fetched: &List) -> CallResult {
        let ListHeader { entries, next, .. } = fetched.header;
        let room = ListHeader::capacity(list, size_of::<u64>() as u64);
        if u64::from(entries) > room || next >= entries {
            return Err(ResultCode::INVALID_PARAMETER.into());
        }
        Ok(())
    }

    /// Goes through the entries from `next` on and moves it. One flush covers all rescinds.
    fn work(&self, list: &mut List) -> CallResult {
        let mut units = WORK_UNITS;
        let mut rescinded = false;
        let mut result = Ok(());
        while list.header.next < list.header.entries {
            let bits = list
                .entries
                .get(usize::from(list.header.next))
                .copied()
                .unwrap_or(0);
            let entry = PvalidateListEntry::from_bits(bits);
            match units.checked_sub(cost(&entry)) {
                Some(rest) => units = rest,
                None => {
                    result = Err(ResultCode::INCOMPLETE.into());
                    break;
                }
            }
            if let Err(refusal) = self.entry(&entry, &mut rescinded) {
                result = Err(refusal);
                break;
            }
            list.header.next += 1;
        }
        if rescinded {
            self.owner.machine().flush();
        }
        result
    }

    /// One entry; sets `rescinded` when it took a page or tried to.
    fn entry(&self, entry: &PvalidateListEntry, rescinded: &mut bool) -> CallResult {
        let page = entry.page();
        let size = entry.size().ok_or(ResultCode::INVALID_PARAMETER)?;
        if entry.reserved() != 0 || !page.is_aligned(size.bytes()) {
            return Err(ResultCode::INVALID_PARAMETER.into());
        }
        let (from, to) = match entry.validate() {
            true => (PageState::Invalid, PageState::Valid),
            false => (PageState::Valid, PageState::Invalid),
        };
        let held = match self.states.hold_run(page, size.bytes(), from) {
            Ok(held) => held,
            // Answered from the map: PVALIDATE(1) is never executed on a valid page (P1).
            Err(HoldError::WrongState(_)) => return self.no_change(entry, page, size, to),
            Err(error) => return Err(Refusal::Code(error.into())),
        };
        let done = match entry.validate() {
            true => self.owner.give(page, size),
            false => {
                *rescinded = true;
                self.owner.take(page, size)
            }
        };
        match done {
            Ok(()) => held.change_to(to),
            Err(error) => {
                // Otherwise the guard is dropped: a page whose state is unknown is quarantined (P3).
                if matches!(error, OwnError::Unchanged(_) | OwnError::Forbidden) {
                    held.keep();
                }
                return Err(refusal(error));
            }
        }
        Ok(())
    }

    /// An entry whose pages are not all in the state it starts from.
    fn no_change(
        &self,
        entry: &PvalidateListEntry,
        page: GuestPhysicalAddress,
        size: PageSize,
        wanted: PageState,
    ) -> CallResult {
        let mut all_wanted = true;
        for number in 0..size.pages() {
            let address = GuestPhysicalAddress::new(page.bits() + number * PAGE_SIZE);
            match self.states.state(address) {
                Some(PageState::Valid | PageState::Invalid) => {
                    all_wanted &= self.states.state(address) == Some(wanted);
                }
                Some(PageState::Busy) => return Err(ResultCode::BUSY.into()),
                _ => return Err(ResultCode::INVALID_ADDRESS.into()),
            }
        }
        match (all_wanted, entry.ignore_no_change()) {
            (true, true) => Ok(()),
            (true, false) => Err(NO_CHANGE.into()),
            (false, _) => Err(SIZE_MISMATCH.into()),
        }
    }
}

/// Work units of an entry: what is validated is also zeroed, page by page.
fn cost(entry: &PvalidateListEntry) -> u64 {
    match entry.size() {
        Some(size) if entry.validate() => size.pages(),
        _ => 1,
    }
}
