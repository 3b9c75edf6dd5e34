// SPDX-License-Identifier: MIT OR Apache-2.0
//! One image, one disk, any number of runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// Bytes of the disk: enough to make the pool grow, little enough to be hashed four times soon.
const DISK_BYTES: usize = 24 << 20;

/// A folder with a packed image and a disk.
pub struct Bench {
    folder: TempDir,
    built: PathBuf,
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
        Self::pack(built, &guest, options.iter().map(OsStr::new))
    }

    /// Debian's kernel of this series with the project's initrd and further words of command line.
    pub fn linux(series: &str, words: &str) -> Self {
        let built = built();
        let initrd = built.join("linux").join(series).join("initrd");
        let bench = Self::new_empty();
        let output = Command::new(built.join("release/runner"))
            .arg("initrd")
            .arg("--init")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../linux/init"))
            .arg("--busybox")
            .arg(built.join("linux/busybox"))
            .arg("--modules")
            .arg(built.join("linux").join(series).join("modules"))
            .arg("--output")
            .arg(&initrd)
            .output()
            .expect("the runner starts");
        drop(bench);
        assert!(output.status.success(), "{}", text_of(&output));
        Self::linux_pack(built, series, words, &initrd)
    }


    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the disk's contents.
    pub fn write_disk(&self, contents: &[u8]) {
        std::fs::write(self.path("disk.img"), contents).expect("the disk is written");
    }

    /// Boots the image with these options of the runner.
    pub fn run(&self, options: &[&str]) -> Outcome {
        let host = self.built.join("x86_64-unknown-none/release/snp-host");
        let mut command = Command::new(self.built.join("release/runner"));
        command
            .arg("run")
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
            command.args(["--memory", "256MiB"]);
        }
        if !options.contains(&"--timeout") {
            command.args(["--timeout", "400"]);
        }
        let output = command.args(options).output().expect("the runner starts");
        Outcome {
            code: output.status.code().unwrap_or(-1),
            text: text_of(&output),
            report: read_report(&self.path("report/run.json")),
        }
    }
}

fn read_report(path: &Path) -> Value {
    let Ok(text) = std::fs::read_to_string(path) else {
        return Value::Null;
    };
    serde_json::from_str(&text).expect("run.json is JSON")
}

/// Bytes that repeat nowhere, so that a block in the wrong place changes the digest.
fn disk() -> Vec<u8> {
    let words = (0..DISK_BYTES as u64 / 8).map(|n| (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    words.flat_map(u64::to_le_bytes).collect()
}
