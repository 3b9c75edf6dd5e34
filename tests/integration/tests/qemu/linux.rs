// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stock Debian kernels at VMPL2, and what goes wrong with a kernel: each run ends with its cause.
//!
//! `make test` fetches the kernels; a machine that cannot have them fails here with the reason.

use std::collections::BTreeSet;

use crate::bench::{Bench, Outcome, said};

/// Exit codes of the runner.
const CHECK_FAILED: i32 = 1;
const BAD_INPUT: i32 = 2;
const DIED: i32 = 3;

/// The series that the code was written against, one that it was not, and one from before there were SVSMs.
const USUAL: &str = "6.12";
const OTHER: &str = "7";
const TOO_OLD: &str = "6.1";

fn assert_success(outcome: &Outcome, vcpus: u64) {
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    let report = &outcome.report;
    assert_eq!(report["success"], true);
    assert_eq!(report["guest"]["cpus"], vcpus);
    let checks = report["checks"].as_array().expect("a list");
    assert!(checks.len() >= 13, "{} checks", checks.len());
    // At kernel entry 512 pages are rescinded one by one, and no more calls than for a usual boot.
    let calls = report["svsm_calls"].as_u64().expect("a number");
    assert!((520..800).contains(&calls), "{calls} calls");
    assert!(outcome.counter("svsm.msr.core.pvalidate") >= 512);
    assert!(outcome.counter("svsm.ghcb.core.create-vcpu") == vcpus - 1);
    assert!(outcome.counter("vmgexit.2.psc") > 0);
}

/// The last line names the cause; before it come the console's last lines.
fn assert_ends(outcome: &Outcome, code: i32, cause: &str) {
    assert_eq!(outcome.code, code, "{}", outcome.text);
    let verdict = outcome.text.trim_end().lines().last().expect("a verdict");
    assert!(
        verdict.starts_with("runner: ") && verdict.contains(cause),
        "'{cause}': {}",
        outcome.text
    );
    assert!(
        code == BAD_INPUT || outcome.text.contains("last console lines:"),
        "{}",
        outcome.text
    );
}

/// Boots that end well on every machine.
mod machines {
    use super::*;

    /// On this machine RAM below 4 GiB ends at 1920 MiB.
    #[test]
    fn a_low_window_where_there_is_more_room_above_4_gib() {
        let bench = Bench::linux_with_options(USUAL, &["--window-place", "low"]);
        let outcome = bench.linux_run(&["--memory", "3GiB"]);
        assert_success(&outcome, 1);
        assert!(outcome.text.contains("-0x77ffffff in "), "{}", outcome.text);
    }

    #[test]
    fn one_vcpu() {
        let outcome = Bench::linux(USUAL, "").linux_run(&[]);
        assert_success(&outcome, 1);
        let own_swiotlb = outcome.counter("convert.shared.2m");
        assert!(own_swiotlb >= 32, "{own_swiotlb}");
        assert!(outcome.counter("svsm.ghcb.core.pvalidate") < 96);
    }

    /// More than the zero page has room for, on a host with small pages.
    #[test]
    fn a_memory_map_of_512_entries() {
        let options = ["--map-entries", "512", "--rmp", "4k"];
        assert_success(&Bench::linux(USUAL, "").linux_run(&options), 1);
    }

    /// Features that ask nothing of a kernel but to know them; the second CPU has them, too.
    #[test]
    fn a_kernel_with_the_processors_protection() {
        let bench = Bench::linux_with_options(USUAL, &crate::PROTECTION);
        let outcome = bench.linux_run(&["--vcpus", "2"]);
        assert_success(&outcome, 2);
        let named = "SEV-SNP NoHostIBS BTBIsol SMTProt IBPBOnEntry";
        assert!(outcome.text.contains(named), "{}", outcome.text);
    }

    /// On several threads a kernel's own swiotlb is tried beside the module.
    #[test]
    fn two_vcpus_in_one_thread() {
        let single = ["--vcpus", "2", "--tcg-thread", "single", "--rmp", "4k"];
        assert_success(&Bench::linux(USUAL, "").linux_run(&single), 2);
    }

