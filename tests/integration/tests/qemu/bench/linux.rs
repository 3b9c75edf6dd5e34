// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images with a Linux kernel or firmware, what their initrds hold, and their boots.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use protocol::identity::PROTOCOL_UUID;

use super::{Bench, Outcome, RMP_SIZES, built, disk, succeed, text_of};

/// Bytes of a kernel's disk: its own pool does not grow, so a few are enough.
const LINUX_DISK_BYTES: u64 = 4 << 20;
/// What the Makefile tells every kernel.
const LINUX_ARGS: &str = "clocksource=jiffies console=ttyS0 earlyprintk=ttyS0,115200 panic=-1";
/// A fifth of a boot is its kernel's messages, each character of which costs two exits. `init` reads them from memory.
const FEW_MESSAGES: &str = "loglevel=4";
/// Unpacking a kernel to a random address takes a second or two of an emulated processor's time. Kernels that firmware
/// starts, and those of `make linux`, choose one.
const FIXED_ADDRESS: &str = "nokaslr";

/// What a module or a script said in a boot of Linux (`linux: said NAME: ...`).
pub fn said<'a>(outcome: &'a Outcome, name: &str) -> Vec<&'a str> {
    let lines = outcome.report["guest"]["said"][name].as_array();
    let lines = lines.expect(&outcome.text);
    lines
        .iter()
        .map(|line| line.as_str().expect("text"))
        .collect()
}

impl Bench {
    /// Debian's kernel of this series, with the project's initrd and further words of command line.
    pub fn linux(series: &str, words: &str) -> Self {
        let bench = Self::empty(built(), built());
        bench.make_initrd(series, &[]);
        bench.pack_kernel(series, words, "64MiB");
        bench
    }

    /// The same with these options of the builder besides.
    pub fn linux_with_options(series: &str, options: &[&str]) -> Self {
        let bench = Self::empty(built(), built());
        bench.make_initrd(series, &[]);
        bench.pack_kernel_with(series, "", "64MiB", options);
        bench
    }

    /// The same with the project's module and one for tests, whose device is the only one that the pool drives: what others
    /// do does not show in its figures. A window of this size.
    pub fn linux_with_module(series: &str, module: &str, window: &str) -> Self {
        Self::linux_with_module_and(series, module, window, "")
    }

    /// The same with further words of command line.
    pub fn linux_with_module_and(series: &str, module: &str, window: &str, more: &str) -> Self {
        let bench = Self::empty(built(), built());
        bench.make_initrd(series, &["svsm_swiotlb", module]);
        let words =
            format!("svsm.driver=pool svsm_swiotlb.devices={module} svsm.modules={module} {more}");
        bench.pack_kernel(series, &words, window);
        bench
    }

    /// The same beside a second window, below 4 GiB.
    pub fn linux_with_two_windows(series: &str, module: &str) -> Self {
        let bench = Self::empty(built(), built());
        bench.make_initrd(series, &["svsm_swiotlb", module]);
        let words = format!("svsm.driver=pool svsm_swiotlb.devices={module} svsm.modules={module}");
        bench.pack_kernel_with(series, &words, "256MiB", &["--low-window", "32MiB"]);
        bench
    }

