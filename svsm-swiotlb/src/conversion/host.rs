// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page-state change of a batch.

use protocol::statistics::HostAnomaly;
use protocol::trace::TraceKind;
use snp::psc::{PscDescriptor, PscEntry, PscOperation};

use super::batch::Batch;
use crate::host_reply::{Shortfall, submit};
use crate::platform::{HostPages, Issue};
use crate::statistics::Counters;
use crate::trace::Event;

/// What the host did with the live entries of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It reports so many of them, from the first on, as done.
    Done(usize),
    /// Its reply broke the rules: nothing is known of any of them.
    Broken,
}

/// Asks the host for every live entry of a batch, by one descriptor; not at all if there is none.
pub(super) fn ask<P: HostPages>(
    host: &P,
    counters: &Counters,
    batch: &Batch<'_>,
    operation: PscOperation,
) -> Asked {
    let mut descriptor = PscDescriptor::new();
    let mut count = 0_usize;
    for (entry, item) in descriptor.entries.iter_mut().zip(batch.live()) {
        *entry = PscEntry::request(item.page, item.size, operation);
        count = count.saturating_add(1);
    }
    let last = count.checked_sub(1).and_then(|last| last.try_into().ok());
    let Some(end_entry) = last else {
        return Asked::Done(0);
    };
    let exited = |issue| counters.psc_exit(issue == Issue::Again);
    match submit(host, &mut descriptor, end_entry, exited) {
        Ok(()) => {
            counters.psc_entries(operation, count);
            Asked::Done(count)
        }
        Err(Shortfall::Declined(entry, anomaly)) => {
            let done = usize::from(entry);
            counters.psc_entries(operation, done);
            note(counters, batch, operation, anomaly);
            Asked::Done(done)
        }
        Err(Shortfall::Broken(anomaly)) => {
            note(counters, batch, operation, anomaly);
            Asked::Broken
        }
    }
}

/// Counts and traces what the host did wrong.
fn note(counters: &Counters, batch: &Batch<'_>, operation: PscOperation, anomaly: HostAnomaly) {
    counters.host_anomaly(anomaly);
    let first = batch.live().next().map_or(0, |item| item.page.bits());
    let bytes = batch
        .live()
        .fold(0_u64, |sum, item| sum.saturating_add(item.size.bytes()));
    counters.trace().note(&Event {
        kind: TraceKind::HostAnomaly,
        code: operation as u16,
        detail: anomaly as u32,
        address: first,
        bytes,
    });
}