    #[test]
    fn another_kernel() {
        let outcome = Bench::linux(OTHER, "").linux_run(&["--vcpus", "2", "--rmp", "4k"]);
        assert_success(&outcome, 2);
        let release = outcome.report["guest"]["release"].as_str().expect("a name");
        assert!(release.starts_with("7."), "{release}");
    }
}

/// The project's module drives the devices.
mod module {
    use super::*;

    const POOL: [&str; 4] = ["--vcpus", "2", "--driver", "pool"];
    const SWIOTLB: [&str; 4] = ["--vcpus", "2", "--driver", "swiotlb"];
    /// Several disks at once.
    const DISKS: [&str; 2] = ["--more-disks", "2"];

    /// A figure of the report by the way to it.
    fn figure(outcome: &Outcome, way: &str) -> u64 {
        let value = way
            .split('/')
            .fold(&outcome.report, |value, key| &value[key]);
        value
            .as_u64()
            .unwrap_or_else(|| panic!("no figure {way}: {}", outcome.text))
    }

    /// A number of the module's statistics after the work.
    fn statistic(outcome: &Outcome, name: &str) -> u64 {
        let value = outcome.report["guest"]["pool"]["after"][name].as_str();
        value.and_then(|text| text.parse().ok()).expect(name)
    }

    /// The runner checks each promise; here only what it must have seen.
    fn assert_pool(outcome: &Outcome) {
        assert_eq!(outcome.code, 0, "{}", outcome.text);
        assert!(figure(outcome, "account/watched_pages") > 0);
        assert_eq!(figure(outcome, "account/changed_elsewhere"), 0);
        assert!(figure(outcome, "account/window/boot") >= 2 << 20);
        assert!(outcome.counter("svsm.msr.pool.7") + outcome.counter("svsm.ghcb.pool.16") > 0);
    }

    #[test]
    fn beside_swiotlb_on_the_same_disk() {
        let with = Bench::linux_on_pool(USUAL, "");
        let without = Bench::linux(USUAL, "svsm.driver=swiotlb");
        let pools = with.linux_on_each_rmp(&POOL);
        let swiotlbs = without.linux_on_each_rmp(&SWIOTLB);
        // The host is asked for 2 MiB at a time all the same; only PVALIDATE falls back, three calls for each of 32.
        let [_, small] = &swiotlbs;
        assert!(small.counter("svsm.ghcb.core.pvalidate") >= 96);
        for (pool, swiotlb) in pools.iter().zip(swiotlbs) {
            assert_pool(pool);
            assert_success(&swiotlb, 2);
            let (code, text) = with.compare(&[("pool", pool), ("swiotlb", &swiotlb)], &[]);
            assert_eq!(code, 0, "{text}");
            let shared = "account/shared/peak";
            assert!(
                10 * figure(pool, shared) < figure(&swiotlb, shared),
                "{text}"
            );
        }
    }

    /// This kernel exports a function for SVSM calls, which the module uses by default; the second boot calls by the MSR.
    #[test]
    fn another_kernel() {
        let by_msr = "svsm_swiotlb.path=msr";
        for (words, rmp, called) in [("", "2m", [true, false]), (by_msr, "4k", [false, true])] {
            let bench = Bench::linux_on_pool(OTHER, words);
            let outcome = bench.linux_run(&[&POOL[..], &["--rmp", rmp]].concat());
            assert_pool(&outcome);
            assert_called(&outcome, called);
        }
    }

    /// Which ways of calling the service were taken: the kernel's own function, and the MSR.
    fn assert_called(outcome: &Outcome, expected: [bool; 2]) {
        let taken = ["calls_memory_form", "calls_msr"].map(|name| statistic(outcome, name) > 0);
        assert_eq!(taken, expected, "{}", outcome.text);
    }

