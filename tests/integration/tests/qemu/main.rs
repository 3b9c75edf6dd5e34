// SPDX-License-Identifier: MIT OR Apache-2.0
//! The images that ship, booted on the emulated SNP machine under QEMU.
//!
//! `make test` builds the images and names their folder in SVSM_SWIOTLB_IMAGES. Each test packs an
//! image with its options, boots it with the runner, and looks at the runner's exit code and
//! report. What the runner calls a success is in tests/runner; these tests choose the machines.

mod bench;
mod costs;
mod hostile;
mod hostile_launch;
mod hostile_pages;
mod hostile_replies;
mod linux;
mod linux_driver;
mod linux_hotplug;
mod linux_kexec;
mod linux_life;
mod overtaken;
mod ovmf;
mod self_check;
mod smp;

use bench::{Bench, Outcome};

/// Exit code of the runner: the image or the machine died or hung.
const DIED: i32 = 3;

/// What the builder can ask of a processor against its host. TCG does none of it, and the VM sees the bits.
const PROTECTION: [&str; 8] = [
    "--prevent-host-ibs",
    "on",
    "--btb-isolation",
    "on",
    "--smt-protection",
    "on",
    "--ibpb-on-entry",
    "on",
];

fn assert_success(outcome: &Outcome) {
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    assert_eq!(outcome.steady_svsm_calls(), 0);
    assert_eq!(outcome.steady_conversions(), 0);
    assert!(
        outcome.report["checks"]
            .as_array()
            .is_some_and(|checks| checks.len() >= 10)
    );
}

/// Runs that end well on every machine: digests equal, nothing called or converted in steady state.
mod machines {
    use super::*;

    /// As many as real hosts have, and as many as the parameter area has room for.
    #[test]
    fn memory_maps_of_many_entries() {
        let bench = Bench::new();
        for entries in ["512", "681"] {
            assert_success(&bench.run(&["--map-entries", entries]));
        }
    }

    #[test]
    fn an_honest_host() {
        let [large, small] = Bench::new().run_on_each_rmp(&[]);
        assert_success(&large);
        assert!(large.counter("convert.shared.2m") >= 4);
        assert!(large.counter("instruction.0.pvalidate") > 0);
        assert_success(&small);
        // Every 2 MiB attempt ends in a size mismatch and is done again page by page.
        assert!(small.counter("instruction.0.pvalidate") > 20_000);
    }

    #[test]
    fn memory_that_is_private_from_the_start() {
        for outcome in Bench::new().run_on_each_rmp(&["--ram-state", "private"]) {
            assert_success(&outcome);
            // Nothing is converted at boot; what little there is the self-test does to its own pages: by two ways 512 of them,
            // and one that splits their entry.
            let converted = outcome.counter("convert.private.4k");
            assert!(converted < 8 + 2 * (512 + 1), "{converted}");
        }
    }

    #[test]
    fn a_host_that_converts_on_a_touch() {
        for outcome in Bench::new().run_on_each_rmp(&["--host-manner", "implicit"]) {
            assert_success(&outcome);
            // Everybody asks before they touch.
            assert_eq!(outcome.counter("convert.implicit"), 0);
        }
    }

    /// What it is asked for it calls done. So each page is converted when it is touched, the GHCB first, and stays so.
    #[test]
    fn a_host_that_converts_on_a_touch_only() {
        let bench = Bench::packed(&["--cmdline", "mode=disk"]);
        let lazy = ["--host-manner", "implicit", "--psc-manner", "lie"];
        let outcome = bench.run(&[&lazy[..], &["--memory", "160MiB"]].concat());
        // RAM, but for a few MiB that were part of the launch, and of the pool what was used.
        let touched = outcome.counter("convert.implicit");
        assert!(touched > (96 - 8) << 8, "{touched}: {}", outcome.text);
        // Guest and disks find nothing wrong. The chunks that are given back are not taken, and hold what was in them.
        let of_the_host = [
            "no page that is not shared was written from outside",
            "the pool grows at least three times",
            "chunks are given back at the end",
        ];
        assert_eq!(outcome.failed_checks(), of_the_host, "{}", outcome.text);
    }

