// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Linux module comes and goes: loads that are refused and why, unloading, devices that are bound, unbound and busy
//! (tests/linux/work/life.sh), and a machine on which there is nothing to load it for.

use crate::bench::{Bench, said};

const SERIES: &str = "6.12";
const OTHER: &str = "7";

/// The steps of the script in their order.
const STEPS: [&str; 33] = [
    "second-load",
    "unload-while-bound",
    "devices-before",
    "devices-unbound",
    "nothing-in-use",
    "unload",
    "no-such-protocol",
    "no-such-protocol-by-msr",
    "no-such-path",
    "no-such-rebind",
    "odd-cap",
    "no-size",
    "cap-beyond-the-hard-one",
    "stale-module",
    "load-again",
    "no-orphans",
    "first-grant",
    "devices-again",
    "contents-again",
    "cap-at-run-time",
    "odd-cap-at-run-time",
    "cap-stays",
    "unload-again",
    "kernels-own-way",
    "contents-own-way",
    "load-when-busy",
    "busy-is-left",
    "idle-is-taken",
    "contents-side-by-side",
    "unload-third",
    "load-never",
    "devices-by-name",
    "hibernation",
];

#[test]
fn loading_and_unloading_with_devices_bound_unbound_and_busy() {
    let bench = Bench::linux_with_stale_module(SERIES, OTHER);
    let outcome = bench.linux_run(&["--vcpus", "2"]);
    let mut expected: Vec<_> = STEPS.iter().map(|step| format!("{step} ok")).collect();
    expected.push("done".into());
    assert_eq!(said(&outcome, "life"), expected, "{}", outcome.text);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
}

/// Too little memory is free for the module's records, and then the kernel takes the beginning of the window for RAM. That it does
/// is what the failing checks say.
#[test]
fn a_machine_on_which_the_module_cannot_be() {
    const WINDOW: u64 = 256 << 20;
    let bench = Bench::linux_with_ram_in_the_window(SERIES, WINDOW);
    let outcome = bench.linux_run(&["--memory", "1280MiB", "--devices", "blk"]);
    let steps = [
        "no-room-for-records ok",
        "window-is-ram ok",
        "disk-goes-on ok",
        "done",
    ];
    assert_eq!(said(&outcome, "refused"), steps, "{}", outcome.text);
    let expected = [
        "the window is reserved in the kernel's memory map",
        "no page of the window is in the kernel's direct map",
    ];
    assert_eq!(outcome.failed_checks(), expected, "{}", outcome.text);
    assert!(
        outcome
            .text
            .contains("0x10000000-0x4fffffff is not in one reserved range"),
        "{}",
        outcome.text
    );
}

/// The module ends in one line, and the kernel goes on to its end.
#[test]
fn a_machine_that_is_no_snp_guest() {
    let bench = Bench::linux_on_pool(SERIES, "");
    let text = bench.linux_without_snp(SERIES);
    for line in [
        "linux: failed step=module cause=svsm_swiotlb.ko: insmod: can't insert '/lib/modules/svsm_swiotlb.ko': No such device",
        "linux: module-log svsm_swiotlb: this is no SEV-SNP guest; the kernel's own swiotlb stays",
        "linux: done ",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}
