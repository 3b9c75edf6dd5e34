// SPDX-License-Identifier: MIT OR Apache-2.0
//! A batch of CONVERT on its way (clauses P-5.9.5 to P-5.9.11): after each platform call every page of it is converted,
//! what it was, or lost.

use protocol::convert::Outcome;
use snp::address::PageSize;
use svsm_swiotlb::page_state::PageState;

use super::instructions::{Page, Step, flush, give, parts, rescind};
use crate::host::{Verdict, next_change};
use crate::state::Model;
use crate::{Event, Violation, events::kind, require};

/// Work units of a call (clause P-6.4).
const UNITS: u64 = 4096;
const PRIVATE: u8 = 1;
const SHARED: u8 = 2;

/// Why not every entry was converted; the later one of two is answered (clause P-5.9.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    Declined,
    Lost,
    Misbehaved,
    Tampered,
}

/// An entry of the batch.
pub(super) struct Item {
    page: Page,
    before: PageState,
    /// A large page whose permissions were revoked in parts.
    split: bool,
    /// Nobody has said yet what becomes of it.
    open: bool,
    pub outcome: Outcome,
}

/// The batch, and the work it cost.
pub(super) struct Work {
    pub to_shared: bool,
    pub items: Vec<Item>,
    units: u64,
}

impl Work {
    pub const fn new(to_shared: bool) -> Self {
        Self {
            to_shared,
            items: Vec::new(),
            units: 0,
        }
    }

    pub const fn units_suffice(&self, more: u64) -> bool {
        self.units + more <= UNITS
    }

    pub const fn spend(&mut self, units: u64) {
        self.units += units;
    }

    pub fn join(&mut self, page: Page, before: PageState, split: bool) {
        self.items.push(Item {
            page,
            before,
            split,
            open: true,
            outcome: Outcome::Quarantined,
        });
    }

    fn open(&self) -> Vec<usize> {
        (0..self.items.len())
            .filter(|number| self.items[*number].open)
            .collect()
    }
}

impl Model {
    /// All of a batch after its entries were admitted; the worst fault.
    pub(super) fn perform_conversion(
        &mut self,
        work: &mut Work,
        events: &mut &[Event],
    ) -> Result<Option<Fault>, Violation> {
        let fault = if work.to_shared {
            self.share(work, events)?
        } else {
            self.make_private(work, events)?
        };
        let lost = self.note_outcomes(work);
        Ok(fault.max(lost))
    }

    fn share(
        &mut self,
        work: &mut Work,
        events: &mut &[Event],
    ) -> Result<Option<Fault>, Violation> {
        flush(events)?;
        for number in work.open() {
            if rescinded(work, number, events)? != Step::Done {
                self.lose(work, number);
            }
        }
        let Some(done) = self.ask(work, SHARED, events)? else {
            self.lose_open(work);
            return Ok(Some(Fault::Misbehaved));
        };
        for number in work.open().into_iter().take(done) {
            self.settle(work, number, PageState::Shared, Outcome::Converted);
        }
        if work.open().is_empty() {
            return Ok(None);
        }
        // P-5.9.9: what was declined comes back, zero.
        let Some(done) = self.ask(work, PRIVATE, events)? else {
            self.lose_open(work);
            return Ok(Some(Fault::Misbehaved));
        };
        for (nth, number) in work.open().into_iter().enumerate() {
            let units = work.items[number].page.1.pages();
            if nth >= done || !work.units_suffice(units) {
                self.settle(work, number, PageState::Invalid, Outcome::Unvalidated);
                continue;
            }
            work.spend(units);
            if self.given(work, number, Outcome::Zeroed, events)? == Step::Tampered {
                self.lose_open(work);
                return Ok(Some(Fault::Tampered));
            }
        }
        Ok(Some(Fault::Declined))
    }

    fn make_private(
        &mut self,
        work: &mut Work,
        events: &mut &[Event],
    ) -> Result<Option<Fault>, Violation> {
        let Some(done) = self.ask(work, PRIVATE, events)? else {
            self.lose_open(work);
            return Ok(Some(Fault::Misbehaved));
        };
        let mut fault = None;
        for (nth, number) in work.open().into_iter().enumerate() {
            if nth >= done {
                let before = work.items[number].before;
                self.settle(work, number, before, Outcome::Unchanged);
                fault = Some(Fault::Declined);
            } else if self.given(work, number, Outcome::Converted, events)? == Step::Tampered {
                self.lose_open(work);
                return Ok(Some(Fault::Tampered));
            }
        }
        Ok(fault)
    }

