// SPDX-License-Identifier: MIT OR Apache-2.0
//! LIST_GRANTED, STATISTICS and TRACE: what is written into a guest's page (chapters 7, 8 and 12).

use std::collections::BTreeMap;

use protocol::list::{GrantedRun, ListHeader};
use protocol::trace::TraceRecord;
use snp::address::PageSize;
use snp::svsm::ResultCode;
use svsm_swiotlb::page_state::PageState;
use zerocopy::{FromBytes, IntoBytes};

use super::{Answer, refused, results};
use crate::asked::CHUNK;
use crate::state::{Chunk, Model};
use crate::{Event, Violation, require};

const PAGE: u64 = 4096;
const HEADER: u64 = 8;
const ENTRY: u64 = 24;
/// Bytes of a record (clause P-12.1).
const RECORD: u64 = 32;
/// Chunk records that one call looks at (clause P-6.5).
const WORK_UNITS: usize = 4096;

/// What the writes of a call leave behind.
pub(super) struct Written {
    pub bytes: BTreeMap<u64, u8>,
    pub faulted: bool,
}

impl Written {
    /// `bytes` bytes from `at` on, if each was written.
    fn get<T: FromBytes + IntoBytes>(&self, at: u64) -> Option<T> {
        let mut value = T::new_zeroed();
        for (address, byte) in (at..).zip(value.as_mut_bytes()) {
            *byte = *self.bytes.get(&address)?;
        }
        Some(value)
    }
}

impl Model {
    pub(super) fn list_granted(&mut self, list: u64, events: &mut &[Event]) -> Answer {
        if let Some(code) = self.no_structure(list) {
            return refused(code);
        }
        let header = read(list, HEADER, events)?;
        let header = header.and_then(|bytes| ListHeader::read_from_bytes(&bytes).ok());
        let Some(header) = header else {
            return self.faulted(list);
        };
        let end = list % PAGE + HEADER + ENTRY * u64::from(header.capacity);
        let cursor = usize::try_from(header.cursor).unwrap_or(usize::MAX);
        if header.capacity == 0 || end > PAGE || cursor > self.shape.all_chunks() {
            return refused(ResultCode::INVALID_PARAMETER); // P-7.4
        }
        let written = writes(list, list - list % PAGE + end, events)?;
        if written.faulted {
            return self.faulted(list);
        }
        let Some(out) = written.get::<ListHeader>(list) else {
            return Err("P-7.1: the header was not written".into());
        };
        let next = usize::try_from(out.cursor).unwrap_or(usize::MAX);
        let stop = self.shape.all_chunks().min(cursor + WORK_UNITS);
        require!(
            out.capacity == header.capacity && out.written <= header.capacity,
            "P-7.1: {out:?} for {header:?}"
        );
        require!(
            next <= stop && (next > cursor || cursor == self.shape.all_chunks()),
            "P-7.3: from {cursor} to {next} of {}",
            self.shape.all_chunks()
        );
        self.check_runs(list, &out, &written, cursor..next)?;
        let whole = HEADER + ENTRY * u64::from(out.written);
        require!(
            written.bytes.len() as u64 == whole,
            "P-7.1: {} bytes written instead of {whole}",
            written.bytes.len()
        );
        // Full or out of work: there is no other reason to stop.
        require!(
            next == stop || out.written == out.capacity,
            "P-5.3.1: stopped at {next} without a reason"
        );
        if next < self.shape.all_chunks() {
            refused(ResultCode::INCOMPLETE)
        } else {
            Ok(Ok(results(0, 0, 0)))
        }
    }

    /// P-7.2: the entries are the held chunks of the range, each once.
    fn check_runs(
        &self,
        list: u64,
        out: &ListHeader,
        written: &Written,
        range: std::ops::Range<usize>,
    ) -> Result<(), Violation> {
        let mut listed = vec![Chunk::Free; self.shape.all_chunks()];
        for number in 0..u64::from(out.written) {
            let at = list + HEADER + ENTRY * number;
            let Some(run) = written.get::<GrantedRun>(at) else {
                return Err(format!("P-7.1: entry {number} was not written"));
            };
            require!(
                run.base.is_multiple_of(CHUNK) && run.bytes.is_multiple_of(CHUNK) && run.bytes > 0,
                "P-7.2: {run:?}"
            );
            let Some(chunks) = self.shape.chunks_at(run.base, run.bytes / CHUNK) else {
                return Err(format!("P-7.2: {run:?} lies in no window"));
            };
            for chunk in chunks {
                require!(
                    range.contains(&chunk) && listed[chunk] == Chunk::Free,
                    "P-7.2: {run:?} twice, or not in {range:?}"
                );
                listed[chunk] = Chunk::Held {
                    epoch: run.epoch,
                    generation: run.generation,
                };
            }
        }
        for chunk in range {
            let held = matches!(self.chunks[chunk], Chunk::Held { .. });
            let expected = if held {
                self.chunks[chunk]
            } else {
                Chunk::Free
            };
            require!(
                listed[chunk] == expected,
                "P-7.2: chunk {chunk} listed as {:?}, is {expected:?}",
                listed[chunk]
            );
        }
        Ok(())
    }

