// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels that restart: no chunk is lost, none is made up.

use crate::checks::Check;
use crate::run::Outcome;

/// Crashes of a run.
const CRASHES: usize = 2;
/// Bytes that a pool at peak load holds at least.
const PEAK: u64 = 16 << 20;

/// The checks of a run with restarts.
#[must_use]
pub fn restart_checks(outcome: &Outcome) -> Vec<Check> {
    let transcript = &outcome.transcript;
    let (crashes, restarts) = (&transcript.crashes, &transcript.restarts);
    // The first kernel finds nothing; each other one what the one before it held.
    let before = std::iter::once(0).chain(crashes.iter().map(|crash| crash.granted));
    let complete = crashes.len() == CRASHES && restarts.len() == CRASHES + 1;
    let found = before
        .zip(restarts)
        .all(|(granted, restart)| restart.orphaned == granted && restart.listed == granted);
    let settled = restarts.iter().all(|restart| {
        restart.adopted + restart.released == restart.orphaned && restart.service == restart.held
    });
    let sum = |figure: fn(&crate::guest_line::Restart) -> u64| restarts.iter().map(figure).sum();
    let (adopted, released): (u64, u64) = (sum(|r| r.adopted), sum(|r| r.released));
    let host = outcome.disk_digests.as_ref().map(|host| &host.first);
    let guest = transcript.digests.get("read1");
    vec![
        Check {
            name: "kernels crash at peak load, with requests in flight",
            ok: complete
                && crashes
                    .iter()
                    .all(|one| one.granted >= PEAK && one.in_flight > 0),
            detail: format!("{crashes:?}"),
        },
        Check {
            name: "each kernel finds what the one before it held",
            ok: complete && found,
            detail: format!("{restarts:?}"),
        },
        Check {
            name: "every orphan is adopted or released, and the accounts agree",
            ok: complete && settled && adopted != 0 && released != 0,
            detail: format!(
                "{} MiB adopted, {} MiB released",
                adopted >> 20,
                released >> 20
            ),
        },
        Check {
            name: "the last kernel reads the whole disk",
            ok: guest.is_some() && guest == host,
            detail: guest.cloned().unwrap_or("no digest".into()),
        },
        Check {
            name: "at the end the service has granted what the guest holds",
            ok: transcript.service.contains_key("granted")
                && transcript.service.get("granted") == transcript.shim.get("granted"),
            detail: format!("{:?} bytes", transcript.service.get("granted")),
        },
    ]
}
