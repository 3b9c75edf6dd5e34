// SPDX-License-Identifier: MIT OR Apache-2.0
//! `igvm-builder verify` from outside: the digest comes from the file that was packed, and only a report that is right in everything
//! that was not left out by name ends with 0.

mod signed_report;
mod small_elf;

use std::path::Path;
use std::process::{Command, Output};

use igvm_builder::report::AttestationReport;
use igvm_builder::{FeatureOptions, Options, PolicyOptions, RamMode, Switch, WindowPlace, build};
use signed_report::{certificate, report, sign, vcek_extensions};
use small_elf::{SmallElf, code, data};
use tempfile::TempDir;
use zerocopy::IntoBytes;

const MINIMUM: &str = "bootloader=10,tee=1,snp=27,microcode=86";
/// "once", and 60 zeros.
const REPORT_DATA: &str = "6f6e6365";

/// A folder with an image, the report of a VM of it with two vCPUs, and the certificate for that.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().expect("a temporary folder"));
        let paravisor = SmallElf::new(vec![code(0x41_0000), data(0x41_2010, 0x3000)]);
        let payload = SmallElf::new(vec![code(0x100_0000)]);
        files.write("paravisor", &paravisor.bytes());
        files.write("payload", &payload.bytes());
        let image = build(&Options {
            paravisor: files.path().join("paravisor"),
            payload: files.path().join("payload"),
            initrd: None,
            window: 64 << 20,
            low_window: None,
            hard_cap: None,
            window_place: WindowPlace::High,
            unit_limit: Switch::On,
            ram: Some(RamMode::Accepted),
            protocol: 0x4000_0001,
            cmdline: String::new(),
            cpus: 2,
            features: FeatureOptions::USUAL,
            policy: PolicyOptions {
                page_swap: Switch::Off,
                ..PolicyOptions::USUAL
            },
        })
        .expect("suitable files");
        files.write("image.igvm", &image.bytes);
        files.write("vcek", &certificate(&vcek_extensions()));
        let digest = image.digests[1].0;
        files.write_report(|all| (all.measurement, all.policy) = (digest, 0x203_0000.into()));
        files
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path().join(name), bytes).expect("a temporary folder");
    }

    fn write_report(&self, change: impl FnOnce(&mut AttestationReport)) {
        let mut changed = report();
        change(&mut changed);
        self.write("report", sign(changed).as_bytes());
    }

    fn verify(&self, options: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_igvm-builder"));
        command.current_dir(self.path()).args(["verify", "report"]);
        command.args(options).output().expect("it starts")
    }
}

/// What `verify` never checks of a certificate.
const CHAIN: &str = "not checked: certificate: its chain to AMD's root";

/// Exit code and lines of the command, but for [`CHAIN`].
fn ends(output: &Output, code: i32, lines: &[&str]) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    let found: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with(CHAIN))
        .collect();
    assert_eq!(found.len(), lines.len(), "{text}");
    for (found, line) in found.into_iter().zip(lines) {
        assert!(found.contains(line), "'{line}' is not in '{found}'");
    }
}

#[test]
fn the_command_packs_the_same_file() {
    let files = Files::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_igvm-builder"));
    command
        .current_dir(files.path())
        .args(["--paravisor", "paravisor", "--payload", "payload"]);
    command.args([
        "--window",
        "64MiB",
        "--page-swap",
        "off",
        "--ram",
        "accepted",
    ]);
    let output = command
        .args(["--output", "packed.igvm", "--cpus", "2"])
        .output();
    let lines = [
        "packed.igvm: ",
        "1 vCPU: ",
        "2 vCPUs: ",
        "guest policy: 0x2030000",
    ];
    ends(&output.expect("it starts"), 0, &lines);
    let read = |name| std::fs::read(files.path().join(name)).expect("the file");
    assert!(read("packed.igvm") == read("image.igvm"));
}

const SIGNED: [&str; 10] = [
    "--image",
    "image.igvm",
    "--cpus",
    "2",
    "--minimum-tcb",
    MINIMUM,
    "--report-data",
    REPORT_DATA,
    "--certificate",
    "vcek",
];

#[test]
fn a_report_of_the_image_is_as_wanted() {
    let files = Files::new();
    let output = files.verify(&SIGNED);
    let good = "report: everything that was checked is as wanted";
    ends(&output, 0, &[good]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with(CHAIN), "{text}");
}

#[test]
fn each_fault_has_its_line_and_ends_with_one() {
    let files = Files::new();
    let with = |at: usize, value| {
        let mut options = SIGNED;
        options[at] = value;
        options
    };
    ends(&files.verify(&with(3, "1")), 1, &["wrong: measurement: "]);
    ends(
        &files.verify(&with(7, "6f6e63")),
        1,
        &["wrong: report data: "],
    );
    let lines = ["reported", "committed", "current", "launch"]
        .map(|which| format!("wrong: tcb: snp of the {which} TCB"));
    let newer = "bootloader=10,tee=1,snp=28,microcode=86";
    ends(
        &files.verify(&with(5, newer)),
        1,
        &lines.each_ref().map(String::as_str),
    );
    files.write_report(|all| all.vmpl = 0.into());
    ends(
        &files.verify(&SIGNED),
        1,
        &[
            "wrong: measurement: ",
            "wrong: policy: 'SMT allowed'",
            "wrong: policy: it asks for ABI",
            "wrong: vmpl: ",
        ],
    );
}

#[test]
fn what_is_left_out_is_left_out_by_name_and_said() {
    let files = Files::new();
    let mut options = SIGNED[..8].to_vec();
    let missing = files.verify(&options);
    assert_eq!(missing.status.code(), Some(2));
    options.push("--no-signature");
    let signature = "not checked: signature: the report can be anybody's";
    let good = "report: everything that was checked is as wanted";
    ends(&files.verify(&options), 0, &[signature, good]);
    (options[5], options[7]) = ("any", "any");
    options.extend(["--alias-check", "off"]);
    let rest = [
        "not checked: TCB versions",
        "not checked: report data",
        "not checked: memory aliases",
    ];
    ends(
        &files.verify(&options),
        0,
        &[signature, rest[0], rest[1], rest[2], good],
    );
    for left_out in [4, 6] {
        let mut options = SIGNED.to_vec();
        options.drain(left_out..left_out + 2);
        assert_eq!(files.verify(&options).status.code(), Some(2));
    }
}

#[test]
fn files_that_cannot_be_judged_end_with_two_and_one_line() {
    let files = Files::new();
    let refused = |name: &str, bytes: &[u8], line: &str| {
        let files = Files::new();
        files.write(name, bytes);
        ends(&files.verify(&SIGNED), 2, &[line]);
    };
    refused(
        "report",
        &[0; 1183],
        "has 1183 bytes and is no attestation report",
    );
    refused("report", b"", "has 0 bytes");
    refused("image.igvm", b"IGVM", "is no IGVM file");
    refused("vcek", b"key", "is no X.509 certificate");
    let with = |at: usize, value, line| {
        let mut options = SIGNED;
        options[at] = value;
        ends(&files.verify(&options), 2, &[line]);
    };
    with(1, "nowhere", "cannot read nowhere");
    with(3, "513", "513 vCPUs are impossible");
    with(5, "snp=27", "is missing");
    with(7, "xy", "are no bytes");
    with(7, "", "write 1 to 64");
}