    #[test]
    fn a_host_that_returns_early_from_every_request() {
        let stop = ["--psc-manner", "stop", "--psc-count", "1"];
        for outcome in Bench::new().run_on_each_rmp(&stop) {
            assert_success(&outcome);
        }
    }

    #[test]
    fn a_host_that_returns_early_inside_an_entry() {
        let stop_inside = ["--psc-manner", "stop-inside", "--psc-count", "64"];
        for outcome in Bench::new().run_on_each_rmp(&stop_inside) {
            assert_success(&outcome);
            // 64 of 512 pages an exit, so every chunk takes eight.
            let pages = outcome.counter("convert.shared.4k");
            assert!(pages > 4 * 512 && outcome.counter("vmgexit.0.psc") >= pages / 64);
        }
    }

    #[test]
    fn a_host_without_restricted_injection() {
        let bench = Bench::packed(&["--restricted-injection", "off"]);
        for outcome in bench.run_on_each_rmp(&[]) {
            assert_success(&outcome);
            assert_eq!(outcome.counter("vmgexit.0.hv-doorbell"), 0);
        }
    }

    #[test]
    fn a_host_with_every_protection_of_the_processor() {
        let bench = Bench::packed(&PROTECTION);
        for outcome in bench.run_on_each_rmp(&[]) {
            assert_success(&outcome);
        }
    }

    #[test]
    fn a_host_that_rings_the_doorbell_between_check_and_entry() {
        // The host stops the machine when the guest runs before VMPL0 has taken the event.
        let bench = Bench::new();
        for outcome in bench.run_on_each_rmp(&["--hv", "ring", "--hv-count", "1"]) {
            assert_success(&outcome);
            let signalled = outcome.counter("hv.signalled");
            let injected = outcome.counter("hv.injected");
            // Every third event shows in the page only.
            assert!(signalled > 100, "{signalled}");
            assert!(
                (signalled * 2 / 3).abs_diff(injected) <= 1,
                "{signalled}, {injected}"
            );
        }
        for outcome in bench.run_on_each_rmp(&["--hv", "once"]) {
            assert_success(&outcome);
            assert_eq!(outcome.counter("hv.injected"), 1);
        }
    }

    #[test]
    fn a_host_that_returns_without_having_run_the_guest() {
        // A call that were replayed would change answers, counts or digests.
        let spurious = ["--switch", "spurious", "--switch-count", "1"];
        for outcome in Bench::new().run_on_each_rmp(&spurious) {
            assert_success(&outcome);
            let spurious = outcome.counter("switch.spurious");
            // Every other entry; switches are counted in both directions.
            assert!(spurious > 100, "{spurious}");
            assert!(spurious.abs_diff(outcome.counter("vmpl-switch") / 2) <= 1);
        }
    }

    #[test]
    fn another_protocol_number() {
        let told = [
            "--protocol",
            "0x40001234",
            "--cmdline",
            "protocol=0x40001234",
        ];
        for outcome in Bench::packed(&told).run_on_each_rmp(&[]) {
            assert_success(&outcome);
        }
    }
}

/// What a guest can do wrong.
mod wrong_guests {
    use super::*;

    #[test]
    fn every_wrong_call_gets_its_code_and_lost_pages_are_fixed_up() {
        let bench = Bench::packed(&["--cmdline", "mode=selftest"]);
        for outcome in bench.run_on_each_rmp(&[]) {
            assert_eq!(outcome.code, 0, "{}", outcome.text);
            assert!(
                outcome.self_tests() >= 175,
                "{} cases",
                outcome.self_tests()
            );
            // A copy in, a copy out, the PVALIDATE list, RMPADJUST and the calling area: each met
            // a page that was lost, and none of the second look at one that is quarantined.
            assert_eq!(outcome.counter("vc404"), 5);
        }
    }
}

/// A kernel that restarts at peak load, twice: the first time it adopts, the second time it releases.
mod restarts {
    use super::*;

