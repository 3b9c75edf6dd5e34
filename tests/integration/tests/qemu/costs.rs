// SPDX-License-Identifier: MIT OR Apache-2.0
//! What calls cost: exits and flushes as the host counts them, and instructions.

use std::ops::Range;

use elf::ElfBytes;
use elf::abi::PT_LOAD;
use elf::endian::AnyEndian;
use serde_json::Value;

use crate::bench::{Bench, Outcome, built};

/// Most bytes of code and data of the image, without stacks and variables that begin as zeros.
const IMAGE_BYTES: u64 = 112 << 10;

/// The trusted part stays small.
#[test]
fn the_image_stays_below_its_limit() {
    let path = built().join("x86_64-unknown-none/release/paravisor");
    let bytes = std::fs::read(path).expect("it was built");
    let file = ElfBytes::<AnyEndian>::minimal_parse(&bytes).expect("an ELF file");
    let segments = file.segments().expect("an executable").iter();
    let loaded: u64 = (segments.filter(|segment| segment.p_type == PT_LOAD))
        .map(|segment| segment.p_filesz)
        .sum();
    assert!((1..IMAGE_BYTES).contains(&loaded), "{loaded} bytes");
}

/// Calls, exits for page-state changes and flushes of each conversion: by CONVERT to shared and to private, by the core
/// protocol to shared and to private; that in large pages, in large pages that the RMP holds in small entries, and in small
/// pages.
fn figures(outcome: &Outcome) -> Vec<[u64; 3]> {
    let list = outcome.report["own_conversions"].as_array();
    let number = |one: &Value, name: &str| one[name].as_u64().expect("a number");
    let figures = list.expect("figures").iter();
    figures
        .map(|one| ["calls", "psc_exits", "flushes"].map(|name| number(one, name)))
        .collect()
}

/// The figures of the README: conversions of 64 MiB, for which a guest wants half a GiB that is free. What CONVERT is
/// compared with is what Linux does. Every run of the self-test converts 2 MiB at least, and the runner judges its figures.
#[test]
fn c1_p_6_4_what_conversions_cost() {
    let bench = Bench::packed(&["--ram", "firmware", "--cmdline", "mode=selftest"]);
    let options = ["--memory", "640MiB", "--no-pattern", "--deterministic"];
    let [large, small] = bench.run_on_each_rmp(&options).map(|outcome| {
        assert_eq!(outcome.code, 0, "{}", outcome.text);
        // C1: the longest call zeroes eight large pages, eight bytes at a time; on a host with small entries it does all
        // else for each of 4096 pages, too.
        assert_longest(&outcome, "pool.convert", 4096 * 512..4096 * 1500);
        figures(&outcome)
    });
    // 16384 pages are 32 lists of 506 and one of 192, and batches of 253; by the core protocol 256 lists of 64.
    let small_pages = [[65, 65, 65], [65, 65, 0], [256, 256, 256], [256, 256, 0]];
    // Eight large pages are all the work units of a call that zeroes them or does them in parts; a batch holds all 32
    // where one instruction does each.
    assert_eq!(large[..4], [[1, 1, 1], [4, 4, 0], [1, 1, 1], [4, 1, 0]]);
    // Each of the core protocol's large entries fails, and is done again in two lists of 256; on its way back the host
    // gives the page a large entry again.
    assert_eq!(large[4..8], [[4, 4, 4], [4, 4, 0], [96, 1, 288], [4, 1, 0]]);
    assert_eq!(large[8..], small_pages);
    for split in [&small[..4], &small[4..8]] {
        assert_eq!(split, [[4, 4, 4], [4, 4, 0], [96, 1, 288], [96, 1, 0]]);
    }
    assert_eq!(small[8..], small_pages);
}

/// GROW of all the chunks that one request to the host can name, and RELEASE of them; with the default limits none is
/// longer.
#[test]
fn c1_p_6_4_the_longest_calls_of_the_pool_in_instructions() {
    let options = ["--window", "512MiB", "--cmdline", "mode=limits"];
    let bench = Bench::packed(&options);
    let outcome = bench.run(&["--memory", "640MiB", "--no-pattern", "--deterministic"]);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    assert_eq!(outcome.report["service"]["peak-granted"], 512 << 20);
    // 253 chunks, and the three that are left.
    assert_eq!(outcome.report["svsm_calls"]["grow"], 2);
    // Some hundred for each chunk, and as much again for a host that has to be watched.
    for call in ["pool.grow", "pool.release"] {
        assert_longest(&outcome, call, 253 * 64..253 * 400);
    }
}

/// The longest call of a kind took so many instructions at VMPL0, and more with what the host did for it.
fn assert_longest(outcome: &Outcome, name: &str, expected: Range<u64>) {
    let calls = outcome.report["longest_calls"].as_array().expect("calls");
    let call = calls.iter().find(|call| call["call"] == name);
    let figure = |what: &str| call.expect(name)[what].as_u64().expect("counted");
    let (own, whole) = (figure("vmpl0_instructions"), figure("whole_instructions"));
    println!("{name}: {own} instructions at VMPL0, {whole} in all");
    assert!(expected.contains(&own) && own < whole, "{own}, {whole}");
}