    /// Here the module does not load: the paravisor has a service at its number, and it is another one. The kernel does all of its
    /// work by its own swiotlb then, and the check from outside sees that.
    #[test]
    fn who_bounces_elsewhere_is_found() {
        let bench = Bench::linux_with_another_service(USUAL);
        let outcome = bench.linux_run(&POOL);
        let cause = "insmod: can't insert '/lib/modules/svsm_swiotlb.ko': Protocol not supported";
        assert!(outcome.text.contains(cause), "{}", outcome.text);
        // Busybox tries a load that fails a second time, in another way. The kernel says that the module is not its own.
        let log: BTreeSet<_> = lines(&outcome, "module_log")
            .into_iter()
            .filter(|line| !line.contains("taint"))
            .collect();
        let cause = "svsm_swiotlb: no pool: protocol 0x40000001 of this SVSM is another one, or another version of ours; ";
        assert!(
            log.len() == 1 && log.iter().all(|line| line.starts_with(cause)),
            "{log:?}"
        );
        assert_eq!(outcome.code, CHECK_FAILED, "{}", outcome.text);
        // All that the disks and the network brought.
        let bytes = figure(&outcome, "account/changed_elsewhere");
        assert!(bytes > 1 << 20, "{bytes}");
        for name in [
            "nothing is bounced elsewhere",
            "the kernel's own swiotlb is not used",
            "the module is loaded and drives every device",
        ] {
            let line = format!("FAIL {name}");
            assert!(outcome.text.contains(&line), "{line}: {}", outcome.text);
        }
    }

    /// By the MSR, the other way of the usual series as well. What the same work does to swiotlb takes minutes of waiting, which
    /// `make linux-compare WORK=stress` does.
    #[test]
    fn hard_work_grows_the_pool() {
        let options = [&POOL[..], &DISKS].concat();
        let bench = Bench::linux_on_pool(USUAL, "svsm.work=stress svsm_swiotlb.path=msr");
        let pool = bench.linux_run(&options);
        assert_pool(&pool);
        assert_called(&pool, [false, true]);
        // What is held afterwards depends on where the network's receive buffers came to lie.
        let [boot, peak] =
            ["boot", "peak"].map(|moment| figure(&pool, &format!("account/window/{moment}")));
        assert!(peak > boot, "{boot} to {peak}");
    }

    /// Disks are read in large pieces, with these options of the runner, while little of what is granted is free
    /// (tests/linux/work/scarce.sh). What came of it is `expected`. The checks that fail begin with `failing`, and no other does.
    fn assert_scarce(
        bench: &Bench,
        options: &[&str],
        expected: &[&str],
        failing: &[&str],
    ) -> Outcome {
        let outcome = bench.linux_run(&[&POOL[..], options].concat());
        assert_eq!(said(&outcome, "scarce"), expected, "{}", outcome.text);
        assert_eq!(outcome.code, CHECK_FAILED, "{}", outcome.text);
        let failed = outcome.failed_checks();
        let as_expected = failed.len() == failing.len()
            && failed
                .iter()
                .zip(failing)
                .all(|(name, start)| name.starts_with(start));
        assert!(as_expected, "{failed:?}: {}", outcome.text);
        outcome
    }

    /// How many maps failed for this cause, and for any.
    fn failures(outcome: &Outcome, cause: &str) -> [u64; 2] {
        [&format!("failures_{cause}"), "failures"].map(|name| statistic(outcome, name))
    }

