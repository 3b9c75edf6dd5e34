// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this paravisor makes of the service's statistics.

use protocol::statistics::{HostAnomaly, Statistics};

/// Something an operator wants to know, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The host broke the rules of page-state changes this often; pool memory was quarantined for it.
    HostBrokeRules(u64),
    /// Pages of the guest faulted under our hands: guest or host changed their state behind our back.
    GuestPagesLost(u64),
    /// The host declined this often; the guest's mappings fail or wait.
    HostDeclined(u64),
}

// [watch]
/// The worst of what happened between two looks at the counters; they run on and wrap.
pub fn alarm(before: &Statistics, now: &Statistics) -> Option<Alarm> {
    let anomalies = |wanted: fn(&HostAnomaly) -> bool| {
        let of = |anomaly: &HostAnomaly| {
            let count = |statistics: &Statistics| {
                let counter = statistics.host_anomalies.get(anomaly.index());
                counter.copied().unwrap_or(0)
            };
            count(now).wrapping_sub(count(before))
        };
        HostAnomaly::ALL
            .iter()
            .filter(|anomaly| wanted(anomaly))
            .map(of)
            .sum::<u64>()
    };
    let declined =
        |anomaly: &HostAnomaly| matches!(anomaly, HostAnomaly::Refused | HostAnomaly::NoProgress);
    let lost = now.guest_page_faults.wrapping_sub(before.guest_page_faults);
    let broken =
        anomalies(|anomaly| !matches!(anomaly, HostAnomaly::Refused | HostAnomaly::NoProgress));
    match (broken, lost, anomalies(declined)) {
        (1.., _, _) => Some(Alarm::HostBrokeRules(broken)),
        (0, 1.., _) => Some(Alarm::GuestPagesLost(lost)),
        (0, 0, count @ 1..) => Some(Alarm::HostDeclined(count)),
        (0, 0, 0) => None,
    }
}
// [end]
