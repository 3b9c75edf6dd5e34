// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosts that attack pages: taken away at any time, moved to another frame, mapped twice, mapped read-only.
//!
//! As in hostile.rs, each run ends as the documents say. The machine itself stops when a guest is let into an attacked page
//! that was not zeroed (`granted-with-contents`), and when two addresses reach one frame (`reverse-map`).

use std::collections::BTreeSet;

use paravisor::termination::Reason;

use crate::DIED;
use crate::bench::{Bench, Outcome, RMP_SIZES};
use crate::hostile::{assert_reason, assert_termination};

/// What a call may be answered whose list, or a page that it works on, is taken away.
const SUCCESS: &str = "0x0";
const INVALID_ADDRESS: &str = "0x80000003";
const PAGE_LOST: &str = "0x8000100b";
const NO_CHANGE: &str = "0x80001010";
/// The guest's own exception: it touched what the host took.
const GUEST_EXCEPTION: u64 = 11;
/// The vector that is the paravisor's reason when its stack is gone.
const DOUBLE_FAULT: u64 = 8;

/// The machine stopped, with a report that contains this.
pub fn assert_stopped(outcome: &Outcome, report: &str) {
    assert_eq!(outcome.code, DIED, "{}", outcome.text);
    assert!(outcome.text.contains(report), "{report}: {}", outcome.text);
}

/// The run came to its good end, and the host struck so often.
fn assert_survived(outcome: &Outcome, struck: u64) {
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    assert_eq!(outcome.counter("attack.struck"), struck, "{}", outcome.text);
}

/// Pages that the host takes, moves or maps twice while a call is served: one exit later in each call, from its beginning
/// to its end, for four kinds of calls.
mod calls {
    use super::*;

    const SERIES: [&str; 4] = [
        "attacked-rescind",
        "attacked-validate",
        "attacked-to-shared",
        "attacked-to-private",
    ];
    /// Calls of a series.
    const ROUNDS: u64 = 32;

    /// The codes of a series; each of its promises held.
    fn all_codes(outcome: &Outcome, series: &str) -> Vec<String> {
        let tests = outcome.report["self_tests"].as_array().expect("cases");
        let own: Vec<_> = tests.iter().filter(|one| one["name"] == series).collect();
        assert_eq!(own.len() as u64, ROUNDS, "{series}: {}", outcome.text);
        assert!(own.iter().all(|one| one["ok"] == true), "{series}");
        let code = |one: &&serde_json::Value| one["got"].as_str().map(String::from);
        own.iter().filter_map(code).collect()
    }

    fn codes(outcome: &Outcome, series: &str) -> BTreeSet<String> {
        all_codes(outcome, series).into_iter().collect()
    }

    /// How often a code came.
    fn times(outcome: &Outcome, series: &str, code: &str) -> u64 {
        let codes = all_codes(outcome, series);
        codes.iter().filter(|one| *one == code).count() as u64
    }

    /// Every moment of every call was tried: rounds without a strike come behind the last one, in each series.
    fn assert_swept(outcome: &Outcome, fewest: u64) {
        assert_eq!(outcome.code, 0, "{}", outcome.text);
        let (struck, missed) = (
            outcome.counter("attack.struck"),
            outcome.counter("attack.missed"),
        );
        let all = ROUNDS * SERIES.len() as u64;
        assert_eq!(struck + missed, all, "{}", outcome.text);
        assert!(struck >= fewest && missed > 0, "{struck} of {all}");
    }

    /// Ways to take a page, and the machines on which they are tried.
    const TAKEN: [(&[&str], &str); 4] = [
        (&["--attack", "unvalidate"], "2m"),
        (&["--attack", "unvalidate"], "4k"),
        (&["--attack", "share", "--host-manner", "implicit"], "2m"),
        (&["--attack", "switch-map"], "4k"),
    ];

    fn each_way(mode: &str, check: impl Fn(&Outcome)) {
        let bench = Bench::small(mode, &[]);
        for (manner, rmp) in TAKEN {
            let sweep = ["--attack-moment", "sweep", "--rmp", rmp];
            let outcome = bench.small_run(&[manner, &sweep].concat());
            assert_swept(&outcome, 50);
            check(&outcome);
        }
    }

