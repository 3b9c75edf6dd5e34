// SPDX-License-Identifier: MIT OR Apache-2.0
//! CONVERT as a guest uses it, and what its answer has to say whatever went wrong (clauses P-5.9.3, P-5.9.4 and P-5.9.8).

use protocol::convert::{ConvertEntry, Outcome};
use protocol::result::{HOST_MISBEHAVED, HOST_REFUSED, PAGE_LOST};
use reference_model::guest;
use reference_model::world::Watched;
use snp::address::{PAGE_SIZE, PageSize, Vmpl};
use snp::svsm::{CallRegisters, ResultCode};
use svsm_swiotlb::page_state::PageState;
use zerocopy::IntoBytes;

use crate::hostile_machine::gpa;
use crate::judged::Judged;
use crate::wrong::Wrong;

pub fn convert(epoch: u32, list: u64) -> CallRegisters {
    guest::raw(9, list, epoch.into(), 0)
}

pub fn trace(buffer: u64, records: u64, from: u64) -> CallRegisters {
    guest::raw(11, buffer, 32 * records, from)
}

pub const fn small(page: u64, to_shared: bool) -> ConvertEntry {
    ConvertEntry::request(gpa(page), PageSize::Size4K, to_shared)
}

pub const fn large(page: u64, to_shared: bool) -> ConvertEntry {
    ConvertEntry::request(gpa(page), PageSize::Size2M, to_shared)
}

/// So many pages of 4 KiB.
pub fn smalls(page: u64, count: u64, to_shared: bool) -> Vec<ConvertEntry> {
    let pages = (0..count).map(|number| page + number * PAGE_SIZE);
    pages.map(|page| small(page, to_shared)).collect()
}

fn small_pages(entry: ConvertEntry) -> impl Iterator<Item = u64> {
    let count = entry.size().map_or(1, PageSize::pages);
    (0..count).map(move |number| entry.page().bits() + number * PAGE_SIZE)
}

