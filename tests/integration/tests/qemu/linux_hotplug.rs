// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUs of a stock kernel go off line and come back under load (tests/linux/work/hotplug.sh): CREATE_VCPU replaces the vCPU that
//! the kernel left behind, and DELETE_VCPU of that one succeeds.

use crate::bench::{Bench, said};

const SERIES: &str = "6.12";
const CYCLES: u64 = 10;

#[test]
fn cpus_go_off_line_and_come_back_under_load() {
    let words = format!("svsm.work=hotplug svsm.cycles={CYCLES}");
    let bench = Bench::linux_on_pool(SERIES, &words);
    let outcome = bench.linux_run(&["--vcpus", "3", "--timeout", "900"]);
    let lines = said(&outcome, "hotplug");
    let says = |line: &str| assert!(lines.contains(&line), "{line}: {}", outcome.text);
    says(&format!("cycles {CYCLES} of {CYCLES}"));
    says("online 0-2 of 0-2");
    let (right, others): (Vec<_>, Vec<_>) = lines
        .iter()
        .filter(|line| line.starts_with("load "))
        .partition(|line| line.contains("-right "));
    assert!(right.len() >= 3 && others.is_empty(), "{}", outcome.text);
    // Neither a CPU that does not come nor a VMSA that the kernel had to leak.
    assert_eq!(lines.len(), 2 + right.len(), "{}", outcome.text);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    let calls = |call: &str| outcome.counter(&format!("svsm.ghcb.core.{call}"));
    assert_eq!(calls("create-vcpu"), 2 * (1 + CYCLES));
    assert_eq!(calls("delete-vcpu"), 2 * CYCLES);
}