    pub(super) fn write_statistics(
        &mut self,
        buffer: u64,
        room: u64,
        events: &mut &[Event],
    ) -> Answer {
        if let Some(code) = self.no_structure(buffer) {
            return refused(code);
        }
        let statistics = self.statistics();
        let length = room.min(560); // P-8.1
        let written = writes(buffer, buffer + length, events)?;
        if written.faulted {
            return self.faulted(buffer);
        }
        let expected: BTreeMap<u64, u8> = (buffer..buffer + length)
            .zip(statistics.as_bytes().iter().copied())
            .collect();
        require!(
            written.bytes == expected,
            "P-8.2: the counters written are not {statistics:?}"
        );
        Ok(Ok(results(length, 0, 0)))
    }

    /// P-5.11.2: records in their order, from `from` or the oldest on; a number not yet given writes nothing.
    pub(super) fn write_trace(
        &mut self,
        buffer: u64,
        room: u64,
        from: u64,
        events: &mut &[Event],
    ) -> Answer {
        if let Some(code) = self.no_structure(buffer) {
            return refused(code);
        }
        let oldest = self.oldest_event();
        let first = from.clamp(oldest, self.next_event);
        // There are no gaps (P-12.3), unless processors raced before this was judged.
        let records = self.trace.iter().filter(|record| record.sequence >= first);
        let fits = usize::try_from(room / RECORD).unwrap_or(usize::MAX);
        let records: Vec<TraceRecord> = records.take(fits).copied().collect();
        let last = match records.last() {
            Some(last) if records.len() == fits => last.sequence + 1,
            _ => self.next_event,
        };
        let length = RECORD * records.len() as u64;
        let bytes = records.as_bytes().iter().copied();
        let expected: BTreeMap<u64, u8> = (buffer..).zip(bytes).collect();
        let written = writes(buffer, buffer + length, events)?;
        let right = |(at, byte)| expected.get(at) == Some(byte);
        require!(
            written.bytes.iter().all(right)
                && (written.faulted || written.bytes.len() == expected.len()),
            "P-12.1: the records written are not {records:?}"
        );
        if written.faulted {
            return self.faulted(buffer);
        }
        Ok(Ok(results(length, last, oldest)))
    }

    /// P-7.5
    pub(super) fn no_structure(&self, address: u64) -> Option<ResultCode> {
        match self.page(address) {
            Some(PageState::Valid) => None,
            Some(PageState::CallingArea) if self.calling_area == Some(address - address % PAGE) => {
                None
            }
            Some(PageState::Busy) => Some(ResultCode::BUSY),
            _ => Some(ResultCode::INVALID_ADDRESS),
        }
    }

    /// P-7.6
    pub(super) fn faulted(&mut self, address: u64) -> Answer {
        self.lose_structure(address);
        refused(ResultCode::INVALID_ADDRESS)
    }

    /// A page that faulted is counted, quarantined, and an event.
    pub(super) fn lose_structure(&mut self, address: u64) {
        let page = address - address % PAGE;
        self.counters.guest_page_faults += 1;
        self.put((page, PageSize::Size4K), PageState::Quarantined);
        self.note_quarantined_page(page, PAGE);
    }
}

/// P-7.6: bytes that are fetched once, next; none after a fault.
pub(super) fn read(
    at: u64,
    length: u64,
    events: &mut &[Event],
) -> Result<Option<Vec<u8>>, Violation> {
    match events.split_first() {
        Some((Event::Read(from, bytes, seen), rest)) if *from == at && *bytes as u64 == length => {
            *events = rest;
            Ok(seen.clone())
        }
        other => Err(format!(
            "P-7.6: {length} bytes fetched at {at:#x}, not {:x?}",
            other.map(|(event, _)| event)
        )),
    }
}

/// Takes the writes off the events; all of them lie in `[start, end)`, and a fault ends them.
pub(super) fn writes(start: u64, end: u64, events: &mut &[Event]) -> Result<Written, Violation> {
    let mut written = Written {
        bytes: BTreeMap::new(),
        faulted: false,
    };
    while let Some((Event::Write(at, bytes, faulted), rest)) = events.split_first() {
        require!(!written.faulted, "P-7.6: an access after a fault");
        require!(
            *at >= start && at + bytes.len() as u64 <= end,
            "C2: {} bytes written at {at:#x}, outside {start:#x} to {end:#x}",
            bytes.len()
        );
        *events = rest;
        written.faulted = *faulted;
        written.bytes.extend((*at..).zip(bytes.iter().copied()));
    }
    Ok(written)
}
