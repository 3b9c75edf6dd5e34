// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has to hold for a run to be a success.

use paravisor::termination::{GUEST_REASON_SET, REASON_SET, describe};
use serde::Serialize;

use crate::device_checks::device_checks;
use crate::expectation::Expectation;
use crate::follow::End;
use crate::host_record::Termination;
use crate::own_conversions;
use crate::own_tables;
use crate::pool_story::PoolStory;
use crate::restart_checks::restart_checks;
use crate::run::Outcome;
use crate::steady_state::SteadyState;
use crate::transcript::Transcript;

/// One promise and whether it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was promised.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// The numbers behind it.
    pub detail: String,
}

/// Fewest growths of a run that reads a whole disk.
const FEWEST_GROWTHS: u64 = 3;

/// Why the run is no run to check: the guest, the paravisor or the machine died or hung. `None` when
/// it came to the end that was expected.
#[must_use]
pub fn death(outcome: &Outcome) -> Option<String> {
    let transcript = &outcome.transcript;
    match &outcome.expectation {
        Expectation::Nothing if transcript.host_booted => return None,
        // Another end than the expected one is a failed check, not a death, as long as it is an end.
        Expectation::Termination { .. } if transcript.termination.is_some() => return None,
        Expectation::Violation(_) if transcript.violation.is_some() => return None,
        _ => {}
    }
    if let Some(report) = transcript.violation.as_ref().or(transcript.died.as_ref()) {
        return Some(format!("the machine stopped: {report}"));
    }
    if let Some(termination) = transcript.termination {
        let success = Termination {
            vmpl: termination.vmpl,
            set: u64::from(GUEST_REASON_SET),
            reason: 0,
        };
        // A guest that finds something wrong says so before it ends itself; the checks name it.
        let named = termination.set == success.set && transcript.done == Some(false);
        if termination != success && !named {
            return Some(explain(termination));
        }
    }
    match outcome.end {
        End::TooLong => Some("the time limit (--timeout) ended the run".into()),
        End::Silent => Some("nothing was said for too long (--idle): the guest hangs".into()),
        End::Ended(status) if transcript.exit_code.is_none() => Some(format!(
            "the machine died (QEMU ended with status {status})"
        )),
        End::Ended(_) if transcript.termination.is_none() => {
            Some("the machine ended although the guest had not".into())
        }
        End::Ended(_) => None,
    }
}

/// A termination request in words.
#[must_use]
pub fn explain(termination: Termination) -> String {
    let Termination { vmpl, set, reason } = termination;
    let request = format!("VMPL{vmpl} ended the VM with reason {set:#x}:{reason:#x}");
    match u8::try_from(reason) {
        Ok(code) if set == u64::from(REASON_SET) => format!("{request}: {}", describe(code)),
        _ if set == u64::from(GUEST_REASON_SET) => format!("{request}: the guest gave up"),
        _ => request,
    }
}

/// Checks a run that came to its end.
#[must_use]
pub fn checks(outcome: &Outcome) -> Vec<Check> {
    let transcript = &outcome.transcript;
    let mut list = Vec::new();
    match &outcome.expectation {
        Expectation::Nothing => return list,
        Expectation::Termination { set, reason } => {
            let found = transcript.termination;
            list.push(Check {
                name: "the guest ends itself as expected",
                ok: found.is_some_and(|found| (found.set, found.reason) == (*set, *reason)),
                detail: found.map_or("it does not".into(), explain),
            });
            return list;
        }
        Expectation::Violation(text) => {
            let found = transcript.violation.clone().unwrap_or_default();
            list.push(Check {
                name: "the machine reports the expected violation",
                ok: found.contains(text),
                detail: found,
            });
            return list;
        }
        _ => {}
    }
    list.push(Check {
        name: "the guest finds nothing wrong",
        ok: transcript.done == Some(true),
        detail: match transcript.done {
            Some(true) => "done".into(),
            Some(false) => last_complaint(transcript).unwrap_or("it says so at its end".into()),
            None => "no @done line".into(),
        },
    });
    list.push(format(outcome));
    list.push(pattern(outcome));
    if outcome.window_bytes.is_some() {
        list.push(own_tables::check(outcome));
    }
    if outcome.expectation.self_test() {
        list.push(self_test(outcome));
        list.push(own_conversions::check(outcome));
    }
    if outcome.expectation == Expectation::Restart {
        list.extend(restart_checks(outcome));
    }
    if outcome.expectation.disk() {
        list.extend(disk(outcome));
        list.extend(device_checks(outcome));
    }
    list
}

