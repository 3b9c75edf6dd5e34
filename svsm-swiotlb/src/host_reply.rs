// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asking the host for page-state changes, and how far its replies are believed (GHCB specification 4.1.6, invariant P4).
//!
//! A reply is believed as far as it keeps the rules. One that keeps them and reports an error is a refusal: the cursor says
//! how far the host came. One that breaks them says nothing about any page of the batch, not even of those an earlier
//! reply called done. Success is never proof: the window's pages are not validated, so nothing depends on it but the
//! guest's own I/O.

use protocol::statistics::HostAnomaly;
use protocol::trace::TraceKind;
use snp::address::{GuestPhysicalAddress, PageSize};
use snp::psc::{PscDescriptor, PscEntry, PscHeader, PscOperation};

use crate::platform::{HostPages, Issue, PscExit};
use crate::pool::{BATCH_CHUNKS, InTransit, chunk_bytes};
use crate::statistics::Counters;
use crate::trace::Event;

/// VMGEXITs in a row that leave the cursor where it is, of which the last is one too many (clause P-9.2). A host may
/// return early, for an interrupt say, but one that returns for ever would keep the calling processor at VMPL0.
///
/// The cursor counts entries; what a host did inside one is in the buffer's entries, which are not read. So the bound
/// asks for a pace: 32 pages of 4 KiB per VMGEXIT finish a 2 MiB entry in 16.
pub const MAX_FRUITLESS_EXITS: usize = 16;

/// SW_EXITINFO1 when the host found the request malformed (GHCB specification, 4.1).
const EXIT_STATUS_MALFORMED: u64 = 2;

/// How a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchEnd {
    /// The host reports every chunk as done.
    Complete,
    /// The host declined in good order after this many chunks.
    Refused {
        /// Chunks from the start of the run that it reports as done.
        done: usize,
    },
    /// A reply broke the rules: the state of every chunk of the batch is unknown.
    Misbehaved,
}

/// What one reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// All entries done.
    Complete,
    /// Not finished; go on at this entry.
    GoOn(u16),
    /// An error, in good order, at this entry.
    Refused(u16),
    /// The rules are broken.
    Broken(HostAnomaly),
}

/// Judges one reply against what was submitted. Both headers are the service's own copies.
pub fn judge(submitted: PscHeader, reply: PscHeader, exit: PscExit) -> Reply {
    // The header first: a cursor that breaks the rules is not believed, whatever the status says.
    if reply.reserved != 0 {
        return Reply::Broken(HostAnomaly::ReservedNotZero);
    }
    // A larger one would claim entries that nobody asked for; a smaller one would call a part of the batch the whole.
    if reply.end_entry != submitted.end_entry {
        return Reply::Broken(HostAnomaly::EndEntryChanged);
    }
    if reply.cur_entry < submitted.cur_entry {
        return Reply::Broken(HostAnomaly::CursorBackwards);
    }
    if reply.cur_entry > submitted.end_entry.saturating_add(1) {
        return Reply::Broken(HostAnomaly::CursorBeyondEnd);
    }
    let complete = reply.cur_entry > submitted.end_entry;
    let failed = match exit.sw_exit_info_1 {
        0 => exit.sw_exit_info_2 != 0,
        EXIT_STATUS_MALFORMED => true,
        // Status 1 asks for an exception: legal for other exits, senseless for a request that VMPL0 made itself.
        // The upper half is no status at all, so a reply with one is not understood.
        _ => return Reply::Broken(HostAnomaly::UnknownExitStatus),
    };
    match (failed, complete) {
        (true, true) => Reply::Broken(HostAnomaly::Contradiction),
        (true, false) => Reply::Refused(reply.cur_entry),
        (false, true) => Reply::Complete,
        (false, false) => Reply::GoOn(reply.cur_entry),
    }
}

/// Why the host did not finish a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// It declined in good order: the entries before this one are done.
    Declined(u16, HostAnomaly),
    /// It broke this rule: the state of every entry is unknown.
    Broken(HostAnomaly),
}

