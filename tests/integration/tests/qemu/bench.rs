// SPDX-License-Identifier: MIT OR Apache-2.0
//! One image, one disk, any number of runs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// Bytes of the disk: enough to make the pool grow, little enough to be hashed four times soon.
const DISK_BYTES: u64 = 24 << 20;
/// Bytes of a kernel's disk: its own pool does not grow, so a few are enough.
const LINUX_DISK_BYTES: u64 = 8 << 20;
/// What the Makefile tells every kernel.
const LINUX_ARGS: &str = "clocksource=jiffies console=ttyS0 earlyprintk=ttyS0,115200 panic=-1";

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

/// What a module or a script said in a boot of Linux (`linux: said NAME: ...`).
pub fn said<'a>(outcome: &'a Outcome, name: &str) -> Vec<&'a str> {
    let lines = outcome.report["guest"]["said"][name].as_array();
    let lines = lines.expect(&outcome.text);
    lines
        .iter()
        .map(|line| line.as_str().expect("text"))
        .collect()
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

    /// Debian's kernel of this series, with the project's initrd and further words of command line.
    pub fn linux(series: &str, words: &str) -> Self {
        let bench = Self::empty(built(), built());
        bench.make_initrd(series, &[]);
        bench.pack_kernel(series, words, "64MiB");
        bench
    }

    /// The same with the project's module and one for tests, whose device is the only one that the pool drives: what others
    /// do does not show in its figures. A window of this size.
    pub fn linux_with_module(series: &str, module: &str, window: &str) -> Self {
        let bench = Self::empty(built(), built());
        bench.make_initrd(series, &["svsm_swiotlb", module]);
        let words = format!("svsm.driver=pool svsm_swiotlb.devices={module} svsm.modules={module}");
        bench.pack_kernel(series, &words, window);
        bench
    }

    /// The same with all devices on the pool, of which a module leaves little while a disk is read.
    pub fn linux_with_held_memory(series: &str, words: &str) -> Self {
        let bench = Self::empty(built(), built());
        bench.make_initrd(series, &["svsm_swiotlb", "map_test"]);
        let words = format!("svsm.driver=pool swiotlb=512 svsm.work=scarce {words}");
        bench.pack_kernel(series, &words, "64MiB");
        bench
    }

    /// The same with all devices on the pool, whose drivers are told of the largest mapping there is, and a disk whose MiB each
    /// begin with their number and end with its complement.
    pub fn linux_with_large_requests(series: &str) -> Self {
        let bench = Self::empty(built(), built());
        bench.make_initrd(series, &["svsm_swiotlb", "map_test"]);
        let words =
            "svsm.driver=pool svsm.devices=blk svsm.work=large svsm_swiotlb.max_mapping=128M";
        bench.pack_kernel(series, words, "256MiB");
        let mut disk = vec![0; 128 << 20];
        for (number, bytes) in (0_u64..).zip(disk.chunks_exact_mut(1 << 20)) {
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            bytes[(1 << 20) - 8..].copy_from_slice(&(!number).to_le_bytes());
        }
        bench.write_disk(&disk);
        bench
    }

    /// The same with the project's module in the initrd, which is loaded, and the smallest swiotlb the kernel takes.
    pub fn linux_on_pool(series: &str, words: &str) -> Self {
        let bench = Self::empty(built(), built());
        bench.make_initrd(series, &["svsm_swiotlb"]);
        let words = format!("svsm.driver=pool swiotlb=512 {words}");
        bench.pack_kernel(series, &words, "64MiB");
        bench
    }

    /// The same with a module of this other series beside it, for the script that has the module come and go.
    pub fn linux_with_stale_module(series: &str, other: &str) -> Self {
        let bench = Self::empty(built(), built());
        let stale = bench.path("svsm_swiotlb-stale.ko");
        std::fs::copy(bench.module(other, "svsm_swiotlb"), &stale).expect("the module is copied");
        let module = bench.module(series, "svsm_swiotlb");
        bench.make_initrd_of(series, &[module, stale]);
        bench.pack_kernel(series, "svsm.driver=pool svsm.work=life", "64MiB");
        bench
    }

    /// Boots the kernel and the initrd of this series on QEMU as it is, without an SNP machine, and without devices; what it
    /// printed.
    pub fn linux_without_snp(&self, series: &str) -> String {
        let kernel = self.built.join("linux").join(series).join("vmlinuz");
        let cmdline = format!("{LINUX_ARGS} svsm.driver=pool svsm.devices=none");
        let mut command = Command::new("timeout");
        command.args([
            "600",
            "qemu-system-x86_64",
            "-machine",
            "q35",
            "-accel",
            "tcg",
        ]);
        command.args(["-cpu", "EPYC", "-m", "512", "-nodefaults", "-no-reboot"]);
        command.args(["-display", "none", "-serial", "stdio", "-kernel"]);
        command.arg(kernel).arg("-initrd").arg(self.path("initrd"));
        let output = command.args(["-append", &cmdline]).output();
        let output = output.expect("QEMU starts");
        assert!(output.status.success(), "{}", text_of(&output));
        text_of(&output)
    }

    /// Debian's OVMF, and a disk from which it boots Debian's kernel of this series.
    pub fn firmware(series: &str) -> Self {
        let bench = Self::empty(built(), built().join("firmware"));
        bench.make_initrd(series, &[]);
        bench.pack(&bench.built.join("ovmf/OVMF.fd"), &[]);
        let mut command = Command::new(bench.tools.join("release/runner"));
        command.arg("boot-disk").arg("--kernel");
        command.arg(bench.built.join("linux").join(series).join("vmlinuz"));
        command.arg("--initrd").arg(bench.path("initrd"));
        command.args(["--cmdline", &format!("{LINUX_ARGS} svsm.devices=blk")]);
        succeed(command.arg("--output").arg(bench.path("disk.img")));
        bench
    }

    fn make_initrd(&self, series: &str, modules: &[&str]) {
        let modules: Vec<_> = modules
            .iter()
            .map(|name| self.module(series, name))
            .collect();
        self.make_initrd_of(series, &modules);
    }

    /// A module of the project's, or one for tests, that `make module test-modules` built for the kernel of this series.
    fn module(&self, series: &str, name: &str) -> PathBuf {
        let release = self.built.join("linux").join(series).join("release");
        let release = std::fs::read_to_string(release);
        let release = release.expect("make test-qemu fetches the kernel");
        let file = format!("{}/{name}.ko", release.trim());
        let folders = ["module", "module/tests"].map(|folder| self.built.join(folder));
        let mut files = folders.iter().map(|folder| folder.join(&file));
        let file = files.find(|file| file.exists());
        file.expect("make test-qemu builds the modules")
    }

    fn make_initrd_of(&self, series: &str, modules: &[PathBuf]) {
        let folder = self.built.join("linux");
        let init = concat!(env!("CARGO_MANIFEST_DIR"), "/../linux/init");
        let mut command = Command::new(self.tools.join("release/runner"));
        command.args(["initrd", "--init", init, "--busybox"]);
        command.arg(folder.join("busybox")).arg("--mark");
        command.arg(folder.join("mark")).arg("--modules");
        command.arg(folder.join(series).join("modules"));
        let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/../linux/work");
        command.args(["--folder", scripts]);
        for file in modules {
            command.arg("--module").arg(file);
        }
        command.arg("--output").arg(self.path("initrd"));
        succeed(&mut command);
    }

    /// The same with these bytes for an initrd.
    pub fn linux_with_initrd(series: &str, initrd: &[u8]) -> Self {
        let bench = Self::empty(built(), built());
        std::fs::write(bench.path("initrd"), initrd).expect("the initrd is written");
        bench.pack_kernel(series, "", "64MiB");
        bench
    }

    fn empty(built: PathBuf, tools: PathBuf) -> Self {
        Self {
            folder: TempDir::new().expect("a temporary folder"),
            built,
            tools,
        }
    }

    fn pack_kernel(&self, series: &str, words: &str, window: &str) {
        self.write_disk(&disk(LINUX_DISK_BYTES));
        let kernel = self.built.join("linux").join(series).join("vmlinuz");
        let cmdline = format!("{LINUX_ARGS} {words}");
        let initrd = self.path("initrd");
        let [initrd_option, cmdline_option, window_option, window] =
            ["--initrd", "--cmdline", "--window", window].map(OsStr::new);
        self.pack(
            &kernel,
            &[
                initrd_option,
                initrd.as_os_str(),
                cmdline_option,
                OsStr::new(&cmdline),
                window_option,
                window,
            ],
        );
    }

    fn pack(&self, payload: &Path, options: &[&OsStr]) {
        let paravisor = self.tools.join("x86_64-unknown-none/release/paravisor");
        let mut command = Command::new(self.tools.join("release/igvm-builder"));
        command.arg("--paravisor").arg(paravisor);
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

    /// Boots the image of a kernel on a host with each of [`RMP_SIZES`], with these options of the runner.
    pub fn linux_on_each_rmp(&self, options: &[&str]) -> [Outcome; 2] {
        RMP_SIZES.map(|rmp| self.linux_run(&[options, &["--rmp", rmp]].concat()))
    }

    /// Boots the image of a kernel with these options of the runner.
    pub fn linux_run(&self, options: &[&str]) -> Outcome {
        self.boot("linux", "linux.json", "512MiB", options)
    }

    /// Sets boots side by side, each with a name, with these options of the runner; exit code and what was printed.
    pub fn compare(&self, boots: &[(&str, &Outcome)], options: &[&str]) -> (i32, String) {
        let mut command = Command::new(self.tools.join("release/runner"));
        command.arg("linux-compare").args(options);
        command.arg("--report").arg(self.path("compared"));
        for (name, outcome) in boots {
            let report = self.path(&format!("{name}.json"));
            std::fs::write(&report, outcome.report.to_string()).expect("the report is written");
            command.arg("--boot");
            command.arg(format!("{name}={}", report.display()));
        }
        let output = command.output().expect("the runner starts");
        (output.status.code().unwrap_or(-1), text_of(&output))
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

    /// Boots the image of firmware with these options of the runner. Its console is polled at the price of
    /// an exit or more for each look, so it takes its time.
    pub fn firmware_run(&self, options: &[&str]) -> Outcome {
        let usual = ["--devices", "blk", "--timeout", "900"];
        self.boot("linux", "linux.json", "1GiB", &[&usual, options].concat())
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
fn disk(bytes: u64) -> Vec<u8> {
    let words = (0..bytes / 8).map(|n| (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    words.flat_map(u64::to_le_bytes).collect()
}
