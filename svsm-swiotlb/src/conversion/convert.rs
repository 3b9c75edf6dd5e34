// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which entries make up a batch, and what a call answers.

use protocol::convert::{ConvertEntry, Outcome};
use protocol::result;
use protocol::trace::{QUARANTINED_PAGE, TraceKind};
use snp::address::{GuestPhysicalAddress, PageSize};
use snp::svsm::ResultCode;

use super::batch::{Batch, Item};
use crate::WORK_UNITS;
use crate::ownership::{self, OwnError};
use crate::page_state::{PageState, PageStates};
use crate::platform::{HostPages, PageInstructions};
use crate::statistics::Counters;
use crate::trace::Event;

/// PVALIDATE(1) found a page valid that the page-state map calls invalid: no page can be trusted any more (P1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tampered;

/// Why an entry does not join the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// It is for a later batch.
    Later,
    /// It is wrong, or cannot be converted now. Nothing of it changed.
    Refused(ResultCode),
}

/// How a batch ended, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// Every entry is converted.
    Converted,
    /// The host declined entries in good order.
    Declined,
    /// Entries were lost.
    Lost,
    /// The host's reply broke the rules.
    Misbehaved,
    /// See [`Tampered`].
    Tampered,
}

impl End {
    /// The answer to the call; nothing for a batch without a fault.
    pub const fn code(self) -> Option<ResultCode> {
        match self {
            Self::Converted => None,
            Self::Declined => Some(result::HOST_REFUSED),
            Self::Lost => Some(result::PAGE_LOST),
            Self::Misbehaved | Self::Tampered => Some(result::HOST_MISBEHAVED),
        }
    }
}

/// One call's work.
#[derive(Debug)]
pub(crate) struct Conversion<'s, 'a, P> {
    pub(super) platform: &'s P,
    pub(super) states: &'s PageStates<'a>,
    pub(super) counters: &'s Counters,
    /// Work units left.
    pub(super) units: usize,
}

impl<'s, 'a, P: HostPages + PageInstructions> Conversion<'s, 'a, P> {
    pub const fn new(platform: &'s P, states: &'s PageStates<'a>, counters: &'s Counters) -> Self {
        Self {
            platform,
            states,
            counters,
            units: WORK_UNITS,
        }
    }

    /// Converts as many of `entries`, which come from a list in `list_page`, as make up a batch.
    ///
    /// A batch ends before an entry that goes the other way, that the work units do not suffice for, or that is refused.
    /// So a refusal always concerns the first entry, where the cursor is.
    ///
    /// # Errors
    /// Why the first entry was refused; nothing changed.
    pub fn run(
        mut self,
        list_page: GuestPhysicalAddress,
        entries: &[ConvertEntry],
        batch: &mut Batch<'a>,
    ) -> Result<End, ResultCode> {
        let to_shared = entries.first().is_some_and(ConvertEntry::to_shared);
        for entry in entries {
            match self.admit(list_page, *entry, to_shared, batch) {
                Ok(()) => {}
                Err(Turned::Refused(code)) if batch.is_empty() => return Err(code),
                Err(_) => break,
            }
        }
        let end = if to_shared {
            self.share(batch)
        } else {
            self.make_private(batch)
        };
        let lost = self.note(entries, to_shared, batch);
        Ok(end.max(lost))
    }

    /// Counts and traces what became of the entries.
    fn note(&self, entries: &[ConvertEntry], to_shared: bool, batch: &Batch<'_>) -> End {
        let mut end = End::Converted;
        let mut converted = Event::of(TraceKind::Converted, 0, 0);
        converted.code = u16::from(to_shared);
        for (entry, outcome) in entries.iter().zip(batch.outcomes()) {
            let (page, bytes) = (entry.page(), entry.size().map_or(0, PageSize::bytes));
            match outcome {
                Outcome::Converted => {
                    if converted.detail == 0 {
                        converted.address = page.bits();
                    }
                    converted.detail = converted.detail.saturating_add(1);
                    converted.bytes = converted.bytes.saturating_add(bytes);
                }
                Outcome::Quarantined => {
                    self.counters.guest_page_fault();
                    let mut event = Event::at(TraceKind::Quarantined, 0, page, bytes);
                    event.code = QUARANTINED_PAGE;
                    self.counters.trace().note(&event);
                    end = End::Lost;
                }
                _ => {}
            }
        }
        if converted.detail > 0 {
            self.counters.trace().note(&converted);
        }
        end
    }

    /// Adds an entry to the batch, with its words taken and, to shared, its permissions revoked.
    fn admit(
        &mut self,
        list_page: GuestPhysicalAddress,
        entry: ConvertEntry,
        to_shared: bool,
        batch: &mut Batch<'a>,
    ) -> Result<(), Turned> {
        let page = entry.page();
        let wrong = Turned::Refused(ResultCode::INVALID_PARAMETER);
        let size = entry.size().ok_or(wrong)?;
        let unknown = entry.reserved() != 0 || entry.outcome_code() != 0;
        if unknown || !page.is_aligned(size.bytes()) {
            return Err(wrong);
        }
        if entry.to_shared() != to_shared {
            return Err(Turned::Later);
        }
        // Its word is ours for the length of the call, so BUSY would be the answer for ever.
        if list_page.bits().wrapping_sub(page.bits()) < size.bytes() {
            return Err(Turned::Refused(ResultCode::INVALID_ADDRESS));
        }
        if to_shared {
            self.admit_to_shared(page, size, batch)
        } else {
            self.admit_to_private(page, size, batch)
        }
    }

    /// Takes work units, or leaves the rest for a later call.
    pub(super) fn spend(&mut self, units: u64) -> Result<(), Turned> {
        let units = usize::try_from(units).unwrap_or(usize::MAX);
        self.units = self.units.checked_sub(units).ok_or(Turned::Later)?;
        Ok(())
    }

    /// Makes an entry private that the host has assigned: validates, zeroes and grants it.
    pub(super) fn give(&self, item: &mut Item<'a>, outcome: Outcome) -> Result<(), Tampered> {
        match self.give_pages(item) {
            Ok(()) => item.settle(PageState::Valid, outcome),
            Err(OwnError::Tampered) => return Err(Tampered),
            Err(_) => item.lose(),
        }
        Ok(())
    }

    fn give_pages(&self, item: &Item<'a>) -> Result<(), OwnError> {
        let given = ownership::give(self.platform, item.page, item.size);
        match given {
            Err(error) if error.is_size_mismatch() && item.size == PageSize::Size2M => {}
            given => return given,
        }
        for page in ownership::small_pages(item.page, item.size) {
            ownership::give(self.platform, page, PageSize::Size4K).map_err(
                |error| match error {
                    OwnError::Tampered => OwnError::Tampered,
                    // Perhaps not the first one, and then the large page is half of each.
                    _ => OwnError::Lost,
                },
            )?;
        }
        Ok(())
    }
}
