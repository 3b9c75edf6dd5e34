// SPDX-License-Identifier: MIT OR Apache-2.0
//! One image, one disk, any number of runs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use igvm::snp_defs::SevFeatures;
use igvm::{IgvmDirectiveHeader, IgvmFile, IgvmRevision, IsolationType};
use serde_json::Value;
use tempfile::TempDir;

mod linux;

pub use linux::said;

/// Bytes of the disk: enough to make the pool grow, little enough to be hashed four times soon.
const DISK_BYTES: u64 = 24 << 20;

/// RMP entries of 2 MiB wherever the guest asks for them, and of 4 KiB only: hosts differ.
pub const RMP_SIZES: [&str; 2] = ["2m", "4k"];

/// A folder with a packed image and a disk.
pub struct Bench {
    folder: TempDir,
    built: PathBuf,
    /// Where builder, runner and paravisor are: `built`, or its part for firmware.
    tools: PathBuf,
}

/// What a run left behind.
pub struct Outcome {
    /// Exit code of the runner.
    pub code: i32,
    /// Everything it printed.
    pub text: String,
    /// `run.json`, or null when the run ended before there was one.
    pub report: Value,
}

impl Outcome {
    /// A counter of the whole run; 0 when it never counted.
    pub fn counter(&self, name: &str) -> u64 {
        self.report["counters"][name].as_u64().unwrap_or(0)
    }

    /// Names of the checks that failed, in their order. A report without checks fails.
    pub fn failed_checks(&self) -> Vec<&str> {
        let checks = self.report["checks"].as_array().expect("a list");
        assert!(checks.len() >= 10, "{} checks", checks.len());
        let failed = checks.iter().filter(|check| check["ok"] == false);
        failed
            .map(|check| check["name"].as_str().expect("a name"))
            .collect()
    }

    /// SVSM calls of the second full read. A report without the figure fails.
    pub fn steady_svsm_calls(&self) -> u64 {
        self.steady("svsm_calls")
    }

    /// Page conversions of the second full read. A report without the figure fails.
    pub fn steady_conversions(&self) -> u64 {
        self.steady("conversions")
    }

    /// Wrong calls the guest sent.
    pub fn self_tests(&self) -> usize {
        self.report["self_tests"].as_array().map_or(0, Vec::len)
    }

    fn steady(&self, name: &str) -> u64 {
        self.report["steady_state"][name]
            .as_u64()
            .expect("the report has a steady state")
    }
}

/// The folder with the built images.
pub fn built() -> PathBuf {
    std::env::var_os("SVSM_SWIOTLB_IMAGES")
        .expect("SVSM_SWIOTLB_IMAGES names the folder with the built images: run `make test-qemu`")
        .into()
}

