// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several vCPUs and devices at the same time, under a burst and in a steady state.
//!
//! What such a run has to show is in tests/runner/src/device_checks.rs; these tests choose the
//! machines.

use serde_json::Value;

use crate::bench::{Bench, Outcome, disk};

const ALL_DEVICES: [&str; 2] = ["--devices", "blk,net,nvme"];

/// Boots the disk work with all devices and these options, with both sizes of RMP entries.
fn run(vcpus: &str, options: &[&str]) -> [Outcome; 2] {
    let bench = Bench::packed(&["--cmdline", "mode=disk devices=blk,net,nvme"]);
    bench.run_on_each_rmp(&[&ALL_DEVICES[..], &["--vcpus", vcpus], options].concat())
}

/// A good run on so many vCPUs.
fn assert_good(outcome: &Outcome, vcpus: u64) {
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    assert_eq!(outcome.steady_svsm_calls(), 0);
    assert_eq!(outcome.steady_conversions(), 0);
    let report = &outcome.report;
    assert_eq!(report["vcpus"], vcpus);
    let count = |name: &str| report[name].as_array().map_or(0, Vec::len);
    assert_eq!(
        (count("busy"), count("bursts")),
        (6, usize::try_from(vcpus).expect("few"))
    );
    // Ten of every run with disks, nine of one with further devices.
    assert!(count("checks") >= 19, "{} checks", count("checks"));
}

#[test]
fn two_vcpus() {
    run("2", &[]).iter().for_each(|one| assert_good(one, 2));
}

#[test]
fn two_vcpus_on_one_thread_of_qemu() {
    let outcomes = run("2", &["--tcg-thread", "single"]);
    outcomes.iter().for_each(|one| assert_good(one, 2));
}

#[test]
fn two_vcpus_that_validate_their_own_memory() {
    let bench = Bench::packed(&["--ram", "firmware", "--cmdline", "mode=disk"]);
    let outcomes = bench.run_on_each_rmp(&[&ALL_DEVICES[..], &["--vcpus", "2"]].concat());
    outcomes.iter().for_each(|one| assert_good(one, 2));
}

/// All but one have no device; each calls, to fill the pool. The disk is small: while it is read, fifteen others are busy on
/// the few processors that tests have.
#[test]
fn sixteen_vcpus() {
    let bench = Bench::packed(&["--cmdline", "mode=disk devices=blk"]);
    bench.write_disk(&disk(2 << 20));
    let outcome = bench.run(&["--devices", "blk", "--vcpus", "16", "--rmp", "4k"]);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    let report = &outcome.report;
    assert_eq!(report["vcpus"], 16);
    let bursts = report["bursts"].as_array().expect("a burst each");
    assert_eq!(bursts.len(), 16);
    assert!(
        bursts
            .iter()
            .all(|burst| burst["rounds"].as_u64() > Some(0))
    );
    let calls = |burst: &Value| burst["grows"].as_u64().zip(burst["releases"].as_u64());
    let calls: u64 = bursts
        .iter()
        .filter_map(calls)
        .map(|(grows, releases)| grows + releases)
        .sum();
    assert!(calls > 0, "{}", outcome.text);
    assert_eq!(outcome.counter("svsm.msr.core.create-vcpu"), 15);
    assert_eq!(outcome.steady_svsm_calls(), 0);
    assert_eq!(outcome.steady_conversions(), 0);
}

#[test]
fn one_vcpu_drives_all_devices_in_turn() {
    run("1", &[]).iter().for_each(|one| assert_good(one, 1));
}

#[test]
fn more_vcpus_than_devices() {
    run("4", &[]).iter().for_each(|one| assert_good(one, 4));
}

/// P-5.9.5, invariant P2: a vCPU that reads a private page when another converts it faults there. Once on a machine where
/// nothing but the service's flush ends the reader's translation; and on one where not even that does it goes on reading,
/// which the guest notices, so the first half can fail.
#[test]
fn p2_a_page_that_is_converted_is_gone_for_every_vcpu() {
    let bench = Bench::packed(&["--cmdline", "mode=watch"]);
    for kick in ["flush", "always"] {
        let options = ["--vcpus", "2", "--kick", kick, "--expect", "nothing"];
        for outcome in bench.run_on_each_rmp(&options) {
            assert_the_reader_faulted(&outcome);
        }
    }
    let goes_on = ["--vcpus", "2", "--kick", "never"];
    let stale = ["--expect", "terminate=0xb:0x12"];
    for outcome in bench.run_on_each_rmp(&[&goes_on[..], &stale].concat()) {
        // The guest's code for a page that is read through an old translation.
        assert_eq!(outcome.code, 0, "{}", outcome.text);
    }
}

/// How far the service is when the reader's fault is looked at is a matter of luck: the page is revoked or shared, which
/// stops the machine, or not validated, an exception for which the guest ends itself.
fn assert_the_reader_faulted(outcome: &Outcome) {
    let text = &outcome.text;
    if let Some(violation) = outcome.report["violation"].as_str() {
        let of_the_reader = ["vmpl-permission", "private-access-to-shared-page"]
            .iter()
            .any(|what| violation.contains(&format!("what={what} ")));
        assert!(of_the_reader && violation.contains(" vmpl=2 "), "{text}");
    } else {
        let ending = &outcome.report["termination"];
        assert_eq!(
            (&ending["set"], &ending["reason"]),
            (&0xb.into(), &11.into()),
            "{text}"
        );
        // #VC for a page that is not validated, the only one of the run.
        assert_eq!(outcome.counter("vc404"), 1, "{text}");
    }
}

#[test]
fn a_missing_device_is_named() {
    let bench = Bench::packed(&["--cmdline", "mode=disk devices=blk,nvme"]);
    for outcome in bench.run_on_each_rmp(&["--devices", "blk,net"]) {
        assert_ne!(outcome.code, 0);
        assert!(outcome.text.contains("'nvme'"), "{}", outcome.text);
        assert_eq!(outcome.report["termination"]["reason"], 14);
    }
}
