// SPDX-License-Identifier: MIT OR Apache-2.0
//! What calls cost: exits and flushes as the host counts them, and instructions.

use serde_json::Value;

use crate::bench::Bench;

/// A large page and its 512 small ones, each way; the runner checks the bounds on every run.
#[test]
fn p_6_4_what_conversions_cost() {
    let bench = Bench::packed(&["--cmdline", "mode=selftest"]);
    let figures = bench.run_on_each_rmp(&[]).map(|outcome| {
        assert_eq!(outcome.code, 0, "{}", outcome.text);
        let list = outcome.report["own_conversions"].as_array().cloned();
        let list = list.expect("figures").into_iter();
        let number = |one: &Value, name: &str| one[name].as_u64().expect("a number");
        list.map(|one| ["calls", "psc_exits", "flushes"].map(|name| number(&one, name)))
            .collect::<Vec<_>>()
    });
    // A large page by CONVERT and by the core protocol, the same once its RMP entries are small, then small ones, each
    // there and back. 512 pages are a list of 506, which is two batches, and one of 6; by the core protocol 8 of 64.
    let small_pages = [[3, 3, 3], [3, 3, 0], [8, 8, 8], [8, 8, 0]];
    let [large, small] = figures;
    assert_eq!(large[..4], [[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 0]]);
    // Each of the core protocol's large entries fails, and is done again in two lists of 256; on its way back the host
    // gives the page a large entry again.
    assert_eq!(large[4..8], [[1, 1, 1], [1, 1, 0], [3, 1, 9], [1, 1, 0]]);
    assert_eq!(large[8..], small_pages);
    for split in [&small[..4], &small[4..8]] {
        assert_eq!(split, [[1, 1, 1], [1, 1, 0], [3, 1, 9], [3, 1, 0]]);
    }
    assert_eq!(small[8..], small_pages);
}

#[test]
fn the_longest_calls_are_told_in_instructions() {
    let bench = Bench::packed(&["--cmdline", "mode=selftest"]);
    let outcome = bench.run(&["--deterministic"]);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    let calls = outcome.report["longest_calls"].as_array().expect("calls");
    let grow = calls.iter().find(|call| call["call"] == "pool.grow");
    let figure = |name: &str| grow.expect("a growth")[name].as_u64().expect("counted");
    let (own, whole) = (figure("vmpl0_instructions"), figure("whole_instructions"));
    // A few thousand at VMPL0; a request to the host on top.
    assert!(
        (100..1_000_000).contains(&own) && own < whole,
        "{own}, {whole}"
    );
}