fn text_of(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

impl Bench {
    /// The image with default options, but for a window of 64 MiB.
    pub fn new() -> Self {
        Self::packed(&[])
    }

    /// The image with these options of the builder.
    pub fn packed(options: &[&str]) -> Self {
        let built = built();
        let guest = built.join("x86_64-unknown-none/release/test-guest");
        let bench = Self::empty(built.clone(), built);
        bench.pack(&guest, &options.iter().map(OsStr::new).collect::<Vec<_>>());
        bench.write_disk(&disk(DISK_BYTES));
        bench
    }

    /// A small image that is soon up: with this mode of the guest and these options of the builder. No disk worth the name.
    pub fn small(mode: &str, options: &[&str]) -> Self {
        let built = built();
        let guest = built.join("x86_64-unknown-none/release/test-guest");
        let bench = Self::empty(built.clone(), built);
        let cmdline = format!("mode={mode}");
        let mut options = [&["--cmdline", &cmdline], options].concat();
        if !options.contains(&"--window") {
            options.extend(["--window", "16MiB"]);
        }
        bench.pack(&guest, &options.iter().map(OsStr::new).collect::<Vec<_>>());
        bench.write_disk(&[0; 4096]);
        bench
    }

    fn empty(built: PathBuf, tools: PathBuf) -> Self {
        Self {
            folder: TempDir::new().expect("a temporary folder"),
            built,
            tools,
        }
    }

    /// The built paravisor, or a changed one of this bench's.
    fn paravisor(&self) -> PathBuf {
        let own = self.path("paravisor");
        match own.exists() {
            true => own,
            false => self.tools.join("x86_64-unknown-none/release/paravisor"),
        }
    }

    fn pack(&self, payload: &Path, options: &[&OsStr]) {
        let mut command = Command::new(self.tools.join("release/igvm-builder"));
        command.arg("--paravisor").arg(self.paravisor());
        command.arg("--payload").arg(payload);
        command.arg("--output").arg(self.path("image.igvm"));
        if !options.contains(&OsStr::new("--window")) {
            command.args(["--window", "64MiB"]);
        }
        succeed(command.args(options));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sets bits of SEV_FEATURES in the start VMSA of the packed image, and nowhere else.
    pub fn change_features(&self, bits: u64) {
        let path = self.path("image.igvm");
        let bytes = std::fs::read(&path).expect("the image was packed");
        let file = IgvmFile::new_from_binary(&bytes, Some(IsolationType::Snp));
        let file = file.expect("our own file");
        let mut directives = file.directives().to_vec();
        let Some(IgvmDirectiveHeader::SnpVpContext { vmsa, .. }) = directives.last_mut() else {
            panic!("the VMSA is not last");
        };
        let changed = vmsa.sev_features.into_bits() ^ bits;
        vmsa.sev_features = SevFeatures::from_bits(changed);
        let (platforms, first) = (file.platforms().to_vec(), file.initializations().to_vec());
        let changed = IgvmFile::new(IgvmRevision::V1, platforms, first, directives);
        let mut bytes = Vec::new();
        changed
            .expect("valid")
            .serialize(&mut bytes)
            .expect("no larger");
        std::fs::write(path, bytes).expect("the image is written");
    }

    /// Replaces the disk's contents.
    pub fn write_disk(&self, contents: &[u8]) {
        std::fs::write(self.path("disk.img"), contents).expect("the disk is written");
    }

    /// Boots the image with these options of the runner.
    pub fn run(&self, options: &[&str]) -> Outcome {
        self.boot("run", "run.json", "256MiB", options)
    }

    /// The same on a host with each of [`RMP_SIZES`], in that order.
    pub fn run_on_each_rmp(&self, options: &[&str]) -> [Outcome; 2] {
        RMP_SIZES.map(|rmp| self.run(&[options, &["--rmp", rmp]].concat()))
    }

    /// Boots a small image on a machine that fits it, with these options of the runner. It has no time to hang.
    pub fn small_run(&self, options: &[&str]) -> Outcome {
        let limits = ["--timeout", "120", "--idle", "60"];
        let options = [&limits[..], options].concat();
        self.boot("run", "run.json", "96MiB", &options)
    }

    /// The same on a host with each of [`RMP_SIZES`], in that order.
    pub fn small_run_on_each_rmp(&self, options: &[&str]) -> [Outcome; 2] {
        RMP_SIZES.map(|rmp| self.small_run(&[options, &["--rmp", rmp]].concat()))
    }

    /// Boots the image so that instructions are counted instead of time; what host and guest wrote down.
    pub fn log_by_instructions(&self, options: &[&str]) -> String {
        let kept = self.path("kept");
        let folder = kept.to_str().expect("a plain path");
        let outcome = self.run(&[options, &["--deterministic", "--keep", folder]].concat());
        assert_eq!(outcome.code, 0, "{}", outcome.text);
        ["records.log", "console.log"]
            .map(|name| std::fs::read_to_string(kept.join(name)).expect("it was kept"))
            .concat()
    }

    fn boot(&self, verb: &str, report: &str, memory: &str, options: &[&str]) -> Outcome {
        let host = self.built.join("x86_64-unknown-none/release/snp-host");
        let mut command = Command::new(self.tools.join("release/runner"));
        command
            .arg(verb)
            .arg("--igvm")
            .arg(self.path("image.igvm"))
            .arg("--host")
            .arg(host);
        command
            .arg("--disk")
            .arg(self.path("disk.img"))
            .arg("--report")
            .arg(self.path("report"));
        if !options.contains(&"--memory") {
            command.args(["--memory", memory]);
        }
        // For the slowest of hosts: a run that ends well never waits for them.
        for (limit, seconds) in [("--timeout", "1800"), ("--idle", "300")] {
            if !options.contains(&limit) {
                command.args([limit, seconds]);
            }
        }
        // An older run's report must not be taken for this one's.
        let _ = std::fs::remove_file(self.path("report").join(report));
        let output = command.args(options).output().expect("the runner starts");
        Outcome {
            code: output.status.code().unwrap_or(-1),
            text: text_of(&output),
            report: read_report(&self.path("report").join(report)),
        }
    }
}

/// Runs a command that has to succeed.
fn succeed(command: &mut Command) {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", text_of(&output));
}

fn read_report(path: &Path) -> Value {
    let Ok(text) = std::fs::read_to_string(path) else {
        return Value::Null;
    };
    serde_json::from_str(&text).expect("run.json is JSON")
}

/// Bytes that repeat nowhere, so that a block in the wrong place changes the digest.
pub fn disk(bytes: u64) -> Vec<u8> {
    let words = (0..bytes / 8).map(|n| (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    words.flat_map(u64::to_le_bytes).collect()
}
