// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command from outside: exit status and messages for bad input, and for runs whose machine is a
//! script that says what a test wants to hear.

mod setup;

use std::fs;
use std::process::{Command, Output};

use igvm::snp_defs::SevFeatures;
use serde_json::Value;
use setup::{Setup, stderr};

/// What the test guest and the host say in a run without a fault.
const GOOD_RUN: &str = r#"
digest=$(sha256sum "$first" | cut -d' ' -f1)
record "boot version=1 mem=0x10000000 switches=0x0"
say "@selftest name=unknown-call expected=0x80000002 got=0x80000002 ok=1"
say "@attach tsc=1000 boot_tsc=10 window=268435456 granted=2097152"
done=0 flushes=0
for id in $(seq 16 33); do
  record "mark id=$id tsc=$((1100 + id))"; record "snapshot id=$id tsc=$((1100 + id))"
  record "count name=vmgexit.2.msr-run-vmpl value=$((done + ${more_calls:-0} * (id / 29)))"
  record "count name=vmgexit.0.psc value=$done"; record "count name=instruction.0.invlpgb value=$flushes"; record "end id=$id"
  # There, back, and nothing; 2 MiB at once, or in batches of 253 and of 64 pages.
  batches=1; [ $id -ge 28 ] && batches=3; [ $id -ge 31 ] && batches=8
  case $(((id - 16) % 3)) in
  0) done=$((done + batches)); flushes=$((flushes + batches)) ;;
  1) done=$((done + batches)) ;;
  esac
done
record "psc tsc=1118 vmpl=0 op=shared gpa=0x100000 bytes=4096 total_shared=4096"
say "@convert bytes=2097152"
say "@pool tsc=1000 granted=2097152 used=0"
say "@pool tsc=2000 granted=4194304 used=4000000"
say "@pool tsc=3000 granted=8388608 used=8000000"
record "psc tsc=3500 vmpl=0 op=shared gpa=0x10000000 bytes=14680064 total_shared=16777216"
say "@pool tsc=4000 granted=16777216 used=16000000"
say "@progress phase=read1 done=100 total=100"
say "@digest phase=read1 sha256=$digest"
record "mark id=1 tsc=5000"; snapshot 1 5000 7 8
record "mark id=2 tsc=6000"; snapshot 2 6000 ${steady_calls:-7} 8
say "@digest phase=read2 sha256=${wrong:-$digest}"
cp "$first" "$second"
say "@digest phase=verify sha256=$digest"
record "psc tsc=7000 vmpl=0 op=private gpa=0x10000000 bytes=14680064 total_shared=0"
say "@pool tsc=7000 granted=2097152 used=0"
say "@svsm name=grow count=4"; say "@shim name=growths value=4"; say "@shim name=bytes-in value=600"; say "@shim name=bytes-out value=400"
say "@done ok=1"
record "terminate vmpl=2 set=0xb reason=0x0"; snapshot 4294967295 8000 9 8
record "exit code=0"; exit 1
"#;

/// Runs with the options `more`, the disk and the expectation of the default run.
fn run_disk(setup: &Setup, more: &[&str]) -> Output {
    let usual = ["--disk", "disk", "--expect", "all", "--report", "report"];
    setup.command("run", &[&usual[..], more].concat())
}

#[test]
fn a_good_run_succeeds_and_is_reported() {
    let setup = Setup::new(GOOD_RUN);
    let output = run_disk(&setup, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout);
    for part in [
        "growth step 3",
        "4 KiB to shared by CONVERT",
        "16.0 MiB",
        "SVSM calls",
        "grow",
        "1000 (0.0 MiB)",
    ] {
        assert!(table.contains(part), "no '{part}' in {table}");
    }
    let json = fs::read(setup.path("report/run.json")).expect("written");
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["success"], true);
    assert_eq!(json["pool"]["peak"], 16 << 20);
    assert_eq!(json["pool"]["freed"], 14 << 20);
    assert_eq!(json["own_conversions"].as_array().map(Vec::len), Some(12));
    assert_eq!(json["pool"]["shared"], 14 << 20);
    assert_eq!(json["steady_state"]["svsm_calls"], 0);
    assert_eq!(
        json["digests"]["host_disk"],
        json["digests"]["guest"]["read2"]
    );
    let chart = fs::read_to_string(setup.path("report/pool.svg")).expect("written");
    assert!(chart.contains("granted by the service"));
}

