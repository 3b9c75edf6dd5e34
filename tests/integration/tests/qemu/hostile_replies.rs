// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosts that answer page-state changes in their manner not from the start, which ends the boot, but later: in calls of the
//! pool and of CONVERT, each once with the first request answered so and once with all of them, or from a request of the
//! boot on.
//!
//! The guest (`mode=host-replies`) checks what holds for every manner: documented codes, accounts and outcomes that fit them,
//! pages that are what their outcome says, and an honest call of the kind afterwards that does all it should. Here is what
//! each manner has to lead to.

use paravisor::termination::Reason;
use serde_json::Value;

use crate::bench::{Bench, Outcome, RMP_SIZES};
use crate::hostile::assert_reason;
use crate::hostile_pages::assert_stopped;

const SUCCESS: u32 = 0;
const REFUSED: u32 = 0x8000_1004;
const MISBEHAVED: u32 = 0x8000_1008;

/// What the guest sees, by call: GROW of two chunks, the same contiguous, RELEASE of two, CONVERT of three pages to shared, and
/// to private. The code, and: chunks granted, chunks granted, chunks acknowledged, the outcome of each entry.
type Seen = [(u32, u32); 5];

const NAMES: [(&str, &str); 5] = [
    ("reply-grow", "granted"),
    ("reply-grow-contiguous", "granted-contiguous"),
    ("reply-release", "acknowledged"),
    ("reply-to-shared", "outcomes-to-shared"),
    ("reply-to-private", "outcomes-to-private"),
];

/// As if the host were honest.
const DONE: Seen = [
    (SUCCESS, 2),
    (SUCCESS, 2),
    (SUCCESS, 2),
    (SUCCESS, 0),
    (SUCCESS, 0),
];
/// P-5.7.7, P-5.8.4, P-5.9.10: the batch is quarantined.
const BROKEN: Seen = [
    (MISBEHAVED, 0),
    (MISBEHAVED, 0),
    (SUCCESS, 0),
    (MISBEHAVED, 0x444),
    (MISBEHAVED, 0x444),
];
/// P-5.7.6, P-5.8.4, P-5.9.9: nothing is granted; what was rescinded comes back as zeros.
const DECLINED_ONCE: Seen = [
    (REFUSED, 0),
    (REFUSED, 0),
    (SUCCESS, 0),
    (REFUSED, 0x222),
    (REFUSED, 0x111),
];
/// The host does not take the pages back either.
const DECLINED: Seen = {
    let mut seen = DECLINED_ONCE;
    seen[3] = (REFUSED, 0x333);
    seen
};
/// The first entry of each request is done.
const DECLINED_IN_PART_ONCE: Seen = [
    (SUCCESS, 1),
    (REFUSED, 0),
    (SUCCESS, 1),
    (REFUSED, 0x022),
    (REFUSED, 0x011),
];
const DECLINED_IN_PART: Seen = {
    let mut seen = DECLINED_IN_PART_ONCE;
    seen[3] = (REFUSED, 0x023);
    seen
};
/// A host that does one batch in many exits is too slow for two chunks, and not for three pages.
const TOO_SLOW: Seen = [
    (REFUSED, 0),
    (REFUSED, 0),
    (SUCCESS, 0),
    (SUCCESS, 0),
    (SUCCESS, 0),
];

/// In calls that the guest names; on a machine that fits.
const NAMED: [&str; 4] = ["--psc-from", "named", "--memory", "112MiB"];

/// With a window that has room for what is quarantined.
fn bench() -> Bench {
    Bench::small("host-replies", &["--window", "32MiB"])
}

/// Boots on a host of this manner, in calls; the guest went through all of them and found nothing wrong.
fn run(number: usize, manner: &[&str], rounds: [Seen; 2]) -> Outcome {
    let bench = bench();
    let rmp = RMP_SIZES[number % RMP_SIZES.len()];
    let options = [&NAMED[..], &["--rmp", rmp, "--psc-manner"]].concat();
    let outcome = bench.small_run(&[&options[..], manner].concat());
    assert_eq!(outcome.code, 0, "{manner:?}: {}", outcome.text);
    let tests = outcome.report["self_tests"].as_array().expect("cases");
    assert!(tests.iter().all(|one| one["ok"] == true), "{manner:?}");
    let seen: Vec<_> = tests
        .iter()
        .map(|one| (&one["name"], &one["got"]))
        .collect();
    let mut expected = Vec::new();
    for ((name, figure), (code, number)) in rounds.iter().flat_map(|seen| NAMES.iter().zip(seen)) {
        expected.push((Value::from(*name), Value::from(format!("{code:#x}"))));
        expected.push((Value::from(*figure), Value::from(format!("{number:#x}"))));
    }
    let expected: Vec<_> = expected.iter().map(|(name, got)| (name, got)).collect();
    assert_eq!(seen, expected, "{manner:?}");
    outcome
}

