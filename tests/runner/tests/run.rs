// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command from outside: exit status and messages for bad input, and for runs whose machine is a
//! script that says what a test wants to hear.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use igvm::snp_defs::{SevFeatures, SevVmsa};
use igvm::{
    IgvmDirectiveHeader, IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader, IgvmRevision,
};
use igvm_defs::{IGVM_VHS_SUPPORTED_PLATFORM, IgvmPlatformType};
use serde_json::Value;
use tempfile::TempDir;
use zerocopy::FromZeros;

/// Finds the files that a run passes, as shell variables.
const PREAMBLE: &str = r#"#!/bin/sh
[ "$1" = --version ] && { echo "QEMU emulator version 8.0.0 (test)"; exit; }
for word in "$@"; do
    case "$word" in
    file:*records.log) records=${word#file:} ;;
    file:*console.log) console=${word#file:} ;;
    if=none,id=d0,*) first=${word##*file=} ;;
    if=none,id=d1,*) second=${word##*file=} ;;
    esac
done
say() { echo "$@" >>"$console"; }
record() { echo "$@" >>"$records"; }
snapshot() { record "snapshot id=$1 tsc=$2"; record "count name=vmgexit.2.msr-run-vmpl value=$3"
    record "count name=convert.shared.2m value=$4"; record "count name=pattern.checked value=9"; record "end id=$1"; }
"#;

/// What the test guest and the host say in a run without a fault.
const GOOD_RUN: &str = r#"
digest=$(sha256sum "$first" | cut -d' ' -f1)
record "boot version=1 mem=0x10000000 switches=0x0"
say "@selftest name=unknown-call expected=0x80000002 got=0x80000002 ok=1"
say "@attach tsc=1000 boot_tsc=10 window=268435456 granted=2097152"
say "@pool tsc=1000 granted=2097152 used=0"
say "@pool tsc=2000 granted=4194304 used=4000000"
say "@pool tsc=3000 granted=8388608 used=8000000"
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
say "@svsm name=grow count=3"; say "@shim name=bytes-in value=600"; say "@shim name=bytes-out value=400"
say "@done ok=1"
record "terminate vmpl=2 set=0xb reason=0x0"; snapshot 4294967295 8000 9 8
record "exit code=0"; exit 1
"#;

/// Inputs of a run in a temporary folder.
struct Setup {
    folder: TempDir,
}

impl Setup {
    fn new(machine: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let setup = Self { folder };
        setup.write("qemu", format!("{PREAMBLE}{machine}").as_bytes());
        fs::set_permissions(setup.path("qemu"), PermissionsExt::from_mode(0o755)).expect("ours");
        setup.write("host", b"\x7fELF");
        setup.write("image.igvm", &small_image());
        setup.write("disk", &[0x5a; 4096]);
        setup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("a temporary folder");
    }

    fn run(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
        command
            .arg("run")
            .arg("--igvm")
            .arg(self.path("image.igvm"));
        command.arg("--host").arg(self.path("host"));
        command.arg("--qemu").arg(self.path("qemu"));
        command.args(["--memory", "64MiB", "--idle", "2"]);
        command.current_dir(self.folder.path()).args(more);
        command.output().expect("the runner starts")
    }

    /// Runs with the options `more`, the disk and the expectation of the default run.
    fn run_disk(&self, more: &[&str]) -> Output {
        let usual = ["--disk", "disk", "--expect", "all", "--report", "report"];
        self.run(&[&usual[..], more].concat())
    }
}

/// An image without pages: enough for a machine that is a script.
fn small_image() -> Vec<u8> {
    let platform = IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: 1,
        highest_vtl: 2,
        platform_type: IgvmPlatformType::SEV_SNP,
        platform_version: 1,
        shared_gpa_boundary: 0,
    };
    let policy = IgvmInitializationHeader::GuestPolicy {
        policy: 0x3_0000,
        compatibility_mask: 1,
    };
    let vmsa = SevVmsa {
        sev_features: SevFeatures::new().with_snp(true),
        ..SevVmsa::new_zeroed()
    };
    let start = IgvmDirectiveHeader::SnpVpContext {
        gpa: 0xffff_ffff_f000,
        compatibility_mask: 1,
        vp_index: 0,
        vmsa: Box::new(vmsa),
    };
    let platforms = vec![IgvmPlatformHeader::SupportedPlatform(platform)];
    let file = IgvmFile::new(IgvmRevision::V1, platforms, vec![policy], vec![start]);
    let mut bytes = Vec::new();
    file.expect("valid").serialize(&mut bytes).expect("small");
    bytes
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_good_run_succeeds_and_is_reported() {
    let setup = Setup::new(GOOD_RUN);
    let output = setup.run_disk(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout);
    for part in [
        "growth step 3",
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
        let output = setup.run_disk(&[]);
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
            "record 'terminate vmpl=0 set=0xa reason=0x4a'; record 'exit code=2'; exit 5",
            "no single RAM entry has room for the window",
        ),
        ("say 'still here'; exec sleep 60", "--idle"),
        ("while :; do say again; sleep 0.1; done", "--timeout"),
    ] {
        let output = Setup::new(machine).run_disk(&["--timeout", "4"]);
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
    let expecting = |what: &str| setup.run(&["--expect", what]).status.code();
    assert_eq!(expecting("terminate=0xa:0x4a"), Some(0));
    assert_eq!(expecting("terminate=0xa:0x4b"), Some(1));
    assert_eq!(expecting("success"), Some(3));
    assert_eq!(expecting("nothing"), Some(0));
    let setup = Setup::new("record 'violation what=write gpa=0x1000 vmpl=2 rip=0x5'");
    let expecting = |what: &str| setup.run(&["--expect", what]).status.code();
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
    let no_disk = setup.run(&["--expect", "disk"]);
    assert_eq!(no_disk.status.code(), Some(2));
    assert!(stderr(&no_disk).contains("pass one with --disk"));
    for (name, bytes, part) in [
        ("image.igvm", &b"no image"[..], "is no IGVM file"),
        ("host", &b"#!/bin/sh"[..], "is no ELF file"),
        (
            "qemu",
            &b"#!/bin/sh\necho QEMU emulator version 5.2.0"[..],
            "QEMU 5.2.0 is too old",
        ),
    ] {
        let setup = Setup::new("touch started");
        setup.write(name, bytes);
        let output = setup.run(&[]);
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
    let output = setup.run_disk(&["--keep", "kept", "--rmp", "4k", "--ram-state", "private"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let launch = fs::read(setup.path("kept/launch.bin")).expect("kept");
    assert_eq!(launch[..8], *b"SNPLAUNC");
    assert_eq!(launch[16..24], 3_u64.to_le_bytes(), "the switches");
    assert_eq!(launch[24..32], (64_u64 << 20).to_le_bytes(), "the memory");
    for name in ["records.log", "console.log", "qemu.log", "second.img"] {
        assert!(setup.path("kept").join(name).exists(), "{name}");
    }
    let again = setup.run_disk(&["--keep", "kept"]);
    assert_eq!(
        again.status.code(),
        Some(0),
        "an older run's records were read"
    );
}