    /// Lines of the guest's report.
    fn lines<'a>(outcome: &'a Outcome, name: &str) -> Vec<&'a str> {
        let lines = outcome.report["guest"][name].as_array().expect("a list");
        lines
            .iter()
            .map(|line| line.as_str().expect("text"))
            .collect()
    }

    const FAILING: &str = "no map fails";
    const TROUBLE: &str = "the kernel reports no trouble";
    /// A disk that repeats what fails ends its read in the end.
    const REPEATED: [&str; 2] = ["maps fail", "read-right"];

    /// virtio-blk repeats what fails. AHCI's driver gives up soon, and whoever reads sees one error.
    #[test]
    fn a_cap_is_reached() {
        // The driver has 92 KiB of its own for each port.
        let words = "svsm_swiotlb.cap=2M svsm.devices=blk,net,ahci ahci.mask_port_map=1";
        let bench = Bench::linux_with_held_memory(USUAL, words, &["ahci", "sd_mod"]);
        let options = ["--devices", "blk,net,ahci"];
        let [whole, pieces] = ["sda as a whole", "sda in pieces"];
        let refused = format!("{whole}: Input/output error");
        let [pieces, whole] = [pieces, whole].map(|what| format!("{what}: read-right"));
        let [fails, right] = REPEATED;
        let said = [&refused, &pieces, fails, right, &whole];
        let outcome = assert_scarce(&bench, &options, &said, &[TROUBLE, FAILING]);
        let trouble = lines(&outcome, "trouble");
        let once = "I/O error, dev sda, sector 0 op 0x0:(READ)";
        assert!(
            trouble.len() == 1 && trouble[0].starts_with(once),
            "{trouble:?}"
        );
        let cause = |line: &&str| line.starts_with("ahci 0000:00:1f.2: ") && line.contains(" cap ");
        let log = lines(&outcome, "module_log");
        assert!(log.iter().any(cause), "{log:?}");
        let [by_cap, all] = failures(&outcome, "cap_reached");
        assert!(by_cap > 0 && by_cap == all, "{by_cap} of {all}");
        assert_eq!(figure(&outcome, "account/window/peak"), 2 << 20);
    }

    /// From the moment on when the work begins.
    #[test]
    fn the_host_refuses_more() {
        let from = ["--psc-from", "mark=2", "--psc-manner", "refuse"];
        let bench = Bench::linux_with_held_memory(USUAL, "", &[]);
        let outcome = assert_scarce(&bench, &from, &REPEATED, &[FAILING]);
        let [by_host, all] = failures(&outcome, "host_refused");
        assert!(by_host > 0 && by_host == all, "{by_host} of {all}");
        assert_eq!(figure(&outcome, "account/window/peak"), 2 << 20);
    }

    /// It says that memory is shared, and does not share it. The machine finds at the end what was written there.
    #[test]
    fn the_host_lies() {
        let from = ["--psc-from", "mark=2", "--psc-manner", "lie"];
        let complaints = [
            "the guest turns the machine off, and",
            "no page that is not shared was written",
        ];
        let bench = Bench::linux_with_held_memory(USUAL, "", &[]);
        assert_scarce(&bench, &from, &["no map fails", "read-right"], &complaints);
    }
}

/// What can be wrong with a kernel, its initrd, its memory and its devices. None of it has to do with the size of RMP
/// entries, so each is tried with one of the two.
mod bad_input {
    use super::*;

    #[test]
    fn too_little_memory() {
        let bench = Bench::linux(USUAL, "");
        // Too little to unpack the kernel is seen before the start, too little to run by the kernel.
        let outcome = bench.linux_run(&["--memory", "112MiB"]);
        assert_ends(&outcome, BAD_INPUT, "MEM=");
    }

    #[test]
    fn a_kernel_that_knows_no_svsm() {
        let outcome = Bench::linux(TOO_OLD, "").linux_run(&[]);
        assert_ends(&outcome, DIED, "it lacks support for an SVSM");
    }

    #[test]
    fn a_device_that_is_missing() {
        let bench = Bench::linux(USUAL, "svsm.devices=blk,nvme");
        let outcome = bench.linux_run(&["--devices", "blk"]);
        assert_ends(&outcome, CHECK_FAILED, "there is no /dev/nvme0n1");
    }

    #[test]
    fn a_corrupt_initrd() {
        let bench = Bench::linux_with_initrd(USUAL, b"\x1f\x8b\x08\0 no archive at all");
        let outcome = bench.linux_run(&["--rmp", "4k"]);
        assert_ends(&outcome, DIED, "the initrd is corrupt");
    }

    #[test]
    fn a_kernel_that_panics() {
        let outcome = Bench::linux(USUAL, "svsm.fault=panic").linux_run(&[]);
        assert_ends(&outcome, DIED, "the guest's kernel panicked");
        assert!(outcome.text.contains("sysrq triggered crash"));
    }

    #[test]
    fn a_guest_that_hangs() {
        // Longer than the paravisor says nothing while it accepts RAM, on the slowest of hosts.
        let outcome = Bench::linux(USUAL, "svsm.fault=hang").linux_run(&["--idle", "60"]);
        assert_ends(&outcome, DIED, "the guest hangs; user space was running");
    }
}
