// SPDX-License-Identifier: MIT OR Apache-2.0
//! The SVSM core protocol (AMD 58019, section 6): PVALIDATE, REMAP_CA and QUERY_PROTOCOL.

use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize};
use snp::svsm::{
    CallId, CallRegisters, ListHeader, PvalidateListEntry, ResultCode, core_protocol as call,
};
use svsm_swiotlb::Service;
use svsm_swiotlb::page_state::{HeldPages, HoldError, PageState, PageStates};
use svsm_swiotlb::platform::{GuestMemory, HostPages, PageInstructions};
use zerocopy::{FromBytes, IntoBytes};

use crate::calling_areas::{CallingAreas, Cpu};
use crate::echo;
use crate::page_changes::{Unchanged, give, take};

/// Work units of one call: one per 4 KiB page zeroed, one per entry that is not.
const WORK_UNITS: u64 = 4096;

/// How a call ended, other than well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The guest gets this code.
    Code(ResultCode),
    /// The VM has to end.
    ValidatedTwice,
}

impl<E: Into<ResultCode>> From<E> for Refusal {
    fn from(code: E) -> Self {
        Self::Code(code.into())
    }
}

type CallResult = Result<(), Refusal>;

/// PVALIDATE or RMPADJUST answered with a code that has none here.
const UNKNOWN_CODE: ResultCode = ResultCode(0x8000_1011);

/// A page vanished under our hands; its guard was dropped, which quarantines it.
const LOST: ResultCode = ResultCode::INVALID_ADDRESS;

/// The protocol, with what it works on.
#[derive(Debug)]
pub struct CoreProtocol<'a, P> {
    /// The machine.
    pub platform: &'a P,
    /// The service: it owns the window and the state words.
    pub service: &'a Service<'a, P>,
    /// The guest's calling areas.
    pub areas: &'a CallingAreas,
    /// The one that the guest's secrets page names.
    pub launch_area: GuestPhysicalAddress,
}

impl<'a, P: PageInstructions + GuestMemory + HostPages> CoreProtocol<'a, P> {
    /// Handles a call; `registers` become the answer.
    ///
    /// # Errors
    /// [`Refusal::ValidatedTwice`]; every other refusal is in the registers.
    pub fn call(&self, cpu: Cpu, registers: &mut CallRegisters) -> CallResult {
        let result = match CallId::from_rax(registers.rax).call {
            call::REMAP_CA => self.remap_ca(cpu, registers.rcx),
            call::PVALIDATE => self.pvalidate(cpu, registers.rcx),
            call::QUERY_PROTOCOL => {
                registers.rcx = self.query_protocol(registers.rcx);
                Ok(())
            }
            _ => Err(ResultCode::UNSUPPORTED_CALL.into()),
        };
        registers.rax = match result {
            Ok(()) => ResultCode::SUCCESS,
            Err(Refusal::Code(code)) => code,
            Err(Refusal::ValidatedTwice) => return result,
        }
        .to_rax();
        Ok(())
    }

