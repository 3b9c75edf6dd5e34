// SPDX-License-Identifier: MIT OR Apache-2.0
//! The emulated SNP machine by itself: `tests/snp-host/examples/self_check.rs` writes a guest that
//! goes through the machine's rules, without paravisor and runner. What the other tests conclude
//! from violations and patterns rests on these.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Where the host looks for the launch image (`snp_host::memory_plan::LAUNCH_BASE`).
const LAUNCH_BASE: &str = "0x7a000000";
/// The machine: QEMU memory that has room for a guest of [`GUEST_MIB`].
const MACHINE: &[&str] = &[
    "-machine",
    "q35",
    "-m",
    "3072M",
    "-cpu",
    "EPYC-Milan,+la57,phys-bits=52",
    "-nodefaults",
    "-no-reboot",
    "-vga",
    "none",
    "-display",
    "none",
    "-monitor",
    "none",
    "-device",
    "isa-debug-exit,iobase=0xf4,iosize=4",
];
const GUEST_MIB: &str = "64";
/// Most seconds; it takes about one, and ten where a processor is missed.
const TIMEOUT: &str = "300";

/// Whether QEMU has a thread for each processor, or one for all.
const EACH: &str = "tcg,thread=multi";
const ONE: &str = "tcg,thread=single";
/// Processors for a guest with two CPUs (`snp_host::launch::processors`).
const FOR_TWO: &str = "3";
/// Switch `kick_manner` of `snp_host::switches`: never, and when a flush is complete.
const NO_KICK: &str = "64";
const KICK_ON_FLUSH: &str = "128";

/// Runs the guest with these switches and this mode (0: nothing wrong; `self_check.rs`). Returns
/// the code of the machine's `exit` record and all records.
fn run(switches: &str, mode: &str) -> (i32, String) {
    run_on(EACH, "1", switches, mode)
}

/// The same on so many processors of QEMU.
fn run_on(accelerator: &str, processors: &str, switches: &str, mode: &str) -> (i32, String) {
    let built = super::bench::built();
    let folder = TempDir::new().expect("a temporary folder");
    let file = |name: &str| {
        let path = folder.path().join(name);
        path.into_os_string().into_string().expect("a plain path")
    };
    let (launch, records) = (file("launch.bin"), file("records.log"));
    let written = Command::new(built.join("release/examples/self_check"))
        .args([&launch, GUEST_MIB, switches, mode])
        .status()
        .expect("`make images` builds the example");
    assert!(written.success());
    let host = built.join("x86_64-unknown-none/release/snp-host");
    let loader = format!("loader,file={launch},addr={LAUNCH_BASE},force-raw=on");
    let status = Command::new("timeout")
        .args([TIMEOUT, "qemu-system-x86_64"])
        .args(MACHINE)
        .args(["-accel", accelerator, "-smp", processors])
        .arg("-kernel")
        .arg(&host)
        .args(["-device", &loader, "-debugcon", &format!("file:{records}")])
        .status()
        .expect("QEMU starts");
    let records = std::fs::read_to_string(Path::new(&records)).expect("records");
    // `isa-debug-exit` makes the status odd; a timeout or QEMU's own errors are no such status.
    let code = match status.code() {
        Some(code) if code % 2 == 1 && records.contains("\nexit code=") => code / 2,
        other => panic!("QEMU ended with {other:?}:\n{records}"),
    };
    (code, records)
}

#[test]
fn every_step_holds() {
    // Strict, RAM private from the start, implicit conversion. Not with 4 KiB entries: step 12 is a
    // 2 MiB PVALIDATE that must succeed.
    for switches in ["0", "2", "4"] {
        let (code, records) = run(switches, "0");
        // The reason is the number of the step that failed.
        assert!(records.contains("set=0xb reason=0x0"), "{records}");
        assert_eq!(code, 0, "{records}");
    }
}

#[test]
fn wrong_accesses_stop_the_machine() {
    let wrong = [
        (
            "1",
            "what=private-access-to-shared-page gpa=0x700000 vmpl=0",
        ),
        (
            "2",
            "what=shared-access-to-private-page gpa=0x500000 vmpl=0",
        ),
        ("3", "what=vmpl-permission gpa=0x500000 vmpl=2"),
    ];
    for (hostile, report) in wrong {
        let (code, records) = run("0", hostile);
        assert_eq!(code, 3, "{records}");
        assert!(records.contains(report), "{records}");
    }
}

#[test]
fn a_stray_write_is_found_by_its_pattern() {
    let (code, records) = run("0", "4");
    assert_eq!(code, 5, "{records}");
    assert!(
        records.contains("pattern gpa=0xc00000 offset=0x0 found=0x5"),
        "{records}"
    );
}

/// Two CPUs: AP creation, VMSAs in use, waits that an AP creation and an interrupt end, interrupts
/// that are not sent, NMIs, and a page that is rescinded while the other CPU reads it.
#[test]
fn two_cpus_share_the_machine() {
    for (accelerator, switches) in [(EACH, "0"), (ONE, "0"), (EACH, "2")] {
        let (code, records) = run_on(accelerator, FOR_TWO, switches, "5");
        assert!(records.contains("set=0xb reason=0x0"), "{records}");
        assert_eq!(code, 0, "{records}");
        for counter in ["kick", "wait", "interrupt.refused"] {
            let line = format!("count name={counter} value=");
            assert!(records.contains(&line), "no {counter}:\n{records}");
        }
        for count in [
            "nmi.sent value=2",
            "nmi.merged value=1",
            "nmi.injected value=2",
            "vmgexit.2.nmi-complete value=2",
        ] {
            let line = format!("count name={count}\n");
            assert!(records.contains(&line), "{count}:\n{records}");
        }
    }
}

/// The proof that kicks are needed, and that the test above sees them: without, the other CPU goes
/// on reading through its old translation.
#[test]
fn without_kicks_an_old_translation_lives_on() {
    let (code, records) = run_on(EACH, FOR_TWO, NO_KICK, "6");
    assert_eq!(code, 0, "{records}");
    let (code, records) = run_on(EACH, FOR_TWO, NO_KICK, "5");
    // Step 29.
    assert!(records.contains("set=0xb reason=0x1d"), "{records}");
    assert_eq!(code, 1, "{records}");
}

/// What a guest forgets to flush shows: a rescinded page is read until the flush, and not beyond.
#[test]
fn an_old_translation_lives_until_the_flush() {
    let (code, records) = run_on(EACH, FOR_TWO, KICK_ON_FLUSH, "7");
    assert_eq!(code, 0, "{records}");
    let (code, records) = run_on(EACH, FOR_TWO, KICK_ON_FLUSH, "5");
    assert!(records.contains("set=0xb reason=0x1d"), "{records}");
    assert_eq!(code, 1, "{records}");
}

/// QEMU's fault with its CPU 0 (docs/DECISIONS.md, D21) finds no guest there. Otherwise this one is dead long before the last
/// of its exits.
#[test]
fn a_cpu_that_restores_its_floating_point_state_disturbs_no_other() {
    let (code, records) = run_on(EACH, FOR_TWO, "0", "8");
    assert!(records.contains("set=0xb reason=0x0"), "{records}");
    assert_eq!(code, 0, "{records}");
}

/// The last one is the first to be started: it takes the place of QEMU's CPU 0.
#[test]
fn a_missing_cpu_is_named() {
    for processors in ["1", "2"] {
        let (code, records) = run_on(EACH, processors, "0", "5");
        assert_eq!(code, 6, "{records}");
        assert!(
            records.contains("died what=cpu-did-not-start cpu=2"),
            "{records}"
        );
    }
}
