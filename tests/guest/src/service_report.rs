// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the service says of itself: its newest events and its counters.

use protocol::Request;
use protocol::response::{TraceWritten, decode_answer};
use protocol::statistics::{HostAnomaly, STATISTICS_BYTES, Statistics};
use protocol::trace::TraceRecord;
use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use test_guest::record::Record;
use test_guest::stop::Stop;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::machine::calling::Svsm;
use crate::machine::ending::fail;
use crate::machine::memory::{PAGE_BYTES, exchange_page};
use crate::machine::pass_watch::emit;

/// Events that are printed, the newest: each is a line on a slow console.
const PRINTED: u64 = 48;

/// Prints counters and events.
pub fn report(svsm: &Svsm, protocol: u32) {
    let statistics = statistics(svsm, protocol);
    for (name, value) in [
        ("granted", statistics.granted_bytes),
        ("peak-granted", statistics.peak_granted_bytes),
        ("cap", statistics.cap_bytes),
        ("quarantined", statistics.quarantined_bytes),
        ("released", statistics.released_bytes),
        ("acknowledged", statistics.acknowledged_bytes),
        ("refusals", statistics.refusals.iter().sum()),
        ("psc-exits", statistics.psc_exits),
        ("psc-reissues", statistics.psc_reissues),
        ("host-anomalies", statistics.host_anomalies.iter().sum()),
        ("guest-page-faults", statistics.guest_page_faults),
        ("memory-form", statistics.memory_form_calls),
        ("memory-form-refused", statistics.memory_form_refused),
    ] {
        emit(Record::Service { name, value });
    }
    if statistics.second.window_bytes != 0 {
        for (name, value) in [
            ("second-window", statistics.second.window_bytes),
            ("second-granted", statistics.second.granted_bytes),
            ("second-peak-granted", statistics.second.peak_granted_bytes),
        ] {
            emit(Record::Service { name, value });
        }
    }
    for (anomaly, count) in HostAnomaly::ALL.into_iter().zip(statistics.host_anomalies) {
        if count != 0 {
            emit(Record::Service {
                name: anomaly_name(anomaly),
                value: count,
            });
        }
    }
    // From a number that is yet to come: nothing is written, and the next number is told.
    let end = trace(svsm, protocol, u64::MAX).next;
    let mut next = end.saturating_sub(PRINTED);
    while next < end {
        let written = trace(svsm, protocol, next);
        let mut page = [0; PAGE_BYTES];
        exchange_page().read(&mut page);
        let bytes = usize::try_from(written.bytes).unwrap_or(0).min(PAGE_BYTES);
        for record in page[..bytes].chunks_exact(size_of::<TraceRecord>()) {
            if let Ok(record) = TraceRecord::read_from_bytes(record) {
                emit(Record::Trace(record));
            }
        }
        if written.next <= next {
            break;
        }
        next = written.next;
    }
}

/// P-8.5.
const fn anomaly_name(anomaly: HostAnomaly) -> &'static str {
    match anomaly {
        HostAnomaly::Refused => "host-declined",
        HostAnomaly::NoProgress => "host-no-progress",
        HostAnomaly::ReservedNotZero => "host-reserved-word",
        HostAnomaly::EndEntryChanged => "host-last-entry",
        HostAnomaly::CursorBackwards => "host-cursor-backwards",
        HostAnomaly::CursorBeyondEnd => "host-cursor-beyond-end",
        HostAnomaly::Contradiction => "host-contradiction",
        HostAnomaly::UnknownExitStatus => "host-exit-status",
    }
}

fn statistics(svsm: &Svsm, protocol: u32) -> Statistics {
    let request = Request::Statistics {
        buffer: GuestPhysicalAddress::new(exchange_page().address()),
        bytes: STATISTICS_BYTES,
    };
    let answer = svsm.call(request.encode(protocol));
    if !matches!(answer.as_ref().map(decode_answer), Some(Ok(_))) {
        fail(Stop::Trace, format_args!("STATISTICS: {answer:?}"));
    }
    let mut statistics = Statistics::new_zeroed();
    exchange_page().read(statistics.as_mut_bytes());
    statistics
}

fn trace(svsm: &Svsm, protocol: u32, from: u64) -> TraceWritten {
    let request = Request::Trace {
        buffer: GuestPhysicalAddress::new(exchange_page().address()),
        bytes: PAGE_SIZE,
        from,
    };
    let answer = svsm.call(request.encode(protocol));
    let written = answer.as_ref().map(decode_answer);
    match written.map(|written| written.map(TraceWritten::decode)) {
        Some(Ok(Ok(written))) => written,
        _ => fail(Stop::Trace, format_args!("TRACE: {answer:?}")),
    }
}