    #[test]
    fn no_chunk_is_lost() {
        let bench = Bench::packed(&["--cmdline", "mode=restart"]);
        for outcome in bench.run_on_each_rmp(&[]) {
            assert_eq!(outcome.code, 0, "{}", outcome.text);
            let restarts = outcome.report["restarts"].as_array().expect("restarts");
            assert_eq!(restarts.len(), 3);
            let figure = |kernel: usize, name: &str| restarts[kernel][name].as_u64().unwrap();
            assert!(figure(1, "adopted") >= 32 << 20 && figure(1, "released") == 0);
            assert!(figure(2, "released") >= 32 << 20 && figure(2, "adopted") == 0);
            // The service tells the same story.
            let trace = outcome.report["trace"].as_array().expect("events");
            for kind in [
                "attached",
                "grown",
                "adopted",
                "orphans-released",
                "released",
            ] {
                assert!(trace.iter().any(|event| event["kind"] == kind), "{kind}");
            }
        }
    }
}

/// A second window below 4 GiB. The guest compares where mappings lie, and moves its disks through that window.
mod windows {
    use super::*;

    const TWO: [&str; 4] = ["--window", "64MiB", "--low-window", "32MiB"];

    #[test]
    fn each_mapping_lies_where_its_device_reaches_it() {
        let bench = Bench::packed(&[&TWO[..], &["--cmdline", "mode=windows"]].concat());
        // The second machine has RAM above 4 GiB, so the first window is there.
        for memory in [&[][..], &["--memory", "3GiB", "--no-pattern"]] {
            let outcome = bench.run(memory);
            assert_eq!(outcome.code, 0, "{}", outcome.text);
            let service = &outcome.report["service"];
            assert_eq!(service["second-window"], 32 << 20, "{}", outcome.text);
            // The GHCB's chunk; what the disks needed is the other's.
            assert_eq!(service["peak-granted"], 2 << 20, "{}", outcome.text);
            let peak = service["second-peak-granted"].as_u64();
            assert!(peak >= Some(6 << 20), "{}", outcome.text);
            assert_eq!(service["second-granted"], 0, "{}", outcome.text);
        }
    }

    /// A guest that knows one window, on the same image: everything is as without the other.
    #[test]
    fn a_guest_may_leave_the_second_one_alone() {
        let outcome = Bench::packed(&TWO).run(&[]);
        assert_eq!(outcome.code, 0, "{}", outcome.text);
        let service = &outcome.report["service"];
        assert_eq!(service["second-peak-granted"], 0, "{}", outcome.text);
    }

    #[test]
    fn a_guest_that_wants_two_finds_out_that_there_is_one() {
        let outcome = Bench::packed(&["--cmdline", "mode=windows"]).run(&[]);
        assert_eq!(outcome.code, DIED, "{}", outcome.text);
        let ending = &outcome.report["termination"];
        assert_eq!(
            (&ending["set"], &ending["reason"]),
            (&0xb.into(), &0x15.into())
        );
    }
}

/// Limits of the image, and a guest that asks for all there is.
mod limits {
    use super::*;

    #[test]
    fn a_hard_cap_of_the_image_holds() {
        let options = ["--hard-cap", "8MiB", "--cmdline", "mode=limits"];
        let outcome = Bench::packed(&options).run(&[]);
        assert_eq!(outcome.code, 0, "{}", outcome.text);
        let service = &outcome.report["service"];
        assert_eq!(service["cap"], 8 << 20, "{}", outcome.text);
        assert_eq!(service["peak-granted"], 8 << 20, "{}", outcome.text);
    }

    #[test]
    fn a_gibibyte_takes_three_requests_to_the_host_and_with_the_limit_lifted_one_call() {
        for (unit_limit, calls) in [("on", 3), ("off", 1)] {
            let options = ["--window", "1GiB", "--unit-limit", unit_limit];
            let bench = Bench::packed(&[&options[..], &["--cmdline", "mode=limits"]].concat());
            // Memory is only asked for: without the pattern the machine does not touch it.
            let outcome = bench.run(&["--memory", "1280MiB", "--no-pattern"]);
            assert_eq!(outcome.code, 0, "{}", outcome.text);
            let service = &outcome.report["service"];
            assert_eq!(service["peak-granted"], 1 << 30, "{}", outcome.text);
            // Three to share it, three to give all but the GHCB's chunk back.
            assert_eq!(service["psc-exits"], 6, "{}", outcome.text);
            assert_eq!(outcome.report["svsm_calls"]["grow"], calls);
        }
    }
}