/// The service's own account: so many replies of this kind and of no other, so many bytes quarantined, nothing granted but
/// the chunk that the guest began with.
fn assert_account(outcome: &Outcome, anomaly: &str, times: u64, quarantined: u64) {
    let service = &outcome.report["service"];
    let figure = |name: &str| service[name].as_u64().unwrap_or(0);
    assert_eq!(figure(anomaly), times, "{service}");
    assert_eq!(figure("host-anomalies"), times, "{service}");
    assert_eq!(figure("quarantined"), quarantined, "{service}");
    assert_eq!(figure("granted"), 2 << 20, "{service}");
    // The host was as it should be.
    assert!(outcome.counter("attack.psc") >= times.max(10));
}

#[test]
fn p4_p_5_7_6_p_5_8_4_p_5_9_9_a_host_that_declines_in_a_call() {
    for (number, (manner, rounds, anomaly, times)) in [
        // Five requests and one to take back, twice.
        (
            &["refuse"][..],
            [DECLINED_ONCE, DECLINED],
            "host-declined",
            11,
        ),
        (
            &["fail", "--psc-count", "1"],
            [DECLINED_IN_PART_ONCE, DECLINED_IN_PART],
            "host-declined",
            12,
        ),
        // 16 exits for each of six requests that never end; one exit without progress is legal.
        (&["no-progress"], [DONE, DECLINED], "host-no-progress", 6),
        (
            &["stop-inside", "--psc-count", "16"],
            [DONE, TOO_SLOW],
            "host-no-progress",
            3,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let outcome = run(number, manner, rounds);
        assert_account(&outcome, anomaly, times, 0);
        assert_eq!(outcome.report["service"]["guest-page-faults"], 0);
    }
}

#[test]
fn p3_p4_p_5_7_7_p_5_8_4_p_5_9_10_a_reply_that_breaks_the_rules_in_a_call() {
    // Two chunks in each of three calls; three pages in each of two.
    let (chunks, pages) = (3 * (4 << 20), 2 * 3);
    for (number, (manner, first, anomaly)) in [
        ("cursor-beyond-end", BROKEN, "host-cursor-beyond-end"),
        ("enlarge-end", BROKEN, "host-last-entry"),
        ("reserved-bits", BROKEN, "host-reserved-word"),
        // Its first reply is a legal one.
        ("cursor-backwards", DONE, "host-cursor-backwards"),
    ]
    .into_iter()
    .enumerate()
    {
        let outcome = run(number, &[manner], [first, BROKEN]);
        let rounds = if first == DONE { 1 } else { 2 };
        assert_account(&outcome, anomaly, 5 * rounds, rounds * chunks);
        let faults = &outcome.report["service"]["guest-page-faults"];
        assert_eq!(*faults, rounds * pages);
    }
}

/// The service believes it, as nothing but the guest's own I/O depends on it; what was never made private is noticed by the
/// processor, which stops, or by a host that converts on a touch.
#[test]
fn p4_one_that_claims_success_in_a_call() {
    let outcome = run(0, &["lie", "--host-manner", "implicit"], [DONE, DONE]);
    assert_account(&outcome, "host-anomalies", 0, 0);
    let outcome = bench().small_run(&[&NAMED[..], &["--psc-manner", "lie"]].concat());
    assert_stopped(&outcome, "violation what=instruction-on-shared-page");
    assert!(outcome.text.contains(" vmpl=0 "), "{}", outcome.text);
}

/// The first two requests are by MSR, for the GHCB and the doorbell; the third one makes the service's storage private, later
/// ones do so with RAM.
#[test]
fn one_that_begins_in_the_middle_of_the_boot() {
    let bench = Bench::small("selftest", &[]);
    for from in ["3", "5"] {
        let run = |manner: &[&str]| {
            let options = ["--psc-from", from, "--psc-manner"];
            bench.small_run(&[&options[..], manner].concat())
        };
        for count in ["0", "1"] {
            let outcome = run(&["fail", "--psc-count", count]);
            assert_reason(&outcome, Reason::PscRefused);
        }
        assert_reason(&run(&["enlarge-end"]), Reason::PscMisbehaved);
        let outcome = run(&["lie"]);
        assert_stopped(&outcome, "violation what=instruction-on-shared-page");
    }
}