    #[test]
    fn a_list_that_vanishes_at_any_exit() {
        each_way("attacked", |outcome| {
            let expected = BTreeSet::from([SUCCESS, INVALID_ADDRESS].map(String::from));
            for series in SERIES {
                assert_eq!(codes(outcome, series), expected, "{series}");
            }
            // Each lost list was touched once: from then on the map knows, and refuses it.
            let lost = SERIES.map(|series| times(outcome, series, INVALID_ADDRESS));
            assert_eq!(outcome.counter("vc404"), lost.iter().sum::<u64>());
        });
    }

    #[test]
    fn a_page_that_vanishes_under_the_call_that_changes_it() {
        each_way("attacked-work", |outcome| {
            for (series, allowed) in SERIES.into_iter().zip([
                &[SUCCESS, INVALID_ADDRESS, NO_CHANGE][..],
                &[SUCCESS, INVALID_ADDRESS],
                &[SUCCESS, PAGE_LOST],
                &[SUCCESS, PAGE_LOST],
            ]) {
                let codes = codes(outcome, series);
                let known = |code: &String| allowed.contains(&code.as_str());
                assert!(codes.iter().all(known), "{series}: {codes:?}");
                assert!(codes.len() > 1, "{series}: nothing was lost");
            }
        });
    }

    #[test]
    fn a_page_that_is_moved_between_request_and_validation() {
        // The keys of VMPL 0 are under the page that the guest gets: it gets zeros.
        let moved = ["--attack", "remap", "--attack-moment", "sweep-validations"];
        for mode in ["attacked", "attacked-work"] {
            for outcome in Bench::small(mode, &[]).small_run_on_each_rmp(&moved) {
                // Three pages a call, in two of the four series.
                assert_survived(&outcome, 6);
                for series in SERIES {
                    assert_eq!(codes(&outcome, series), [SUCCESS.into()].into());
                }
            }
        }
        let moved = ["--attack", "remap", "--attack-moment", "sweep"];
        for outcome in Bench::small("attacked-work", &[]).small_run_on_each_rmp(&moved) {
            assert_swept(&outcome, 50);
        }
    }

    #[test]
    fn a_frame_that_is_behind_two_pages() {
        let twice = ["--attack", "double-map", "--attack-moment"];
        for (mode, moment) in [
            ("attacked", "sweep"),
            ("attacked-work", "sweep-validations"),
        ] {
            let bench = Bench::small(mode, &[]);
            let outcome = bench.small_run(&[&twice[..], &[moment]].concat());
            assert_stopped(&outcome, "violation what=reverse-map");
            assert_eq!(outcome.counter("attack.reverse-map"), 1);
        }
    }

    #[test]
    fn a_page_that_is_mapped_read_only() {
        for mode in ["attacked", "attacked-work"] {
            let bench = Bench::small(mode, &[]);
            let outcome = bench.small_run(&["--attack", "read-only", "--attack-moment", "sweep"]);
            assert_stopped(&outcome, "died what=read-only-page");
            assert!(outcome.text.contains("vmpl=0"), "{}", outcome.text);
        }
    }
}

/// Pages that are valid before VMPL 0 validates them, so that PVALIDATE reports no change: by the rules a page that the host
/// launched beside the file's, which firmware validates and the digest shows; against them one that a defect makes valid.
mod valid_already {
    use super::*;

    #[test]
    fn p1_a_page_that_was_launched_beside_the_file_ends_the_vm() {
        let private = ["--ram-state", "private", "--launch-page"];
        // At boot, and in a call when the guest takes its memory into use by itself.
        for (ram, page) in [("accepted", "0x2000000"), ("firmware", "0x1600000")] {
            let bench = Bench::small("selftest", &["--ram", ram]);
            for outcome in bench.small_run_on_each_rmp(&[&private[..], &[page]].concat()) {
                assert_reason(&outcome, Reason::ValidateTwice);
                let in_call = outcome.counter("vmpl-switch") != 0;
                assert_eq!(in_call, ram == "firmware", "{}", outcome.text);
            }
        }
    }

