// SPDX-License-Identifier: MIT OR Apache-2.0
//! PVALIDATE: validates and rescinds a list of pages.
//!
//! The list is fetched once and judged by that copy; only the cursor `next` is written back, and only
//! by a call that got to work. A call stops at the first entry that fails, or with INCOMPLETE when its
//! work units are spent.

use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize};
use snp::svsm::{CallRegisters, ListHeader, PvalidateListEntry, ResultCode, core_protocol as call};
use svsm_swiotlb::page_state::{HoldError, PageState};
use svsm_swiotlb::platform::{GuestMemory, PageInstructions};
use zerocopy::{FromZeros, IntoBytes};

use super::rescinded::Rescinded;
use super::{CallResult, CoreProtocol, Refusal, WORK_UNITS, lost, refusal};
use crate::page_owner::OwnError;
use crate::vcpu_table::VcpuIndex;

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
    /// The page it lies in, whose word is taken.
    page: GuestPhysicalAddress,
    header: ListHeader,
    entries: [u64; MAX_ENTRIES],
}

impl<'a, M: PageInstructions + GuestMemory> CoreProtocol<'a, M> {
    /// RCX: the list.
    pub(super) fn pvalidate(&self, vcpu: VcpuIndex, registers: &CallRegisters) -> CallResult {
        let list = GuestPhysicalAddress::new(registers.rcx);
        if !list.is_aligned(ALIGNMENT) {
            return Err(ResultCode::INVALID_PARAMETER.into());
        }
        // Not in the calling area of another vCPU: its word must be free when that vCPU calls.
        let own_area = self.vcpus.calling_area(vcpu) == Some(list.page_base());
        let allowed = match own_area {
            true => PageState::CallingArea,
            false => PageState::Valid,
        };
        let list_page = self.hold(list, &[allowed])?;
        let Ok(mut fetched) = self.fetch(list) else {
            return Err(lost()); // quarantines the page
        };
        if let Err(refusal) = self.check(list, &fetched) {
            list_page.keep();
            return Err(refusal);
        }
        let result = self.work(&mut fetched);
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
            page: list.page_base(),
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

    /// Goes through the entries from `next` on and moves it. One flush covers many rescinds.
    fn work(&self, list: &mut List) -> CallResult {
        let mut units = WORK_UNITS;
        let mut rescinded = Rescinded::new();
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
            if let Err(refusal) = self.entry(list.page, &entry, &mut rescinded) {
                result = Err(refusal);
                break;
            }
            list.header.next += 1;
        }
        rescinded.settle(self.owner.machine());
        result
    }

    /// One entry of a list in `list_page`; pages that it takes go into `rescinded`.
    fn entry(
        &self,
        list_page: GuestPhysicalAddress,
        entry: &PvalidateListEntry,
        rescinded: &mut Rescinded<'a>,
    ) -> CallResult {
        let page = entry.page();
        let size = entry.size().ok_or(ResultCode::INVALID_PARAMETER)?;
        if entry.reserved() != 0 || !page.is_aligned(size.bytes()) {
            return Err(ResultCode::INVALID_PARAMETER.into());
        }
        // The word is ours, so BUSY would be the answer for ever.
        if list_page.bits().wrapping_sub(page.bits()) < size.bytes() {
            return Err(ResultCode::INVALID_ADDRESS.into());
        }
        let machine = self.owner.machine();
        if entry.validate() {
            rescinded.settle(machine); // a list may rescind a page and validate it again
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
                rescinded.require_flush();
                self.owner.take(page, size)
            }
        };
        match done {
            Ok(()) if entry.validate() => held.change_to(to),
            Ok(()) => rescinded.add(held, machine),
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
        // Each word is read once; they were not all in the state to start from a moment ago.
        for number in 0..size.pages() {
            let address = GuestPhysicalAddress::new(page.bits() + number * PAGE_SIZE);
            match self.states.state(address) {
                Some(state @ (PageState::Valid | PageState::Invalid)) => {
                    all_wanted &= state == wanted;
                }
                Some(PageState::Busy) => return Err(ResultCode::BUSY.into()),
                _ => return Err(ResultCode::INVALID_ADDRESS.into()),
            }
        }
        match (all_wanted, entry.ignore_no_change(), size) {
            (true, true, _) => Ok(()),
            (true, false, _) => Err(NO_CHANGE.into()),
            // Another vCPU has just changed it back.
            (false, _, PageSize::Size4K) => Err(ResultCode::BUSY.into()),
            (false, _, PageSize::Size2M) => Err(SIZE_MISMATCH.into()),
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
