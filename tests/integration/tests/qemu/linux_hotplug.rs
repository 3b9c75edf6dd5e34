// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUs of a stock kernel go off line and come back under load (tests/linux/work/hotplug.sh): CREATE_VCPU replaces the vCPU that
//! the kernel left behind, and DELETE_VCPU of that one succeeds.

use crate::DIED;
use crate::bench::{Bench, Outcome, said};

const SERIES: &str = "6.12";
const VCPUS: [&str; 4] = ["--vcpus", "3", "--timeout", "1800"];

/// Two CPUs went off line and came back `cycles` times, and nothing else happened.
fn assert_cycled(outcome: &Outcome, cycles: u64) {
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    let lines = said(outcome, "hotplug");
    let says = |line: &str| assert!(lines.contains(&line), "{line}: {}", outcome.text);
    says(&format!("cycles {cycles} of {cycles}"));
    says("online 0-2 of 0-2");
    let load = lines.iter().filter(|line| line.starts_with("load "));
    let right = load.clone().filter(|line| line.contains("-right ")).count();
    assert!(right >= 2 && load.count() == right, "{}", outcome.text);
    // Besides a line for each cycle, neither a CPU that does not come nor a VMSA that the kernel had to leak.
    let cycled = usize::try_from(cycles).expect("few");
    assert_eq!(lines.len(), cycled + 2 + right, "{}", outcome.text);
    let calls = |call: &str| outcome.counter(&format!("svsm.ghcb.core.{call}"));
    assert_eq!(calls("create-vcpu"), 2 * (1 + cycles));
    assert_eq!(calls("delete-vcpu"), 2 * cycles);
}

/// Again and again, where a fault of the kernel's is out of the way.
#[test]
fn cpus_go_off_line_and_come_back_many_times() {
    let words = "svsm.work=hotplug svsm.cycles=3";
    let bench = Bench::linux_on_pool_beside(SERIES, "ghcb_free", words);
    assert_cycled(&bench.linux_run(&VCPUS), 3);
}

/// Each CPU once, and the fault: one that comes back from its second time off line ends the kernel, whatever is beneath it.
#[test]
fn a_kernel_by_itself_takes_a_cpu_off_line_once() {
    let bench = Bench::linux_on_pool(SERIES, "svsm.work=hotplug svsm.cycles=2");
    let outcome = bench.linux_run(&VCPUS);
    assert_eq!(outcome.code, DIED, "{}", outcome.text);
    assert_eq!(said(&outcome, "hotplug"), ["cycle 1"], "{}", outcome.text);
    let cause = "GHCB and Backup GHCB are already in use";
    assert!(outcome.text.contains(cause), "{}", outcome.text);
}