    /// The same with all devices on the pool, of which a module leaves little while disks are read. These further drivers of the
    /// kernel's are loaded.
    pub fn linux_with_held_memory(series: &str, words: &str, drivers: &[&str]) -> Self {
        let bench = Self::empty(built(), built());
        let modules = ["svsm_swiotlb", "map_test"].map(|name| bench.module(series, name));
        bench.make_initrd_with(series, &modules, &[], drivers);
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

    /// The same with this module for tests beside it, which is loaded too.
    pub fn linux_on_pool_beside(series: &str, module: &str, words: &str) -> Self {
        let bench = Self::empty(built(), built());
        bench.make_initrd(series, &["svsm_swiotlb", module]);
        let words = format!("svsm.driver=pool swiotlb=512 svsm.modules={module} {words}");
        bench.pack_kernel(series, &words, "64MiB");
        bench
    }

    /// The same, with the module or without, and with what it takes to start another kernel: that one, its initrd, and a loader.
    /// With these options of the builder besides.
    pub fn linux_that_starts_another(
        series: &str,
        pool: bool,
        words: &str,
        options: &[&str],
    ) -> Self {
        let bench = Self::empty(built(), built());
        let (mut module, driver) = match pool {
            true => (vec![bench.module(series, "svsm_swiotlb")], "pool"),
            false => (vec![], "swiotlb"),
        };
        bench.make_initrd_of(series, &module);
        let next = bench.path("folder/next");
        std::fs::create_dir_all(&next).expect("a folder");
        let kernel = bench.built.join("linux").join(series).join("vmlinuz");
        for (from, to) in [(kernel, "vmlinuz"), (bench.path("initrd"), "initrd")] {
            std::fs::copy(from, next.join(to)).expect("it is copied");
        }
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../linux/next_kernel.c");
        let mut compiler = Command::new("gcc");
        compiler.args(["-O2", "-static", "-s", source, "-o"]);
        succeed(compiler.arg(next.join("next_kernel")));
        // The first kernel's alone.
        if options.contains(&"--low-window") {
            module.push(bench.module(series, "map_test"));
        }
        bench.make_initrd_with(series, &module, &[bench.path("folder")], &[]);
        let small = if pool { "swiotlb=512" } else { "" };
        let words = format!("svsm.driver={driver} {small} {words}");
        bench.pack_kernel_with(series, &words, "64MiB", options);
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

    /// Debian's kernel of this series, the project's module to be loaded, and a paravisor whose service is another protocol: at the
    /// same number, with half of another UUID.
    pub fn linux_with_another_service(series: &str) -> Self {
        let bench = Self::empty(built(), built());
        bench.make_initrd(series, &["svsm_swiotlb"]);
        let paravisor = bench.path("paravisor");
        let mut bytes = std::fs::read(bench.paravisor()).expect("the paravisor was built");
        let half = ((PROTOCOL_UUID >> 64) as u64).to_le_bytes();
        let places = |bytes: &[u8]| bytes.windows(8).filter(|word| *word == half).count();
        // In one instruction: IDENTIFY answers with it, and nothing else of the paravisor needs it.
        assert_eq!(places(&bytes), 1);
        let at = bytes.windows(8).position(|word| word == half);
        bytes[at.expect("it is there")] ^= 1;
        std::fs::write(&paravisor, bytes).expect("the paravisor is written");
        bench.pack_kernel(series, "svsm.driver=pool", "64MiB");
        bench
    }

    /// The same with a window of 1 GiB, whose beginning is RAM to the kernel: less than a page, so that it does not use it.
    pub fn linux_with_ram_in_the_window(series: &str, window: u64) -> Self {
        let bench = Self::empty(built(), built());
        bench.make_initrd(series, &["svsm_swiotlb"]);
        // What is reserved (2) becomes RAM (1).
        let words =
            format!("memmap=2K%{window:#x}-2+1 svsm.work=refused svsm.devices=blk swiotlb=8192");
        bench.pack_kernel(series, &words, "1GiB");
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
        // All of its messages: one of them says that firmware started it.
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
        self.make_initrd_with(series, modules, &[], &[]);
    }

    fn make_initrd_with(
        &self,
        series: &str,
        modules: &[PathBuf],
        folders: &[PathBuf],
        drivers: &[&str],
    ) {
        let folder = self.built.join("linux");
        let init = concat!(env!("CARGO_MANIFEST_DIR"), "/../linux/init");
        let mut command = Command::new(self.tools.join("release/runner"));
        command.args(["initrd", "--init", init, "--busybox"]);
        command.arg(folder.join("busybox")).arg("--mark");
        command.arg(folder.join("mark")).arg("--modules");
        command.arg(folder.join(series).join("modules"));
        let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/../linux/work");
        command.args(["--folder", scripts]);
        for folder in folders {
            command.arg("--folder").arg(folder);
        }
        for file in modules {
            command.arg("--module").arg(file);
        }
        for driver in drivers {
            command.args(["--driver", driver]);
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

    fn pack_kernel(&self, series: &str, words: &str, window: &str) {
        self.pack_kernel_with(series, words, window, &[]);
    }

    fn pack_kernel_with(&self, series: &str, words: &str, window: &str, more: &[&str]) {
        self.write_disk(&disk(LINUX_DISK_BYTES));
        let kernel = self.built.join("linux").join(series).join("vmlinuz");
        let cmdline = format!("{LINUX_ARGS} {FEW_MESSAGES} {FIXED_ADDRESS} {words}");
        let initrd = self.path("initrd");
        let usual = [
            OsStr::new("--initrd"),
            initrd.as_os_str(),
            OsStr::new("--cmdline"),
            OsStr::new(&cmdline),
            OsStr::new("--window"),
            OsStr::new(window),
        ];
        let more: Vec<_> = more.iter().map(OsStr::new).collect();
        self.pack(&kernel, &[&usual[..], &more].concat());
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

    /// Boots the image of firmware with these options of the runner. Its console is polled at the price of
    /// an exit or more for each look, so it takes its time.
    pub fn firmware_run(&self, options: &[&str]) -> Outcome {
        let usual = ["--devices", "blk", "--timeout", "900"];
        self.boot("linux", "linux.json", "1GiB", &[&usual, options].concat())
    }
}
