// SPDX-License-Identifier: MIT OR Apache-2.0
//! CONVERT: the list, what of it makes up a batch, and the answer (clauses P-5.9.1 to P-5.9.4 and P-5.9.8).

use std::collections::BTreeMap;

use protocol::convert::Outcome;
use protocol::result;
use snp::address::PageSize;
use snp::svsm::ResultCode;
use svsm_swiotlb::page_state::PageState;

use super::conversion::{Fault, Work};
use super::guest_page::{read, writes};
use super::instructions::{Step, parts, revoke};
use super::{Answer, refused, results};
use crate::state::Model;
use crate::{Event, Violation, require};

const PAGE: u64 = 4096;
const HEADER: u64 = 8;
const ENTRY: u64 = 8;
/// Entries of a batch (clause P-5.9.3).
const BATCH: usize = 253;
/// Offset of the cursor in the header.
const CURSOR: u64 = 2;

/// Whether an entry joins the batch.
enum Admission {
    Joins,
    /// It is for a later call.
    Later,
    Refused(ResultCode),
}

/// An entry, taken apart as clause P-5.9.1 says.
struct Entry {
    page: u64,
    size: PageSize,
    to_shared: bool,
}

impl Entry {
    /// Nothing if it is INVALID_PARAMETER.
    fn read(word: u64) -> Option<Self> {
        let size = match word & 3 {
            0 => PageSize::Size4K,
            1 => PageSize::Size2M,
            _ => return None,
        };
        let page = word & !(PAGE - 1);
        let reserved = word & 0xFF8;
        (reserved == 0 && page.is_multiple_of(size.bytes())).then_some(Self {
            page,
            size,
            to_shared: word & 4 != 0,
        })
    }
}

impl Model {
    pub(super) fn convert(&mut self, list: u64, events: &mut &[Event]) -> Answer {
        if let Some(code) = self.no_structure(list) {
            return refused(code);
        }
        let Some(header) = read(list, HEADER, events)? else {
            return self.faulted(list);
        };
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let (entries, next) = (half(0), half(2));
        let end = list % PAGE + HEADER + ENTRY * u64::from(entries);
        // P-5.9.1 and P-4.5; so a list is no longer than 511 entries.
        if next >= entries || header[4..] != [0; 4] || end > PAGE {
            return refused(ResultCode::INVALID_PARAMETER);
        }
        let first = list + HEADER + ENTRY * u64::from(next);
        let wanted = usize::from(entries - next).min(BATCH);
        let Some(bytes) = read(first, ENTRY * wanted as u64, events)? else {
            return self.faulted(list);
        };
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")))
            .collect();

        let to_shared = words[0] & 4 != 0;
        let mut work = Work::new(to_shared);
        for word in &words {
            match self.admit(list, *word, &mut work, events)? {
                Admission::Joins => {}
                Admission::Refused(code) if work.items.is_empty() => return refused(code),
                Admission::Later | Admission::Refused(_) => break,
            }
        }
        let fault = self.perform_conversion(&mut work, events)?;
        let reached = next + u16::try_from(work.items.len()).expect("a batch");
        let report = report(list, first, reached, &words, &work);
        if !reported(list, &report, events)? {
            self.lose_structure(list);
            if fault != Some(Fault::Tampered) {
                return refused(ResultCode::INVALID_ADDRESS); // P-7.6: the batch stands
            }
        }
        // P-5.9.11, whatever became of the list.
        self.stopped = fault == Some(Fault::Tampered);
        match fault {
            Some(Fault::Declined) => refused(result::HOST_REFUSED),
            Some(Fault::Lost) => refused(result::PAGE_LOST),
            Some(Fault::Misbehaved | Fault::Tampered) => refused(result::HOST_MISBEHAVED),
            None if reached < entries => refused(ResultCode::INCOMPLETE),
            None => Ok(Ok(results(0, 0, 0))),
        }
    }