#[test]
fn each_broken_promise_is_named() {
    let zeros = "0".repeat(64);
    let wrong = format!("wrong={zeros}");
    for (fault, check) in [
        (wrong.as_str(), "the second read's digest matches"),
        ("steady_calls=8", "no SVSM call in steady state"),
        (
            "more_calls=3",
            "CONVERT takes a call, an exit and a flush for 253 pages",
        ),
        ("cp() { :; }", "the second disk holds the first one's bytes"),
        ("record 'hello there'", "keep their format"),
        (
            "record 'pattern gpa=0x1000 offset=0 found=0x0'",
            "written from outside",
        ),
        (
            "say '@selftest name=x expected=0x1 got=0x2 ok=0'",
            "documented code",
        ),
    ] {
        let setup = Setup::new(&format!("{fault}\n{GOOD_RUN}"));
        let output = run_disk(&setup, &[]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{fault}: {message}");
        assert!(
            message.contains("1 of the checks failed"),
            "{fault}: {message}"
        );
        assert!(message.contains(check), "{fault}: {message}");
    }
}

#[test]
fn a_death_shows_the_last_words() {
    for (machine, words) in [
        ("say 'hello from the guest'; exit 3", "hello from the guest"),
        (
            "record 'violation what=write gpa=0x1000 vmpl=2 rip=0x5'; exit 7",
            "machine stopped",
        ),
        (
            "record 'died what=triple-fault vmpl=0'; record 'exit code=4'; exit 9",
            "triple-fault",
        ),
        (
            "record 'died what=host-state-in-vmcb cpu=0'; record 'exit code=4'; exit 9",
            "host-state-in-vmcb",
        ),
        (
            "record 'terminate vmpl=0 set=0xa reason=0x4a'; record 'exit code=2'; exit 5",
            "no single RAM entry has room for the window",
        ),
        ("say 'still here'; exec sleep 60", "--idle"),
        ("while :; do say again; sleep 0.1; done", "--timeout"),
    ] {
        let limits: &[&str] = match words {
            "--idle" => &["--idle", "2"],
            "--timeout" => &["--timeout", "4"],
            _ => &[],
        };
        let output = run_disk(&Setup::new(machine), limits);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{machine}: {message}");
        assert!(message.contains(words), "{machine}: {message}");
    }
}

#[test]
fn an_expected_end_is_a_success() {
    let setup = Setup::new(
        "record 'boot version=1'; record 'terminate vmpl=0 set=0xa reason=0x4a'; record 'exit code=2'",
    );
    let expecting = |what: &str| setup.command("run", &["--expect", what]).status.code();
    assert_eq!(expecting("terminate=0xa:0x4a"), Some(0));
    assert_eq!(expecting("terminate=0xa:0x4b"), Some(1));
    assert_eq!(expecting("success"), Some(3));
    assert_eq!(expecting("nothing"), Some(0));
    let setup = Setup::new("record 'violation what=write gpa=0x1000 vmpl=2 rip=0x5'");
    let expecting = |what: &str| setup.command("run", &["--expect", what]).status.code();
    assert_eq!(expecting("violation=gpa=0x1000"), Some(0));
    assert_eq!(expecting("violation=gpa=0x2000"), Some(1));
}

#[test]
fn bad_input_gets_one_line_and_starts_nothing() {
    let setup = Setup::new("touch started");
    setup.write("empty", &[]);
    setup.write("odd", &[1; 513]);
    setup.write(
        "text",
        b"some text, longer than a header of an image file\n",
    );
    for (options, part) in [
        (["--disk", "missing"], "check the path"),
        (["--disk", "empty"], "is empty"),
        (["--disk", "odd"], "not a multiple of 512"),
        (["--memory", "3MiB"], "multiple of 2MiB"),
        (["--memory", "much"], "is no size"),
        (["--rmp", "1g"], "invalid value '1g'"),
        (["--expect", "luck"], "write all, disk"),
        (["--devices", "ahci"], "no driver for AHCI"),
        (["--second-disk-size", "100"], ""),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
        command.current_dir(setup.folder.path());
        command.args(["run", "--igvm", "image.igvm", "--host", "host"]);
        command.arg("--qemu").arg(setup.path("qemu")).args(options);
        if options[0] == "--second-disk-size" {
            command.args(["--disk", "disk"]);
        }
        let output = command.output().expect("the runner starts");
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {message}");
        assert!(message.contains(part), "{options:?}: {message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    }
    let no_disk = setup.command("run", &["--expect", "disk"]);
    assert_eq!(no_disk.status.code(), Some(2));
    assert!(stderr(&no_disk).contains("pass one with --disk"));
    let secure_tsc = SevFeatures::new().with_snp(true).with_secure_tsc(true);
    let secure_tsc = setup::image_with(secure_tsc, &[]);
    for (name, bytes, part) in [
        ("image.igvm", &b"no image"[..], "is no IGVM file"),
        ("image.igvm", &secure_tsc, "the SEV feature secure-tsc"),
        ("host", &b"#!/bin/sh"[..], "is no ELF file"),
        (
            "qemu",
            &b"#!/bin/sh\necho QEMU emulator version 5.2.0"[..],
            "QEMU 5.2.0 is too old",
        ),
    ] {
        let setup = Setup::new("touch started");
        setup.write_program(name, bytes);
        let output = setup.command("run", &[]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {message}");
        assert!(message.contains(part), "{name}: {message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
        assert!(!setup.path("started").exists());
    }
    assert!(!setup.path("started").exists());
}

#[test]
fn kept_files_are_those_of_the_run() {
    let setup = Setup::new(GOOD_RUN);
    let output = run_disk(
        &setup,
        &["--keep", "kept", "--rmp", "4k", "--ram-state", "private"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let launch = fs::read(setup.path("kept/launch.bin")).expect("kept");
    assert_eq!(launch[..8], *b"SNPLAUNC");
    assert_eq!(launch[16..24], 3_u64.to_le_bytes(), "the switches");
    assert_eq!(launch[24..32], (64_u64 << 20).to_le_bytes(), "the memory");
    for name in ["records.log", "console.log", "qemu.log", "second.img"] {
        assert!(setup.path("kept").join(name).exists(), "{name}");
    }
    let again = run_disk(&setup, &["--keep", "kept"]);
    assert_eq!(
        again.status.code(),
        Some(0),
        "an older run's records were read"
    );
}
