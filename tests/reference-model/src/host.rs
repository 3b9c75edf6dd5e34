// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the replies to one batch mean (chapter 9), from the transcript.

use protocol::statistics::HostAnomaly;
use snp::address::PageSize;
use snp::psc::{PscEntry, PscHeader};
use svsm_swiotlb::platform::{Issue, PscExit};

use crate::asked::CHUNK;
use crate::{Event, Violation, require};

/// Replies in a row that do not move the cursor (clause P-9.2).
const MOST_FRUITLESS: usize = 16;

/// How the host ended a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All entries are done.
    Complete,
    /// It declined in order: so many are done.
    Declined(usize, HostAnomaly),
    /// It broke a rule.
    Broken(HostAnomaly),
}

/// A page-state change as the host saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Address and size of each entry.
    pub pages: Vec<(u64, PageSize)>,
    /// What was asked for: 1 private, 2 shared.
    pub operation: u8,
    /// How it ended.
    pub verdict: Verdict,
    /// VMGEXITs.
    pub exits: u64,
}

impl Change {
    /// Entries that the host reports done, and what it did wrong.
    pub fn done(&self) -> (usize, Option<HostAnomaly>) {
        match self.verdict {
            Verdict::Complete => (self.pages.len(), None),
            Verdict::Declined(done, anomaly) => (done, Some(anomaly)),
            Verdict::Broken(anomaly) => (0, Some(anomaly)),
        }
    }

    /// Bytes of all entries.
    pub fn bytes(&self) -> u64 {
        self.pages.iter().map(|(_, size)| size.bytes()).sum()
    }
}

/// A change of whole chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Addresses of the chunks, one entry each.
    pub chunks: Vec<u64>,
    /// What was asked for: 1 private, 2 shared.
    pub operation: u8,
    /// How it ended.
    pub verdict: Verdict,
    /// VMGEXITs.
    pub exits: u64,
}

/// What one reply says of the batch.
enum Reply {
    Ends(Verdict),
    GoesOn,
}

/// The next batch at the front of the events, which it takes off.
///
/// # Errors
/// Those of [`next_change`], and where the pages are no chunks.
pub fn next_batch(events: &mut &[Event]) -> Result<Batch, Violation> {
    let Change {
        pages,
        operation,
        verdict,
        exits,
    } = next_change(events)?;
    let mut chunks = Vec::new();
    for (page, size) in pages {
        require!(
            page.is_multiple_of(CHUNK) && size == PageSize::Size2M,
            "P-5.7.2: {size:?} at {page:#x} is no chunk"
        );
        chunks.push(page);
    }
    Ok(Batch {
        chunks,
        operation,
        verdict,
        exits,
    })
}

/// The next page-state change at the front of the events, which it takes off.
///
/// # Errors
/// Where the service submitted what no host would accept, went on with an ended descriptor, or gave one up early.
pub fn next_change(events: &mut &[Event]) -> Result<Change, Violation> {
    let (first_header, first_entries) = match events.first() {
        Some(Event::Psc {
            issue: Issue::First,
            submitted,
            entries,
            ..
        }) => (*submitted, entries.clone()),
        other => return Err(format!("P-5.7.5: a new descriptor, not {other:?}")),
    };
    let (pages, operation) = pages(&first_entries)?;
    require!(
        first_header.cur_entry == 0 && first_header.reserved == 0,
        "P-9.1: a fresh header, not {first_header:?}"
    );
    let mut expected = first_header;
    let mut fruitless = 0;
    let mut exits = 0;
    let verdict = loop {
        let Some((event, rest)) = events.split_first() else {
            return Err("P-9.2: an unfinished descriptor was given up".into());
        };
        let Event::Psc {
            issue,
            submitted,
            entries,
            reply,
            exit,
        } = event
        else {
            return Err(format!("P-10.2: {event:?} in the middle of a batch"));
        };
        *events = rest;
        let again = exits > 0;
        require!(
            (*issue == Issue::Again) == again && *submitted == expected,
            "P-9.2: {issue:?} {submitted:?} instead of {expected:?}"
        );
        require!(*entries == first_entries, "P-9.3: the entries changed");
        exits += 1;
        match judge(expected, *reply, *exit) {
            Reply::Ends(verdict) => break verdict,
            Reply::GoesOn if reply.cur_entry > expected.cur_entry => {
                expected.cur_entry = reply.cur_entry;
                fruitless = 0;
            }
            Reply::GoesOn => {
                fruitless += 1;
                if fruitless == MOST_FRUITLESS {
                    let done = usize::from(expected.cur_entry);
                    break Verdict::Declined(done, HostAnomaly::NoProgress);
                }
            }
        }
    };
    Ok(Change {
        pages,
        operation,
        verdict,
        exits,
    })
}

/// Clause P-9.1, in its order.
fn judge(submitted: PscHeader, reply: PscHeader, exit: PscExit) -> Reply {
    let broken = |anomaly| Reply::Ends(Verdict::Broken(anomaly));
    let after_the_last = u32::from(submitted.end_entry) + 1;
    if reply.reserved != 0 {
        return broken(HostAnomaly::ReservedNotZero);
    }
    if reply.end_entry != submitted.end_entry {
        return broken(HostAnomaly::EndEntryChanged);
    }
    if reply.cur_entry < submitted.cur_entry {
        return broken(HostAnomaly::CursorBackwards);
    }
    if u32::from(reply.cur_entry) > after_the_last {
        return broken(HostAnomaly::CursorBeyondEnd);
    }
    if exit.sw_exit_info_1 != 0 && exit.sw_exit_info_1 != 2 {
        return broken(HostAnomaly::UnknownExitStatus);
    }
    let error = exit.sw_exit_info_1 == 2 || exit.sw_exit_info_2 != 0;
    let complete = u32::from(reply.cur_entry) == after_the_last;
    match (error, complete) {
        (true, true) => broken(HostAnomaly::Contradiction),
        (true, false) => Reply::Ends(Verdict::Declined(
            usize::from(reply.cur_entry),
            HostAnomaly::Refused,
        )),
        (false, true) => Reply::Ends(Verdict::Complete),
        (false, false) => Reply::GoesOn,
    }
}

/// The pages, all with one operation.
fn pages(entries: &[PscEntry]) -> Result<(Vec<(u64, PageSize)>, u8), Violation> {
    let Some(operation) = entries.first().map(PscEntry::operation) else {
        return Err("P-9.1: a descriptor without entries".into());
    };
    for entry in entries {
        let right = entry.page().bits().is_multiple_of(entry.size().bytes())
            && entry.operation() == operation
            && entry.current_page() == 0
            && entry.reserved() == 0;
        require!(right, "P-9.1: {entry:?}");
    }
    require!(matches!(operation, 1 | 2), "P-5.7.5: operation {operation}");
    let pages = entries
        .iter()
        .map(|entry| (entry.page().bits(), entry.size()));
    Ok((pages.collect(), operation))
}