impl Judged<'_> {
    /// Writes a list and calls until nothing is left of it or nothing moves.
    pub fn convert(&self, list: u64, entries: &[ConvertEntry]) -> Vec<ResultCode> {
        let count = u16::try_from(entries.len()).unwrap();
        self.hostile().poke(list, &u64::from(count).to_le_bytes());
        self.hostile().poke(list + 8, entries.as_bytes());
        let mut codes = Vec::new();
        let mut next = 0;
        while next < entries.len() && !self.service.has_stopped() {
            let (code, now) = self.convert_once(list, next, entries);
            codes.push(code);
            match now {
                Some(now) if now > next => next = now,
                _ => break,
            }
        }
        codes
    }

    /// One call, compared with the list that it leaves; the cursor, unless the list is gone.
    fn convert_once(
        &self,
        list: u64,
        next: usize,
        entries: &[ConvertEntry],
    ) -> (ResultCode, Option<usize>) {
        let before: Vec<_> = entries.iter().map(|entry| self.states(*entry)).collect();
        self.hostile().hits();
        self.hostile().broken_reply();
        let code = self.call(&convert(self.epoch(), list));
        let (hits, broken) = (self.hostile().hits(), self.hostile().broken_reply());
        let usable = [Some(PageState::Valid), Some(PageState::CallingArea)];
        if !usable.contains(&self.page(list)) {
            // P-7.6, and what a batch did before its list was lost stands; P-5.9.11 is not hidden by it.
            let expected = match self.service.has_stopped() {
                true => HOST_MISBEHAVED,
                false => ResultCode::INVALID_ADDRESS,
            };
            assert_eq!(code, expected, "{hits:?}");
            return (code, None);
        }
        let header: [u8; 8] = self.peek(list).expect("a valid page");
        assert_eq!(header[..2], u16::to_le_bytes(count(entries)), "P-5.9.1");
        assert_eq!(header[4..], [0; 4], "P-5.9.1");
        let now = usize::from(u16::from_le_bytes([header[2], header[3]]));
        assert!(now >= next && now <= entries.len(), "P-5.9.4: {now}");
        let context = format!("entry {next} to {now}, {code}, {hits:?}");
        let mut outcomes = Vec::new();
        for (number, entry) in entries.iter().enumerate() {
            let at = list + 8 + 8 * number as u64;
            let found: [u8; 8] = self.peek(at).expect("a valid page");
            let found = ConvertEntry::from_bits(u64::from_le_bytes(found));
            let outcome = found.outcome().expect("an outcome");
            assert_eq!(found, entry.with_outcome(outcome), "P-5.9.1: {context}");
            if (next..now).contains(&number) {
                outcomes.push(outcome);
                self.check_entry(*entry, outcome, &before[number], &context);
            } else if number >= now {
                assert_eq!(outcome, Outcome::Converted, "not its turn: {context}");
                // A list may name a page more than once.
                let again = entries[next..now]
                    .iter()
                    .any(|done| done.page() == entry.page());
                let same = self.states(*entry) == before[number];
                assert!(same || again, "{:#x}: {context}", entry.page());
            }
        }
        if now == next {
            let refusals = [
                ResultCode::INVALID_ADDRESS,
                ResultCode::INVALID_PARAMETER,
                ResultCode::BUSY,
            ];
            assert!(refusals.contains(&code), "P-5.9.3: {context}");
        } else {
            let broken = broken || self.service.has_stopped();
            let expected = expected_code(&outcomes, broken, now < entries.len());
            assert_eq!(code, expected, "P-5.9.8: {context} {outcomes:?}");
        }
        let lost = |outcome: &&Outcome| **outcome == Outcome::Quarantined;
        let lost = outcomes.iter().filter(lost).count();
        let one = matches!(hits[..], [("pvalidate" | "rmpadjust" | "zero", _)]);
        if one && !broken && !self.hostile().lies() && !self.service.has_stopped() {
            assert!(lost <= 1, "P-5.9.10: {lost} entries: {context}");
        }
        if self.service.has_stopped() {
            let unchanged = hits.contains(&("pvalidate", Wrong::Unchanged));
            assert!(unchanged, "P-5.9.11: {context}");
        }
        (code, Some(now))
    }

    fn states(&self, entry: ConvertEntry) -> Vec<Option<PageState>> {
        small_pages(entry).map(|page| self.page(page)).collect()
    }

    /// The report, the word and what the guest sees of an entry agree. The reverse map is compared with the word by
    /// [`Judged::check`].
    fn check_entry(
        &self,
        entry: ConvertEntry,
        outcome: Outcome,
        before: &[Option<PageState>],
        context: &str,
    ) {
        let zero = match outcome {
            Outcome::Converted => !entry.to_shared(),
            Outcome::Zeroed => true,
            _ => false,
        };
        for (page, before) in small_pages(entry).zip(before) {
            let wanted = match (outcome, entry.to_shared()) {
                (Outcome::Converted, true) => Some(PageState::Shared),
                (Outcome::Converted, false) | (Outcome::Zeroed, true) => Some(PageState::Valid),
                (Outcome::Unchanged, false) => *before,
                (Outcome::Unvalidated, true) => Some(PageState::Invalid),
                (Outcome::Quarantined, _) => Some(PageState::Quarantined),
                // P-5.9.9: what comes back, comes back from a conversion to shared; what is unchanged, from the other.
                (Outcome::Zeroed | Outcome::Unvalidated, false) | (Outcome::Unchanged, true) => {
                    None
                }
            };
            assert_eq!(self.page(page), wanted, "{page:#x} {outcome:?}: {context}");
            if zero {
                let mut bytes = [0xFF; 16];
                let machine = self.machine();
                let read = machine.guest_read(Vmpl::Vmpl2, true, gpa(page), &mut bytes);
                assert_eq!((read, bytes), (Ok(()), [0; 16]), "D: {page:#x}: {context}");
            }
        }
    }
}

fn count(entries: &[ConvertEntry]) -> u16 {
    u16::try_from(entries.len()).unwrap_or(u16::MAX)
}

/// Clauses P-5.9.4 and P-5.9.8: the last of the table that applies.
fn expected_code(outcomes: &[Outcome], broken: bool, more: bool) -> ResultCode {
    if broken {
        HOST_MISBEHAVED
    } else if outcomes.contains(&Outcome::Quarantined) {
        PAGE_LOST
    } else if outcomes
        .iter()
        .any(|outcome| *outcome != Outcome::Converted)
    {
        HOST_REFUSED
    } else if more {
        ResultCode::INCOMPLETE
    } else {
        ResultCode::SUCCESS
    }
}