    #[test]
    fn p1_p_5_9_11_a_page_that_turns_valid_by_itself_ends_the_vm() {
        let run = |bench: &Bench, moment, count, rmp| {
            let attack = ["--attack", "validate", "--attack-moment", moment];
            let when = ["--attack-count", count, "--rmp", rmp];
            let outcome = bench.small_run(&[attack, when].concat());
            assert_eq!(outcome.counter("attack.struck"), 1);
            assert_reason(&outcome, Reason::ValidateTwice);
            outcome.counter("attack.missed")
        };
        // At boot: the service's storage, and what the guest gets.
        let bench = Bench::small("selftest", &[]);
        for (count, rmp) in ["1", "3"].into_iter().zip(RMP_SIZES) {
            assert_eq!(run(&bench, "validation", count, rmp), 0);
        }
        // In a PVALIDATE of the second series of calls, and in a CONVERT to private of the fourth: 32 calls each.
        let bench = Bench::small("attacked-work", &[]);
        for (series, before) in [("2", 32), ("4", 96)] {
            for rmp in RMP_SIZES {
                assert_eq!(run(&bench, "sweep-validations", series, rmp), before);
            }
        }
    }
}

/// The same at boot, when all of RAM is taken into use, and to pages of VMPL 0 itself.
mod own_pages {
    use super::*;

    #[test]
    fn a_page_that_is_moved_or_mapped_twice_at_boot() {
        let bench = Bench::small("selftest", &[]);
        // The first validation is of the service's storage, later ones are of what the guest gets.
        for (action, count) in [("remap", "1"), ("remap", "3"), ("switch-map", "3")] {
            let attack = ["--attack", action, "--attack-moment", "validation"];
            let attack = [&attack[..], &["--attack-count", count]].concat();
            for outcome in bench.small_run_on_each_rmp(&attack) {
                assert_eq!(outcome.counter("attack.struck"), 1);
                // The page that the frame was taken from is VMPL 0's, which reads it next.
                assert_reason(&outcome, Reason::NotValidated);
            }
        }
        for count in ["1", "3"] {
            let attack = ["--attack", "double-map", "--attack-moment", "validation"];
            for outcome in
                bench.small_run_on_each_rmp(&[&attack[..], &["--attack-count", count]].concat())
            {
                assert_stopped(&outcome, "violation what=reverse-map");
            }
        }
    }

    /// How a run ends whose page is taken at this moment.
    fn take(bench: &Bench, page: &str, moment: &str, count: &str) -> Outcome {
        let attack = ["--attack", "unvalidate", "--attack-page", page];
        let when = ["--attack-moment", moment, "--attack-count", count];
        let outcome = bench.small_run(&[attack, when].concat());
        assert_eq!(
            outcome.counter("attack.struck"),
            1,
            "{page}: {}",
            outcome.text
        );
        outcome
    }

    #[test]
    fn a_page_of_vmpl_0_that_vanishes() {
        let bench = Bench::small("selftest", &[]);
        for (moment, count) in [("exit", "400"), ("call", "1"), ("call", "5")] {
            let outcome = take(&bench, "storage", moment, count);
            assert_reason(&outcome, Reason::NotValidated);
            // The exception has nowhere to go; the double fault has a stack of its own.
            let outcome = take(&bench, "stack", moment, count);
            assert_termination(&outcome, 0xa, DOUBLE_FAULT);
        }
        // Whether the handler of the fault lies in the page that is taken is up to the linker.
        let outcome = take(&bench, "code", "call", "1");
        assert!(
            outcome.code != 0 && is_documented(&outcome),
            "{}",
            outcome.text
        );
        let outcome = take(&bench, "secrets", "exit", "400");
        assert_reason(&outcome, Reason::NotValidated);
        // Not needed any more.
        assert_eq!(take(&bench, "secrets", "call", "5").code, 0);
    }

    #[test]
    fn a_calling_area_that_vanishes() {
        let bench = Bench::small("selftest", &[]);
        for (moment, count) in [("exit", "400"), ("call", "1"), ("call", "4"), ("call", "9")] {
            let outcome = take(&bench, "calling-area", moment, count);
            // Whether the call was served or not: the guest finds out when it looks.
            assert_termination(&outcome, 0xb, GUEST_EXCEPTION);
        }
    }

