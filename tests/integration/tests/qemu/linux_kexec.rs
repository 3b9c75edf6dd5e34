// SPDX-License-Identifier: MIT OR Apache-2.0
//! A stock kernel starts another one (tests/linux/work/kexec.sh): in order, and by a crash on any CPU. The second one calls through
//! the launch calling area, finds what the first one's module held, and does the usual work.

use crate::bench::{Bench, Outcome, said};

/// Kernels before 6.14 leave memory shared when they start another one.
const SERIES: &str = "7";
const PAGE: u64 = 2 << 20;

/// The second kernel did all of the work, and the first one what it was told to.
fn assert_worked(outcome: &Outcome, work: &str, cpu: u32) {
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    let guest = &outcome.report["guest"];
    assert_eq!(guest["work"], format!("after-{work}"));
    assert_eq!(guest["earlier_kernels"], 1);
    let lines = said(outcome, work);
    let on = format!("on CPU {cpu} of ");
    assert!(
        lines.iter().any(|line| line.starts_with(&on)),
        "{}",
        outcome.text
    );
    // Each kernel moves its first calling area, which for both is the launch area.
    assert_eq!(outcome.counter("svsm.msr.core.remap-ca"), 2);
}

/// What the first kernel held came back, by the host's account, but for what the second one's module was granted. It takes a call
/// for each window in which something was held.
fn assert_given_back(outcome: &Outcome, windows: u64) {
    let window = &outcome.report["account"]["window"];
    assert_eq!(window["boot"], PAGE, "{}", outcome.text);
    let peak = window["peak"].as_u64().expect("a number");
    assert!(peak >= 2 * PAGE, "{peak}");
    let after = &outcome.report["guest"]["pool"]["after"];
    let releases = &after["calls_release_orphans"];
    assert_eq!(releases, &windows.to_string(), "{}", outcome.text);
    assert_eq!(after["lost_bytes"], "0", "{}", outcome.text);
}

// Without the module once each; the tests with it start the second kernel on two vCPUs, and on the CPU that the first one made.
#[test]
fn p_14_1_a_kernel_starts_another_one() {
    let bench = Bench::linux_that_starts_another(SERIES, false, "svsm.work=kexec", &[]);
    let outcome = bench.linux_run(&["--vcpus", "1", "--memory", "768MiB"]);
    assert_worked(&outcome, "kexec", 0);
}

/// The second kernel, on both CPUs, finds the memory of the first one where that one's note says.
#[test]
fn p_14_1_a_crash_starts_another_kernel() {
    let words = "svsm.work=kdump crashkernel=192M svsm.crash_cpu=0 svsm.crash_cpus=2";
    let bench = Bench::linux_that_starts_another(SERIES, false, words, &[]);
    let options = ["--vcpus", "2", "--crash-cpus", "2", "--memory", "768MiB"];
    let outcome = bench.linux_run(&options);
    assert_worked(&outcome, "kdump", 0);
    assert_eq!(said(&outcome, "vmcore").len(), 1, "{}", outcome.text);
}

#[test]
fn the_module_gives_back_before_another_kernel_and_the_next_one_the_rest() {
    let bench = Bench::linux_that_starts_another(SERIES, true, "svsm.work=kexec", &[]);
    let options = ["--driver", "pool", "--vcpus", "2", "--memory", "768MiB"];
    let outcome = bench.linux_run(&options);
    assert_worked(&outcome, "kexec", 0);
    assert_given_back(&outcome, 1);
}

/// The CPU that crashes is the one that the second kernel runs on, with a VMSA that the first one made. Memory of both windows is held.
#[test]
fn p_14_2_the_module_of_a_crash_kernel_gives_back_what_was_held_in_both_windows() {
    let words = "svsm.work=kdump crashkernel=192M svsm.crash_cpu=1";
    let low = ["--low-window", "32MiB"];
    let bench = Bench::linux_that_starts_another(SERIES, true, words, &low);
    let options = ["--driver", "pool", "--vcpus", "2", "--memory", "768MiB"];
    let outcome = bench.linux_run(&options);
    assert_worked(&outcome, "kdump", 1);
    assert_given_back(&outcome, 2);
    let held = format!("granted of the low window {PAGE}");
    assert!(
        said(&outcome, "kdump").contains(&held.as_str()),
        "{}",
        outcome.text
    );
    assert_eq!(said(&outcome, "vmcore").len(), 1, "{}", outcome.text);
}