/// Runs that count instructions instead of time: the same input gives the same log, time stamps included. Only without
/// disks, whose host threads finish when they like.
mod determinism {
    use super::*;

    #[test]
    fn the_same_run_gives_the_same_log() {
        let bench = Bench::packed(&["--cmdline", "mode=selftest"]);
        for vcpus in ["1", "2"] {
            let log = bench.log_by_instructions(&["--vcpus", vcpus]);
            assert!(log.contains(" tsc="), "{log}");
            let again = bench.log_by_instructions(&["--vcpus", vcpus]);
            assert!(log == again, "first:\n{log}\nsecond:\n{again}");
        }
    }
}

/// The guest validates its own memory through the SVSM.
mod firmware {
    use super::*;

    #[test]
    fn memory_that_the_hypervisor_owns() {
        for outcome in Bench::packed(&["--ram", "firmware"]).run_on_each_rmp(&[]) {
            assert_success(&outcome);
        }
    }

    #[test]
    fn memory_that_is_private_from_the_start() {
        let bench = Bench::packed(&["--ram", "firmware"]);
        for outcome in bench.run_on_each_rmp(&["--ram-state", "private"]) {
            assert_success(&outcome);
        }
    }
}

/// Hosts that do not do what they are asked: the run ends, soon, not well, and with a cause.
mod hostile_hosts {
    use super::*;

    fn ends_with(manner: &str, cause: &str) {
        let hostile = ["--psc-manner", manner, "--timeout", "120"];
        for outcome in Bench::new().run_on_each_rmp(&hostile) {
            assert_eq!(outcome.code, DIED, "{manner}: {}", outcome.text);
            assert!(outcome.text.contains(cause), "{manner}: {}", outcome.text);
        }
    }

    #[test]
    fn one_that_refuses() {
        // The first request is the one that shares the GHCB.
        ends_with("refuse", "reason 0xa:0x26");
    }

    #[test]
    fn one_that_claims_success_and_does_nothing() {
        // The GHCB page is still private: the first touch of its shared view stops the machine.
        ends_with("lie", "violation");
    }

    #[test]
    fn one_that_never_makes_progress() {
        ends_with("no-progress", "PscRefused");
    }

    #[test]
    fn one_that_swallows_a_call() {
        let bench = Bench::packed(&["--cmdline", "mode=disk"]);
        // Calls served before: the first one, one of the attach, the look for a second vCPU, a growth, the
        // give-back.
        for (served, expected) in [("0", 4), ("5", 4), ("8", 13), ("9", 7), ("12", 10)] {
            let options = [
                "--switch",
                "swallow",
                "--switch-count",
                served,
                "--timeout",
                "120",
            ];
            for outcome in bench.run_on_each_rmp(&options) {
                assert_eq!(outcome.counter("switch.swallowed"), 1, "{}", outcome.text);
                assert_ne!(outcome.code, 0, "{}", outcome.text);
                assert_eq!(outcome.report["success"], false);
                // The guest itself notices, and ends the VM by a code of its own.
                let ending = &outcome.report["termination"];
                assert_eq!(ending["set"], 0xb, "{}", outcome.text);
                let reason = ending["reason"].as_u64().expect("a reason");
                assert_eq!(reason, expected, "after {served} calls");
            }
        }
    }

    #[test]
    fn ones_whose_replies_break_the_rules() {
        for manner in [
            "cursor-backwards",
            "cursor-beyond-end",
            "enlarge-end",
            "reserved-bits",
        ] {
            ends_with(manner, "PscMisbehaved");
        }
    }
}

/// Bad input: one line that names the cause, exit 2.
mod bad_input {
    use super::*;

    #[test]
    fn a_window_larger_than_the_memory() {
        let outcome = Bench::packed(&["--window", "512MiB"]).run(&["--memory", "256MiB"]);
        assert_eq!(outcome.code, 2, "{}", outcome.text);
        assert!(outcome.text.contains("window"), "{}", outcome.text);
    }

    #[test]
    fn an_odd_sized_disk() {
        let bench = Bench::new();
        bench.write_disk(&[7; 1000]);
        let outcome = bench.run(&[]);
        assert_eq!(outcome.code, 2, "{}", outcome.text);
        assert!(outcome.text.contains("512"), "{}", outcome.text);
    }
}
