// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service's counters, and their copy for the guest (docs/PROTOCOL.md, chapter 8).

use core::sync::atomic::{AtomicU64, Ordering};

use protocol::result::{REFUSAL_COUNTERS, refusal_index};
use protocol::statistics::{
    CALL_COUNTERS, HostAnomaly, STATISTICS_BYTES, STATISTICS_VERSION, Statistics, WindowStatistics,
};
use protocol::{Refusal, ResultRegisters};
use snp::psc::PscOperation;

use crate::pool::{Pool, Pools};
use crate::trace::Trace;

/// Counters since the start, and the newest events; they never decide anything.
#[derive(Debug)]
pub struct Counters {
    calls: [AtomicU64; CALL_COUNTERS],
    unknown_calls: AtomicU64,
    refusals: [AtomicU64; REFUSAL_COUNTERS],
    released_bytes: AtomicU64,
    acknowledged_bytes: AtomicU64,
    psc_exits: AtomicU64,
    psc_reissues: AtomicU64,
    psc_entries_shared: AtomicU64,
    psc_entries_private: AtomicU64,
    host_anomalies: [AtomicU64; HostAnomaly::ALL.len()],
    guest_page_faults: AtomicU64,
    memory_form_calls: AtomicU64,
    memory_form_refused: AtomicU64,
    trace: Trace,
}

impl Counters {
    /// All zero.
    pub fn new() -> Self {
        Self {
            calls: [const { AtomicU64::new(0) }; CALL_COUNTERS],
            unknown_calls: AtomicU64::new(0),
            refusals: [const { AtomicU64::new(0) }; REFUSAL_COUNTERS],
            released_bytes: AtomicU64::new(0),
            acknowledged_bytes: AtomicU64::new(0),
            psc_exits: AtomicU64::new(0),
            psc_reissues: AtomicU64::new(0),
            psc_entries_shared: AtomicU64::new(0),
            psc_entries_private: AtomicU64::new(0),
            host_anomalies: [const { AtomicU64::new(0) }; HostAnomaly::ALL.len()],
            guest_page_faults: AtomicU64::new(0),
            memory_form_calls: AtomicU64::new(0),
            memory_form_refused: AtomicU64::new(0),
            trace: Trace::starting_at(0),
        }
    }

    /// Goes on where a predecessor stopped: its counters, and the number of its next event.
    pub(crate) fn resumed(from: &Statistics, next_event: u64) -> Self {
        Self {
            calls: from.calls.map(AtomicU64::new),
            unknown_calls: AtomicU64::new(from.unknown_calls),
            refusals: from.refusals.map(AtomicU64::new),
            released_bytes: AtomicU64::new(from.released_bytes),
            acknowledged_bytes: AtomicU64::new(from.acknowledged_bytes),
            psc_exits: AtomicU64::new(from.psc_exits),
            psc_reissues: AtomicU64::new(from.psc_reissues),
            psc_entries_shared: AtomicU64::new(from.psc_entries_shared),
            psc_entries_private: AtomicU64::new(from.psc_entries_private),
            host_anomalies: from.host_anomalies.map(AtomicU64::new),
            guest_page_faults: AtomicU64::new(from.guest_page_faults),
            memory_form_calls: AtomicU64::new(from.memory_form_calls),
            memory_form_refused: AtomicU64::new(from.memory_form_refused),
            trace: Trace::starting_at(next_event),
        }
    }

    /// The newest events.
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// A call with this number came in, in registers or in a block.
    pub(crate) fn call(&self, number: u32) {
        let known = usize::try_from(number)
            .ok()
            .and_then(|number| self.calls.get(number));
        add(known.unwrap_or(&self.unknown_calls), 1);
    }

    /// MEMORY_FORM came in.
    pub(crate) fn memory_form(&self) {
        add(&self.memory_form_calls, 1);
    }

    /// The block of a MEMORY_FORM was not read.
    pub(crate) fn memory_form_refused(&self) {
        add(&self.memory_form_refused, 1);
    }