    /// P-5.9.2, P-5.9.3, P-5.9.7: an entry joins the batch with its pages taken and, to shared, revoked.
    fn admit(
        &mut self,
        list: u64,
        word: u64,
        work: &mut Work,
        events: &mut &[Event],
    ) -> Result<Admission, Violation> {
        let Some(entry) = Entry::read(word) else {
            return Ok(Admission::Refused(ResultCode::INVALID_PARAMETER));
        };
        let page = (entry.page, entry.size);
        if entry.to_shared != work.to_shared {
            return Ok(Admission::Later);
        }
        if let Some(code) = self.not_convertible(list, &entry) {
            return Ok(Admission::Refused(code));
        }
        let (whole, split) = match entry.to_shared {
            true => (1, entry.size.pages()),
            false => (entry.size.pages(), entry.size.pages()),
        };
        if !work.units_suffice(whole) {
            return Ok(Admission::Later);
        }
        let before = self.page(entry.page).unwrap_or(PageState::Invalid);
        if !entry.to_shared {
            work.spend(whole);
            work.join(page, before, false);
            self.put(page, PageState::Busy);
            return Ok(Admission::Joins);
        }
        let mut revoked = revoke(page, events)?;
        let smaller = revoked == Step::Smaller && entry.size == PageSize::Size2M;
        if smaller {
            if !work.units_suffice(split) {
                // Nothing was revoked; the attempt is a unit all the same.
                work.spend(whole);
                return Ok(Admission::Later);
            }
            revoked = Step::Done;
            for part in parts(page) {
                if revoke(part, events)? != Step::Done {
                    revoked = Step::Lost;
                    break;
                }
            }
        }
        work.spend(if smaller { split } else { whole });
        work.join(page, before, smaller);
        self.put(page, PageState::Busy);
        if revoked != Step::Done {
            self.lose(work, work.items.len() - 1);
        }
        Ok(Admission::Joins)
    }

    /// P-5.9.2: all pages in one of the states from which there is a way.
    fn not_convertible(&self, list: u64, entry: &Entry) -> Option<ResultCode> {
        let own = list - list % PAGE;
        let from: &[PageState] = match entry.to_shared {
            true => &[PageState::Valid],
            false => &[PageState::Shared, PageState::Invalid],
        };
        let first = self.page(entry.page);
        for (part, _) in parts((entry.page, entry.size)) {
            let state = self.page(part);
            let right = state.is_some_and(|state| from.contains(&state)) && state == first;
            if part == own || !right {
                let busy = part != own && state == Some(PageState::Busy);
                return Some(match busy {
                    true => ResultCode::BUSY,
                    false => ResultCode::INVALID_ADDRESS,
                });
            }
        }
        None
    }
}

/// P-5.9.1, P-5.9.8: the bytes of the list that change: the cursor, and the entries from `first` on that were not converted.
fn report(list: u64, first: u64, reached: u16, words: &[u64], work: &Work) -> BTreeMap<u64, u8> {
    let cursor = (list + CURSOR..).zip(reached.to_le_bytes());
    let mut report: BTreeMap<u64, u8> = cursor.collect();
    let mut at = first;
    for (item, word) in work.items.iter().zip(words) {
        let number = match item.outcome {
            Outcome::Converted => 0,
            Outcome::Unchanged => 1,
            Outcome::Zeroed => 2,
            Outcome::Unvalidated => 3,
            Outcome::Quarantined => 4,
        };
        if number > 0 {
            report.extend((at..).zip((word | number << 8).to_le_bytes()));
        }
        at += ENTRY;
    }
    report
}

/// These bytes are written and nothing else; false if a fault ended that.
fn reported(
    list: u64,
    report: &BTreeMap<u64, u8>,
    events: &mut &[Event],
) -> Result<bool, Violation> {
    let written = writes(list, list - list % PAGE + PAGE, events)?;
    let right = |(at, byte)| report.get(at) == Some(byte);
    require!(
        written.bytes.iter().all(right),
        "P-5.9.1, P-5.9.8: {:x?} written instead of {report:x?}",
        written.bytes
    );
    require!(
        written.faulted || written.bytes.len() == report.len(),
        "P-5.9.8: {:x?} written of {report:x?}",
        written.bytes
    );
    Ok(!written.faulted)
}
