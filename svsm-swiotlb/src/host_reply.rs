// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asking the host for page-state changes, and how far its replies are believed (GHCB specification 4.1.6, invariant P4).
//!
//! A reply is believed as far as it keeps the rules. One that keeps them and reports an error is a refusal: the cursor says
//! how far the host came. One that breaks them says nothing about any page of the batch, not even of those an earlier
//! reply called done. Success is never proof: the window's pages are not validated, so nothing depends on it but the
//! guest's own I/O.

use protocol::statistics::HostAnomaly;
use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PageSize};
use snp::psc::{PscDescriptor, PscEntry, PscHeader, PscOperation};

use crate::platform::{HostPages, PscExit};
use crate::pool::TransitRun;
use crate::statistics::Counters;

/// VMGEXITs without progress that one batch puts up with. A host may return early, for an interrupt say, but one that
/// returns for ever would keep the calling processor at VMPL0.
pub const MAX_FRUITLESS_EXITS: usize = 16;

/// SW_EXITINFO1 when the host found the request malformed (GHCB specification, 4.1).
const EXIT_STATUS_MALFORMED: u64 = 2;
/// SW_EXITINFO1\[31:0\] carries the status.
const EXIT_STATUS_MASK: u64 = 0xFFFF_FFFF;

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
    let failed = match exit.sw_exit_info_1 & EXIT_STATUS_MASK {
        0 => exit.sw_exit_info_2 != 0,
        EXIT_STATUS_MALFORMED => true,
        // Status 1 asks for an exception: legal for other exits, senseless for a request that VMPL0 made itself.
        _ => return Reply::Broken(HostAnomaly::UnknownExitStatus),
    };
    match (failed, complete) {
        (true, true) => Reply::Broken(HostAnomaly::Contradiction),
        (true, false) => Reply::Refused(reply.cur_entry),
        (false, true) => Reply::Complete,
        (false, false) => Reply::GoOn(reply.cur_entry),
    }
}

/// Asks the host to make every chunk of `run` shared or private: one entry per chunk, as many VMGEXITs as it takes.
///
/// Returns after at most one VMGEXIT per entry and [`MAX_FRUITLESS_EXITS`] more.
pub fn change_batch<P: HostPages>(
    host: &P,
    counters: &Counters,
    run: &TransitRun<'_>,
    operation: PscOperation,
) -> BatchEnd {
    let mut descriptor = PscDescriptor::new();
    let Some(end_entry) = fill(&mut descriptor, run, operation) else {
        // An empty run or one beyond a batch cannot be reserved; asking the host for nothing is refused.
        return BatchEnd::Refused { done: 0 };
    };
    let mut submitted = PscHeader {
        cur_entry: 0,
        end_entry,
        reserved: 0,
    };
    let mut fruitless = 0_usize;
    while fruitless < MAX_FRUITLESS_EXITS {
        descriptor.header = submitted;
        let exit = host.page_state_change(&mut descriptor);
        counters.psc_exit(submitted.cur_entry != 0 || fruitless != 0);
        match judge(submitted, descriptor.header, exit) {
            Reply::Complete => {
                counters.psc_entries(operation, run.chunks());
                return BatchEnd::Complete;
            }
            Reply::GoOn(entry) if entry > submitted.cur_entry => submitted.cur_entry = entry,
            Reply::GoOn(_) => fruitless = fruitless.saturating_add(1),
            Reply::Refused(entry) => {
                return refused(counters, operation, entry, HostAnomaly::Refused);
            }
            Reply::Broken(anomaly) => {
                counters.host_anomaly(anomaly);
                return BatchEnd::Misbehaved;
            }
        }
    }
    refused(
        counters,
        operation,
        submitted.cur_entry,
        HostAnomaly::NoProgress,
    )
}

fn refused(
    counters: &Counters,
    operation: PscOperation,
    entry: u16,
    anomaly: HostAnomaly,
) -> BatchEnd {
    let done = usize::from(entry);
    counters.psc_entries(operation, done);
    counters.host_anomaly(anomaly);
    BatchEnd::Refused { done }
}

/// Writes one 2 MiB entry per chunk; the index of the last one, unless there is none or too many.
fn fill(
    descriptor: &mut PscDescriptor,
    run: &TransitRun<'_>,
    operation: PscOperation,
) -> Option<u16> {
    let last = run.chunks().checked_sub(1)?;
    let entries = descriptor.entries.get_mut(..=last)?;
    let mut page = run.base().bits();
    for entry in entries {
        let address = GuestPhysicalAddress::new(page);
        *entry = PscEntry::request(address, PageSize::Size2M, operation);
        page = page.checked_add(LARGE_PAGE_SIZE)?;
    }
    u16::try_from(last).ok()
}

#[cfg(test)]
mod tests;