    /// Pages from the beginning of the image, which are code, constants and the first data, and how many.
    const DENSE: (u64, u64) = (0x41_0000, 0x20);
    /// All of it: with page tables, and with stacks of processors that there may not be.
    const WHOLE: (u64, u64) = (0x41_0000, 0x112);

    /// How a run may end whose page of VMPL 0 vanishes (THREAT-MODEL.md, "How a breach shows"): nobody needs it any more; it
    /// was noticed; the double fault that follows where the handler needs it; a page of ours is rescinded; the machine stops
    /// since the code that ends the VM faults, or since no exception can be delivered.
    fn is_documented(outcome: &Outcome) -> bool {
        let ending = &outcome.report["termination"];
        let reason = |set: u64, reasons: &[u64]| {
            ending["set"] == set && reasons.iter().any(|reason| ending["reason"] == *reason)
        };
        let [lost, rescinded] = [Reason::NotValidated, Reason::RescindFailed];
        let named = [lost.code().into(), rescinded.code().into(), DOUBLE_FAULT];
        let stopped = ["lost-handler", "undeliverable-vc"]
            .iter()
            .any(|what| outcome.text.contains(&format!("died what={what} ")));
        match outcome.code {
            0 => reason(0xb, &[0]),
            DIED => reason(0xa, &named) || (ending.is_null() && stopped),
            _ => false,
        }
    }

    /// Pages of the image by a seed, at exits by the same seed: from the first ones to those of the self-test.
    #[test]
    fn any_page_of_the_image_at_any_time() {
        let bench = Bench::small("selftest", &[]);
        let mut endings = BTreeSet::new();
        let mut seed: u64 = 0x5eed_0005;
        for round in 0..24 {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let (first, pages) = if round % 3 == 2 { WHOLE } else { DENSE };
            let page = format!("{:#x}", first + (seed >> 33) % pages * 0x1000);
            let exit = 1 + (seed >> 12) % 1500;
            let rmp = ["--rmp", RMP_SIZES[round % 2]];
            let attack = ["--attack", "unvalidate", "--attack-page", &page];
            let when = format!("{exit}");
            let outcome =
                bench.small_run(&[&attack[..], &["--attack-count", &when], &rmp].concat());
            let struck = outcome.counter("attack.struck");
            assert!(
                struck == 1 && is_documented(&outcome),
                "{page} at {exit}: {}",
                outcome.text
            );
            let reason = outcome.report["termination"]["reason"].as_u64();
            endings.insert((outcome.code, reason));
        }
        // Lost and noticed, and lost without anybody caring.
        let lost = (DIED, Some(u64::from(Reason::NotValidated.code())));
        assert!(
            endings.contains(&lost) && endings.contains(&(0, Some(0))),
            "{endings:?}"
        );
    }

    #[test]
    fn a_page_that_is_taken_for_the_host_stops_the_machine() {
        let bench = Bench::small("selftest", &[]);
        for page in ["storage", "calling-area"] {
            let attack = ["--attack", "share", "--attack-page", page];
            let outcome = bench.small_run(&[&attack[..], &["--attack-moment", "call"]].concat());
            assert_stopped(&outcome, "violation what=private-access-to-shared-page");
        }
    }

    #[test]
    fn a_page_that_is_mapped_read_only() {
        let bench = Bench::small("selftest", &[]);
        let read_only = |page| {
            let attack = ["--attack", "read-only", "--attack-page", page];
            bench.small_run(&[&attack[..], &["--attack-moment", "call"]].concat())
        };
        for (page, vmpl) in [
            ("stack", "vmpl=0"),
            ("storage", "vmpl=0"),
            ("calling-area", "vmpl="),
        ] {
            let outcome = read_only(page);
            assert_stopped(&outcome, "died what=read-only-page");
            assert!(outcome.text.contains(vmpl), "{}", outcome.text);
        }
        // Nobody writes there.
        assert_survived(&read_only("code"), 1);
    }
}