    fn states(&self) -> &PageStates<'a> {
        self.service.page_states()
    }

    // [query]
    /// Highest and lowest version of the protocol asked for, or 0.
    fn query_protocol(&self, asked: u64) -> u64 {
        let CallId {
            protocol,
            call: version,
        } = CallId::from_rax(asked);
        match protocol {
            _ if protocol == self.service.protocol_number() => self.service.query_protocol(version),
            call::NUMBER | echo::NUMBER if version == 1 => 1 << 32 | 1,
            _ => 0,
        }
    }
    // [end]

    // [remap]
    /// Moves the caller's calling area. Window and paravisor pages have no word that is Valid, so `hold` refuses them.
    fn remap_ca(&self, cpu: Cpu, rcx: u64) -> CallResult {
        let new = GuestPhysicalAddress::new(rcx);
        if !new.is_aligned(PAGE_SIZE) {
            return Err(ResultCode::INVALID_PARAMETER.into());
        }
        let old = self.areas.of(cpu).ok_or(ResultCode::INVALID_REQUEST)?;
        if new == old {
            return Ok(());
        }
        let new_page = self.states().hold(new, &[PageState::Valid])?;
        let old_page = match self.states().hold(old, &[PageState::CallingArea]) {
            Ok(page) => page,
            Err(error) => {
                new_page.keep();
                return Err(error.into());
            }
        };
        let header = [0; size_of::<ListHeader>()];
        if self.platform.write(new, &header).is_err() {
            old_page.keep();
            return Err(LOST.into()); // drops the guard of the new page
        }
        self.areas.set(cpu, new);
        new_page.change_to(PageState::CallingArea);
        old_page.change_to(PageState::Valid);
        Ok(())
    }
    // [end]

    // [pvalidate]
    /// Validates or rescinds a list of pages. Each byte of the list is fetched once, by the copy it is judged; only the
    /// cursor goes back. The word of the list's page is held throughout.
    fn pvalidate(&self, cpu: Cpu, rcx: u64) -> CallResult {
        let list = GuestPhysicalAddress::new(rcx);
        if !list.is_aligned(8) {
            return Err(ResultCode::INVALID_PARAMETER.into());
        }
        // Not in another vCPU's calling area: its word has to be free when that vCPU calls.
        let allowed = match self.areas.of(cpu) == Some(list.page_base()) {
            true => PageState::CallingArea,
            false => PageState::Valid,
        };
        let page = self.states().hold(list, &[allowed])?;
        let mut header: ListHeader = self.fetch(list, 0)?;
        let room = ListHeader::capacity(list, size_of::<u64>() as u64);
        if u64::from(header.entries) > room || header.next >= header.entries {
            page.keep();
            return Err(ResultCode::INVALID_PARAMETER.into());
        }
        let mut units = WORK_UNITS;
        let mut result = Ok(());
        while header.next < header.entries && result.is_ok() {
            let offset = size_of::<ListHeader>() as u64 + 8 * u64::from(header.next);
            let entry = PvalidateListEntry::from_bits(self.fetch(list, offset)?);
            result = match units.checked_sub(cost(entry)) {
                Some(rest) => {
                    units = rest;
                    self.entry(list.page_base(), entry)
                }
                None => Err(ResultCode::INCOMPLETE.into()),
            };
            header.next += u16::from(result.is_ok());
        }
        let next = GuestPhysicalAddress::new(list.bits() + 2);
        if self.platform.write(next, header.next.as_bytes()).is_err() {
            return result.and(Err(LOST.into())); // drops the guard
        }
        page.keep();
        result
    }

    /// One entry of a list in `list_page`.
    fn entry(&self, list_page: GuestPhysicalAddress, entry: PvalidateListEntry) -> CallResult {
        let page = entry.page();
        let size = entry.size().ok_or(ResultCode::INVALID_PARAMETER)?;
        if entry.reserved() != 0 || !page.is_aligned(size.bytes()) {
            return Err(ResultCode::INVALID_PARAMETER.into());
        }
        // W1, in both directions. Its pages have no state word either, so this is the first of two checks.
        if self.service.touches_window(page, size.bytes()) {
            return Err(ResultCode::INVALID_ADDRESS.into());
        }
        // The list's own word is ours, so BUSY would be the answer for ever.
        if list_page.bits().wrapping_sub(page.bits()) < size.bytes() {
            return Err(ResultCode::INVALID_ADDRESS.into());
        }
        let (from, to) = match entry.validate() {
            true => (PageState::Invalid, PageState::Valid),
            false => (PageState::Valid, PageState::Invalid),
        };
        let held = match self.states().hold_run(page, size.bytes(), from) {
            Ok(held) => held,
            // P1: PVALIDATE(1) is never executed on a page that is valid by our account.
            Err(HoldError::WrongState(_)) => return self.no_change(entry, page, size, to),
            Err(error) => return Err(error.into()),
        };
        let changed = match entry.validate() {
            true => give(self.platform, page, size),
            false => take(self.platform, page, size),
        };
        settle(held, changed, to)
    }
    // [end]

    /// An entry whose pages are not all in the state it starts from: answered from the account.
    fn no_change(
        &self,
        entry: PvalidateListEntry,
        page: GuestPhysicalAddress,
        size: PageSize,
        wanted: PageState,
    ) -> CallResult {
        let mut all_wanted = true;
        for number in 0..size.pages() {
            let address = GuestPhysicalAddress::new(page.bits() + number * PAGE_SIZE);
            match self.states().state(address) {
                Some(state @ (PageState::Valid | PageState::Invalid)) => {
                    all_wanted &= state == wanted;
                }
                Some(PageState::Busy) => return Err(ResultCode::BUSY.into()),
                _ => return Err(ResultCode::INVALID_ADDRESS.into()),
            }
        }
        match (all_wanted, size) {
            (true, _) if entry.ignore_no_change() => Ok(()),
            (true, _) => Err(ResultCode(call::ERROR_NO_CHANGE).into()),
            // Another vCPU has just changed it back.
            (false, PageSize::Size4K) => Err(ResultCode::BUSY.into()),
            (false, PageSize::Size2M) => Err(ResultCode::protocol_error(6).into()),
        }
    }

    /// A part of a list. An error drops the guard of its page.
    fn fetch<T: FromBytes + IntoBytes>(
        &self,
        list: GuestPhysicalAddress,
        offset: u64,
    ) -> Result<T, Refusal> {
        let mut value = T::new_zeroed();
        let from = GuestPhysicalAddress::new(list.bits() + offset);
        let read = self.platform.read(from, value.as_mut_bytes());
        read.map(|()| value).map_err(|_| LOST.into())
    }
}

// [settle]
/// Gives the words back. Only a page whose state is known gets one: otherwise the guard is dropped (P3).
fn settle(held: HeldPages<'_>, changed: Result<(), Unchanged>, to: PageState) -> CallResult {
    match changed {
        Ok(()) => {
            held.change_to(to);
            Ok(())
        }
        Err(Unchanged::Refused(code)) => {
            held.keep();
            Err(match code.0 {
                0..16 => ResultCode::protocol_error(code.0).into(),
                _ => UNKNOWN_CODE.into(),
            })
        }
        Err(Unchanged::Lost) => Err(LOST.into()),
        Err(Unchanged::ValidatedTwice) => Err(Refusal::ValidatedTwice),
    }
}
// [end]

fn cost(entry: PvalidateListEntry) -> u64 {
    match entry.size() {
        Some(size) if entry.validate() => size.pages(),
        _ => 1,
    }
}