    /// P-5.9.6: the guest's, zero; or lost.
    fn given(
        &mut self,
        work: &mut Work,
        number: usize,
        outcome: Outcome,
        events: &mut &[Event],
    ) -> Result<Step, Violation> {
        let page = work.items[number].page;
        let mut step = give(page, events)?;
        if step == Step::Smaller && page.1 == PageSize::Size2M {
            step = Step::Done;
            for part in parts(page) {
                step = give(part, events)?;
                if step != Step::Done {
                    break;
                }
            }
        }
        match step {
            Step::Done => self.settle(work, number, PageState::Valid, outcome),
            Step::Tampered => {}
            _ => self.lose(work, number),
        }
        Ok(step)
    }

    /// One page-state change for the entries whose end is open, counted; how many of them the host did, or nothing if it
    /// broke the rules.
    fn ask(
        &mut self,
        work: &Work,
        operation: u8,
        events: &mut &[Event],
    ) -> Result<Option<usize>, Violation> {
        let pages: Vec<Page> = work.open().iter().map(|n| work.items[*n].page).collect();
        if pages.is_empty() {
            return Ok(Some(0));
        }
        let change = next_change(events)?;
        require!(
            change.pages == pages && change.operation == operation,
            "P-5.9.5, P-5.9.6: {change:x?} for {pages:x?}"
        );
        self.count_change(&change);
        let (done, _) = change.done();
        Ok((!matches!(change.verdict, Verdict::Broken(_))).then_some(done))
    }

    fn settle(&mut self, work: &mut Work, number: usize, state: PageState, outcome: Outcome) {
        let item = &mut work.items[number];
        // P3: nothing leaves quarantine.
        assert!(item.open, "the model itself");
        item.open = false;
        item.outcome = outcome;
        self.put(item.page, state);
    }

    /// P-5.9.10: the entry, whole.
    pub(super) fn lose(&mut self, work: &mut Work, number: usize) {
        self.settle(work, number, PageState::Quarantined, Outcome::Quarantined);
    }

    fn lose_open(&mut self, work: &mut Work) {
        for number in work.open() {
            self.lose(work, number);
        }
    }

    /// P-12.2, P-8.3: each lost entry is an event and a fault; what was converted is one event.
    fn note_outcomes(&mut self, work: &Work) -> Option<Fault> {
        let mut fault = None;
        let mut converted = Vec::new();
        for item in &work.items {
            assert!(!item.open, "the model itself");
            self.tried.outcomes.insert((work.to_shared, item.outcome));
            let (page, size) = item.page;
            match item.outcome {
                Outcome::Converted => converted.push(item.page),
                Outcome::Quarantined => {
                    self.counters.guest_page_faults += 1;
                    self.note_quarantined_page(page, size.bytes());
                    fault = Some(Fault::Lost);
                }
                _ => {}
            }
        }
        if let Some((first, _)) = converted.first() {
            let entries = u32::try_from(converted.len()).unwrap_or(u32::MAX);
            let bytes = converted.iter().map(|(_, size)| size.bytes()).sum();
            let target = u16::from(work.to_shared);
            self.note(kind::CONVERTED, target, entries, *first, bytes);
        }
        fault
    }
}

/// P-5.9.7, P-5.9.10: in parts where it was revoked in parts, or where the host split it meanwhile.
fn rescinded(work: &mut Work, number: usize, events: &mut &[Event]) -> Result<Step, Violation> {
    let page = work.items[number].page;
    if !work.items[number].split {
        let step = rescind(page, events)?;
        let more = page.1.pages() - 1;
        let splits = step == Step::Smaller && page.1 == PageSize::Size2M;
        if !splits || !work.units_suffice(more) {
            return Ok(step);
        }
        work.spend(more);
    }
    for part in parts(page) {
        let step = rescind(part, events)?;
        if step != Step::Done {
            return Ok(step);
        }
    }
    Ok(Step::Done)
}