    /// A call was answered.
    pub(crate) fn answer(&self, answer: &Result<ResultRegisters, Refusal>) {
        if let Err(refusal) = answer {
            let counter = refusal_index(refusal.code).and_then(|index| self.refusals.get(index));
            if let Some(counter) = counter {
                add(counter, 1);
            }
        }
    }

    /// A guest gave chunks up, and the host acknowledged some of them.
    pub(crate) fn released(&self, bytes: u64, acknowledged: u64) {
        add(&self.released_bytes, bytes);
        add(&self.acknowledged_bytes, acknowledged);
    }

    /// A VMGEXIT for a page-state change came back; it may have gone on with an unfinished descriptor.
    pub(crate) fn psc_exit(&self, reissue: bool) {
        add(&self.psc_exits, 1);
        add(&self.psc_reissues, u64::from(reissue));
    }

    /// The host reported entries as done.
    pub(crate) fn psc_entries(&self, operation: PscOperation, entries: usize) {
        let counter = match operation {
            PscOperation::Shared => &self.psc_entries_shared,
            PscOperation::Private => &self.psc_entries_private,
            PscOperation::Smash | PscOperation::Unsmash => return,
        };
        add(counter, u64::try_from(entries).unwrap_or(u64::MAX));
    }

    /// The host broke a rule or declined.
    pub(crate) fn host_anomaly(&self, anomaly: HostAnomaly) {
        if let Some(counter) = self.host_anomalies.get(anomaly.index()) {
            add(counter, 1);
        }
    }

    /// A guest page faulted under the service's hands.
    pub(crate) fn guest_page_fault(&self) {
        add(&self.guest_page_faults, 1);
    }

    /// The copy a guest gets; `epoch` is 0 before the first ATTACH.
    pub fn snapshot(&self, epoch: u32, pools: &Pools<'_>) -> Statistics {
        let first = of_window(pools.first());
        let mut statistics = Statistics {
            version: STATISTICS_VERSION,
            bytes: u32::try_from(STATISTICS_BYTES).unwrap_or(0),
            epoch: epoch.into(),
            window_bytes: first.window_bytes,
            cap_bytes: first.cap_bytes,
            granted_bytes: first.granted_bytes,
            peak_granted_bytes: first.peak_granted_bytes,
            quarantined_bytes: first.quarantined_bytes,
            released_bytes: get(&self.released_bytes),
            acknowledged_bytes: get(&self.acknowledged_bytes),
            calls: [0; CALL_COUNTERS],
            unknown_calls: get(&self.unknown_calls),
            refusals: [0; REFUSAL_COUNTERS],
            psc_exits: get(&self.psc_exits),
            psc_reissues: get(&self.psc_reissues),
            psc_entries_shared: get(&self.psc_entries_shared),
            psc_entries_private: get(&self.psc_entries_private),
            host_anomalies: [0; HostAnomaly::ALL.len()],
            guest_page_faults: get(&self.guest_page_faults),
            memory_form_calls: get(&self.memory_form_calls),
            memory_form_refused: get(&self.memory_form_refused),
            second: pools.second().map(of_window).unwrap_or_default(),
        };
        get_all(&mut statistics.calls, &self.calls);
        get_all(&mut statistics.refusals, &self.refusals);
        get_all(&mut statistics.host_anomalies, &self.host_anomalies);
        statistics
    }
}

#[inline(never)]
fn of_window(pool: &Pool<'_>) -> WindowStatistics {
    let accounts = pool.accounts();
    WindowStatistics {
        window_bytes: pool.window().bytes(),
        cap_bytes: accounts.cap_bytes(),
        granted_bytes: accounts.granted_bytes(),
        peak_granted_bytes: accounts.peak_bytes(),
        quarantined_bytes: accounts.quarantined_bytes(),
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Reads several counters by one loop: an array's would be unrolled, once for each length.
#[inline(never)]
fn get_all(values: &mut [u64], counters: &[AtomicU64]) {
    for (value, counter) in values.iter_mut().zip(counters) {
        *value = get(counter);
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