/// Issues the first `end_entry + 1` entries of `descriptor`, again and again until the host reports them done.
///
/// `exited` runs after each VMGEXIT. There are at most [`MAX_FRUITLESS_EXITS`] of them per entry.
///
/// # Errors
/// Where and why the host stopped for good.
pub fn submit<P: HostPages>(
    host: &P,
    descriptor: &mut PscDescriptor,
    end_entry: u16,
    mut exited: impl FnMut(Issue),
) -> Result<(), Shortfall> {
    let mut submitted = PscHeader {
        cur_entry: 0,
        end_entry,
        reserved: 0,
    };
    let mut issue = Issue::First;
    let mut fruitless = 0_usize;
    while fruitless < MAX_FRUITLESS_EXITS {
        descriptor.header = submitted;
        let exit = host.page_state_change(descriptor, issue);
        exited(issue);
        issue = Issue::Again;
        match judge(submitted, descriptor.header, exit) {
            Reply::Complete => return Ok(()),
            Reply::GoOn(entry) if entry > submitted.cur_entry => {
                submitted.cur_entry = entry;
                fruitless = 0;
            }
            Reply::GoOn(_) => fruitless = fruitless.saturating_add(1),
            Reply::Refused(entry) => {
                return Err(Shortfall::Declined(entry, HostAnomaly::Refused));
            }
            Reply::Broken(anomaly) => return Err(Shortfall::Broken(anomaly)),
        }
    }
    Err(Shortfall::Declined(
        submitted.cur_entry,
        HostAnomaly::NoProgress,
    ))
}

/// Asks the host to make every chunk of `run` shared or private: one entry per chunk, one descriptor per
/// [`BATCH_CHUNKS`], as many VMGEXITs for each as [`submit`] allows.
///
/// More than one descriptor is needed only where an integrator lifted the bound on a call. The first that the host does
/// not finish is the last; a reply that breaks the rules makes the state of all of them unknown.
pub fn change_batch<P: HostPages>(
    host: &P,
    counters: &Counters,
    run: &impl InTransit,
    operation: PscOperation,
) -> BatchEnd {
    let chunks = run.chunks();
    let mut descriptor = PscDescriptor::new();
    let mut done = 0_usize;
    while done < chunks {
        let count = chunks.saturating_sub(done).min(BATCH_CHUNKS);
        let Some(end_entry) = fill(&mut descriptor, run, done, count, operation) else {
            return BatchEnd::Refused { done };
        };
        let exited = |issue| counters.psc_exit(issue == Issue::Again);
        let shortfall = submit(host, &mut descriptor, end_entry, exited).err();
        let (entries, anomaly) = match shortfall {
            None => (count, None),
            Some(Shortfall::Declined(entry, anomaly)) => (usize::from(entry), Some(anomaly)),
            Some(Shortfall::Broken(anomaly)) => (0, Some(anomaly)),
        };
        counters.psc_entries(operation, entries);
        if let Some(anomaly) = anomaly {
            counters.host_anomaly(anomaly);
            counters.trace().note(&Event {
                kind: TraceKind::HostAnomaly,
                code: operation as u16,
                detail: anomaly as u32,
                address: run.address(done).map_or(0, GuestPhysicalAddress::bits),
                bytes: chunk_bytes(count),
            });
        }
        done = done.saturating_add(entries);
        match shortfall {
            None => {}
            Some(Shortfall::Declined(..)) => return BatchEnd::Refused { done },
            Some(Shortfall::Broken(_)) => return BatchEnd::Misbehaved,
        }
    }
    if chunks == 0 {
        // An empty run cannot be reserved; asking the host for nothing is refused.
        return BatchEnd::Refused { done: 0 };
    }
    BatchEnd::Complete
}

/// Writes one 2 MiB entry for each of `count` chunks from the nth on; the index of the last one, unless there is none or
/// too many.
fn fill(
    descriptor: &mut PscDescriptor,
    run: &impl InTransit,
    nth: usize,
    count: usize,
    operation: PscOperation,
) -> Option<u16> {
    let last = count.checked_sub(1)?;
    let entries = descriptor.entries.get_mut(..=last)?;
    let mut chunk = nth;
    for entry in entries {
        *entry = PscEntry::request(run.address(chunk)?, PageSize::Size2M, operation);
        chunk = chunk.saturating_add(1);
    }
    u16::try_from(last).ok()
}

#[cfg(test)]
mod tests;
