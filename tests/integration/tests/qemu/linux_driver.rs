// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Linux module's DMA operations in stock kernels: what they do, by `map_test.ko`, and what they cost, by
//! `map_bench.ko` (tests/linux/modules).

use std::collections::BTreeMap;

use crate::bench::{Bench, Outcome, said};

/// The series that the module is written for, and a later one, whose DMA operations take physical addresses.
const USUAL: &str = "6.12";
const OTHER: &str = "7";

/// The tests of `map_test.ko` in their order.
const TESTS: [&str; 24] = [
    "odd-sizes",
    "partial-syncs",
    "simultaneous-syncs",
    "skipped-copies",
    "scatter-gather",
    "growth-without-interrupts",
    "large-2m",
    "large-16m",
    "large-128m",
    "segment-boundary",
    "offset-kept",
    "coherent",
    "coherent-mask",
    "told-limits",
    "low-window",
    "in-an-nmi",
    "nmis-at-work",
    "mmio",
    "outside-direct-map",
    "page-structures",
    "scatter-gather-undone",
    "false-unmaps",
    "false-syncs",
    "narrow-mask",
];

/// Most that a map with its unmap may take of what swiotlb takes, both without the copies, as long as no hole is in the way
/// of swiotlb's search.
const LARGEST_RATIO: f64 = 0.3;

fn assert_all_tests_ok(outcome: &Outcome) {
    let mut expected: Vec<_> = TESTS.iter().map(|test| format!("{test} ok")).collect();
    expected.push(format!("done ok={} failed=0", TESTS.len()));
    let mut lines = said(outcome, "map_test");
    // A figure of one of them.
    lines.retain(|line| !line.starts_with("nmis "));
    assert_eq!(lines, expected, "{}", outcome.text);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
}

/// With one window; the next test has the usual series with two. Mappings of 128 MiB take a window that holds them and RAM for
/// their buffers. The NMIs of these tests, and those by which the kernel itself asks where its CPUs are, are the host's word too.
#[test]
fn what_the_operations_do() {
    let bench = Bench::linux_with_module_and(OTHER, "map_test", "256MiB", "svsm.work=nmi");
    let options = ["--memory", "1GiB", "--vcpus", "2", "--rmp", "4k"];
    let outcome = bench.linux_run(&options);
    assert_all_tests_ok(&outcome);
    let answers = ["cpu1 ok", "lost 0"];
    assert_eq!(said(&outcome, "nmi"), answers, "{}", outcome.text);
    for refused in [
        "no mapping of 64 bytes: in an NMI",
        "no coherent memory of 4096 bytes: in an NMI",
    ] {
        assert!(outcome.text.contains(refused), "{}", outcome.text);
    }
    let [sent, injected, completed] =
        ["nmi.sent", "nmi.injected", "vmgexit.2.nmi-complete"].map(|name| outcome.counter(name));
    // One may be on its way when the machine is turned off.
    let all = sent > 16 && sent - injected <= 1 && injected - completed <= 1;
    assert!(all, "{}", outcome.text);
}

/// A device that reaches the low window alone has its mappings there, with RAM above 4 GiB (the first window is there then) and
/// without.
#[test]
fn a_device_with_a_narrow_mask_uses_the_low_window() {
    let bench = Bench::linux_with_two_windows(USUAL, "map_test");
    for memory in ["1GiB", "3GiB"] {
        let outcome = bench.linux_run(&["--memory", memory, "--vcpus", "2"]);
        assert_all_tests_ok(&outcome);
        let windows = outcome.report["windows"].as_array().expect("windows");
        assert_eq!(windows.len(), 2, "{}", outcome.text);
        // The module has taken the second one, used it, and given back what it held of it.
        let after = &outcome.report["guest"]["pool"]["after"];
        assert_eq!(after["low_window_bytes"], "33554432", "{}", outcome.text);
        assert_eq!(after["low_granted_bytes"], "0", "{}", outcome.text);
        assert_ne!(after["low_given_back_bytes"], "0", "{}", outcome.text);
    }
}

/// A block driver that is told of them sends requests of up to 128 MiB in one piece.
#[test]
fn large_requests_of_a_disk() {
    let bench = Bench::linux_with_large_requests(USUAL);
    let outcome = bench.linux_run(&["--memory", "1GiB", "--devices", "blk"]);
    let told = said(&outcome, "large");
    assert_eq!(told, ["max_segment_size 134217728"], "{}", outcome.text);
    let expected = [
        "disk-2m ok",
        "disk-16m ok",
        "disk-128m ok",
        "done ok=3 failed=0",
    ];
    assert_eq!(said(&outcome, "map_test"), expected, "{}", outcome.text);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
}

/// The words of a figure's line by name.
fn words(line: &str) -> BTreeMap<&str, &str> {
    line.split(' ')
        .filter_map(|word| word.split_once('='))
        .collect()
}

fn assert_ratios(outcome: &Outcome) {
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    let lines = said(outcome, "map_bench");
    let figures: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("size="))
        .collect();
    // Five sizes and a mix, three ways, three fills.
    assert_eq!(figures.len(), 6 * 3 * 3, "{lines:?}");
    for line in figures {
        println!("{line}");
        // Holes of 64 KiB hold no larger mapping, which neither of the two can do then.
        let words = words(line);
        let fragmented = words["fill"] == "f90" && ["262144", "mix"].contains(&words["size"]);
        let failed = line.contains("_failed");
        assert_eq!(failed, fragmented, "{line}");
        let ratio: f64 = words["ratio"].parse().expect(line);
        let bounded = words["fill"] != "f90";
        assert!(!bounded || ratio <= LARGEST_RATIO, "{line}");
    }
    assert_eq!(lines.last(), Some(&"done"));
}

/// In one boot, where the time stamp counter counts instructions.
#[test]
fn instructions_of_map_and_unmap_beside_swiotlb() {
    for series in [USUAL, OTHER] {
        let bench = Bench::linux_with_module(series, "map_bench", "64MiB");
        assert_ratios(&bench.linux_run(&["--deterministic"]));
    }
}

/// The calibration sees that the counter counts time.
#[test]
fn no_figures_where_instructions_are_not_counted() {
    let bench = Bench::linux_with_module(USUAL, "map_bench", "64MiB");
    let outcome = bench.linux_run(&[]);
    assert_eq!(outcome.code, 1, "{}", outcome.text);
    let lines = said(&outcome, "map_bench");
    assert!(
        lines[1].starts_with("failed the time stamp counter"),
        "{lines:?}"
    );
}