/// What the guest said last, for people, before its verdict.
fn last_complaint(transcript: &Transcript) -> Option<String> {
    let mut lines = transcript.last_console.iter().rev();
    lines
        .find_map(|line| line.strip_prefix("guest: "))
        .map(str::to_owned)
}

fn self_test(outcome: &Outcome) -> Check {
    let tests = &outcome.transcript.self_tests;
    let bad: Vec<_> = tests.iter().filter(|test| !test.ok).collect();
    Check {
        name: "every wrong call gets its documented code",
        ok: !tests.is_empty() && bad.is_empty(),
        detail: match bad.first() {
            None => format!("{} cases", tests.len()),
            Some(first) => format!(
                "{} of {} wrong, first: {} expected {} got {}",
                bad.len(),
                tests.len(),
                first.name,
                first.expected,
                first.got
            ),
        },
    }
}

/// Every record and every line of the guest's that is for us could be read.
#[must_use]
pub fn format(outcome: &Outcome) -> Check {
    let broken = &outcome.transcript.broken;
    Check {
        name: "records and console lines keep their format",
        ok: broken.is_empty(),
        detail: match broken.first() {
            None => "all".into(),
            Some(first) => format!("{} broken, first: {first}", broken.len()),
        },
    }
}

/// Nobody wrote to a page that is not shared through its shared view.
#[must_use]
pub fn pattern(outcome: &Outcome) -> Check {
    let counters = outcome.transcript.newest().map(|newest| &newest.counters);
    let value = |name: &str| counters.and_then(|counters| counters.get(name)).copied();
    let (checked, bad) = (value("pattern.checked"), value("pattern.bad"));
    let clean = bad.unwrap_or(0) == 0 && outcome.transcript.patterns.is_empty();
    Check {
        name: "no page that is not shared was written from outside",
        ok: clean && (checked.unwrap_or(0) != 0 || !outcome.pattern_in_use),
        detail: match outcome.transcript.patterns.first() {
            Some(first) => first.clone(),
            None => format!(
                "{} pages checked, {} differ",
                checked.unwrap_or(0),
                bad.unwrap_or(0)
            ),
        },
    }
}

fn disk(outcome: &Outcome) -> Vec<Check> {
    let transcript = &outcome.transcript;
    let mut list = Vec::new();
    let host = outcome.disk_digests.as_ref();
    for (name, phase) in [
        ("the first read's digest matches", "read1"),
        ("the second read's digest matches", "read2"),
        ("the read-back of the second disk matches", "verify"),
    ] {
        let guest = transcript.digests.get(phase);
        list.push(Check {
            name,
            ok: guest.is_some() && guest == host.map(|host| &host.first),
            detail: guest.cloned().unwrap_or("no digest".into()),
        });
    }
    list.push(Check {
        name: "the second disk holds the first one's bytes",
        ok: host.is_some_and(|host| host.first == host.second),
        detail: host.map_or("no disk".into(), |host| host.second.clone()),
    });

    let story = PoolStory::of(transcript);
    list.push(Check {
        name: "the pool grows at least three times",
        ok: story.growths >= FEWEST_GROWTHS && story.shared >= story.peak - story.start,
        detail: format!(
            "{} growths, {} MiB shared by the host",
            story.growths,
            story.shared >> 20
        ),
    });
    list.push(Check {
        name: "chunks are given back at the end",
        ok: story.given_back != 0 && story.freed != 0,
        detail: format!(
            "{} MiB given back, {} MiB taken by the host",
            story.given_back >> 20,
            story.freed >> 20
        ),
    });
    let steady = SteadyState::of(transcript);
    list.push(Check {
        name: "no SVSM call in steady state",
        ok: steady.as_ref().is_some_and(|steady| steady.svsm_calls == 0),
        detail: steady
            .as_ref()
            .map_or("markers 1 and 2 are missing".into(), |steady| {
                format!("{} calls", steady.svsm_calls)
            }),
    });
    list.push(Check {
        name: "no page conversion in steady state",
        ok: steady
            .as_ref()
            .is_some_and(|steady| steady.conversions == 0),
        detail: steady
            .as_ref()
            .map_or("markers 1 and 2 are missing".into(), |steady| {
                format!("{} conversions", steady.conversions)
            }),
    });
    list
}
