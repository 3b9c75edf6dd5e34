// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian's OVMF as it is, at VMPL2, and what it does: reset vector, UEFI Shell, a kernel from a disk.

use crate::bench::Bench;

const DIED: i32 = 3;

#[test]
fn stock_firmware_boots_a_stock_kernel_from_a_disk() {
    let outcome = Bench::firmware("6.12").firmware_run(&[]);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    for words in ["UEFI Interactive Shell", "SEV: SNP running at VMPL2."] {
        assert!(outcome.text.contains(words), "'{words}': {}", outcome.text);
    }
    let checks = outcome.report["checks"].as_array().expect("a list");
    let has = |name: &str| checks.iter().any(|check| check["name"] == name);
    assert!(has("the kernel was started by UEFI firmware"));
    assert!(has("no RAM of the kernel is in the window"));
    // OVMF calls by the MSR protocol only: its RAM at the start, page by page the pages that it shares.
    let calls = outcome.counter("svsm.msr.core.pvalidate");
    assert!((530..2000).contains(&calls), "{calls} calls");
    assert_eq!(outcome.counter("instruction.2.pvalidate"), 0);
    assert_eq!(outcome.counter("pattern.bad"), 0);
}

/// Firmware starts the other processors itself, twice, and the kernel after it, which names new VMSAs for them.
#[test]
fn stock_firmware_and_kernel_use_all_vcpus() {
    let bench = Bench::firmware("6.12");
    let outcome = bench.firmware_run(&["--vcpus", "4"]);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    assert_eq!(outcome.report["guest"]["cpus"], 4);
    assert_eq!(outcome.counter("pattern.bad"), 0);
    assert!(outcome.counter("vmgexit.2.apic-id-list") > 0);
}

#[test]
fn firmware_without_a_kernel_ends_in_its_shell() {
    let bench = Bench::firmware("6.12");
    bench.write_disk(&[0; 1 << 20]);
    let outcome = bench.firmware_run(&["--idle", "60"]);
    assert_eq!(outcome.code, DIED, "{}", outcome.text);
    let cause = "the guest hangs; the firmware was running";
    assert!(outcome.text.contains(cause), "{}", outcome.text);
    assert!(outcome.text.contains("Shell>"), "{}", outcome.text);
}
