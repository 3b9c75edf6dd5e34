// SPDX-License-Identifier: MIT OR Apache-2.0
//! Structures in a guest's page: opened under the page's state word, read once, written back (invariant P5).
//!
//! Another processor of the guest can rewrite the page at any moment. So each field is fetched once into memory of the
//! service and only that copy is checked and used; and the page cannot be converted, become a VMSA or a calling area, or
//! lose its validation at VMPL0's hands meanwhile, because its word is taken.

use core::cell::Cell;

use protocol::trace::{QUARANTINED_PAGE, TraceKind};
use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use snp::svsm::ResultCode;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::page_state::{PageState, PageStates};
use crate::platform::GuestMemory;
use crate::statistics::Counters;
use crate::trace::Event;

/// A structure of the guest, from its first byte to at most the end of its page, while the page's word is held.
///
/// A fault quarantines the page: it is not validated although the service's account says so.
#[derive(Debug)]
pub struct GuestPage<'s, M> {
    memory: &'s M,
    counters: &'s Counters,
    start: GuestPhysicalAddress,
    faulted: Cell<bool>,
}

impl<'s, M: GuestMemory> GuestPage<'s, M> {
    /// Takes the word of the page that `start` lies in, runs `work`, and gives the word back.
    ///
    /// Linux puts its lists behind the header of its calling area, so the caller's own is such a page. Another processor's is not:
    /// its word has to be free when that processor calls, and is taken here across VMGEXITs.
    ///
    /// # Errors
    /// INVALID_ADDRESS when it is no page the guest may use, BUSY when somebody else has it; else those of `work`.
    pub fn with<R>(
        memory: &'s M,
        states: &'s PageStates<'_>,
        counters: &'s Counters,
        start: GuestPhysicalAddress,
        calling_area: Option<GuestPhysicalAddress>,
        work: impl FnOnce(&Self) -> Result<R, ResultCode>,
    ) -> Result<R, ResultCode> {
        let allowed: &[_] = match calling_area == Some(start.page_base()) {
            true => &[PageState::Valid, PageState::CallingArea],
            false => &[PageState::Valid],
        };
        let held = states.hold(start, allowed)?;
        let page = Self {
            memory,
            counters,
            start,
            faulted: Cell::new(false),
        };
        let result = work(&page);
        if page.faulted.get() {
            held.change_to(PageState::Quarantined);
            counters.trace().note(&Event {
                kind: TraceKind::Quarantined,
                code: QUARANTINED_PAGE,
                detail: 0,
                address: start.page_base().bits(),
                bytes: PAGE_SIZE,
            });
        } else {
            held.keep();
        }
        result
    }

    /// Bytes from the structure's start to the end of its page.
    pub fn room(&self) -> u64 {
        PAGE_SIZE.saturating_sub(self.start.page_offset())
    }

    /// Fetches a value `offset` bytes from the structure's start.
    ///
    /// # Errors
    /// INVALID_PARAMETER past the end of the page, INVALID_ADDRESS on a fault.
    pub fn read<T: FromBytes + IntoBytes>(&self, offset: u64) -> Result<T, ResultCode> {
        let mut value = T::new_zeroed();
        let from = self.address(offset, size_of::<T>())?;
        self.memory
            .read(from, value.as_mut_bytes())
            .map_err(|_| self.fault())?;
        Ok(value)
    }

    /// Fetches bytes `offset` bytes from the structure's start, each once.
    ///
    /// # Errors
    /// As [`GuestPage::read`].
    pub fn read_bytes(&self, offset: u64, bytes: &mut [u8]) -> Result<(), ResultCode> {
        let from = self.address(offset, bytes.len())?;
        self.memory.read(from, bytes).map_err(|_| self.fault())
    }

    /// Stores a value `offset` bytes from the structure's start.
    ///
    /// # Errors
    /// As [`GuestPage::read`].
    pub fn write<T: IntoBytes + Immutable + ?Sized>(
        &self,
        offset: u64,
        value: &T,
    ) -> Result<(), ResultCode> {
        let to = self.address(offset, size_of_val(value))?;
        self.memory
            .write(to, value.as_bytes())
            .map_err(|_| self.fault())
    }

    fn address(&self, offset: u64, bytes: usize) -> Result<GuestPhysicalAddress, ResultCode> {
        let end = u64::try_from(bytes)
            .ok()
            .and_then(|bytes| offset.checked_add(bytes));
        let inside = end.is_some_and(|end| end <= self.room());
        let address = self.start.checked_add(offset).filter(|_| inside);
        address.ok_or(ResultCode::INVALID_PARAMETER)
    }

    fn fault(&self) -> ResultCode {
        self.counters.guest_page_fault();
        self.faulted.set(true);
        ResultCode::INVALID_ADDRESS
    }
}
