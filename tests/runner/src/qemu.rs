// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds, checks and starts QEMU as the machine on which the emulated SNP host runs.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use snp_host::launch::processors;
use snp_host::memory_plan::LAUNCH_BASE;

use crate::Failure;
use crate::longest_calls::ICOUNT_SHIFT;

/// Oldest version whose nested SVM walks five-level tables with bit 51 set.
const OLDEST: (u32, u32) = (7, 2);
/// Value that `isa-debug-exit` turns into QEMU's exit status `value << 1 | 1`.
const DEBUG_EXIT_PORT: &str = "isa-debug-exit,iobase=0xf4,iosize=4";

/// How QEMU runs its processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Threads {
    /// All in one thread, in turns.
    Single,
    /// A thread each.
    Multi,
}

impl Threads {
    /// Behind the name of the accelerator.
    fn option(self) -> &'static str {
        match self {
            Self::Single => ",thread=single",
            Self::Multi => ",thread=multi",
        }
    }
}

/// What the machine consists of.
#[derive(Debug, Clone)]
pub struct Machine<'a> {
    /// The QEMU program.
    pub program: &'a Path,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// CPUs of the guest; the machine may have one more ([`processors`]).
    pub vcpus: u32,
    /// The emulated host, an ELF file with a PVH note.
    pub host: &'a Path,
    /// The launch blob and the address at which the host looks for it.
    pub launch: (&'a Path, u64),
    /// Where the host's records go.
    pub records: &'a Path,
    /// Where the guest's console goes.
    pub console: &'a Path,
    /// Where QEMU's own messages go.
    pub log: &'a Path,
    /// Disks as raw files, and whether each is read-only.
    pub disks: &'a [(PathBuf, bool)],
    /// Most bytes that each disk gives in a second; `None` is no limit.
    pub read_rate: Option<u64>,
    /// Options for further devices.
    pub devices: &'a [OsString],
    /// Count instructions instead of real time: the same run gives the same records.
    pub deterministic: bool,
    /// How QEMU runs its processors; `None` leaves it to QEMU.
    pub threads: Option<Threads>,
}

/// Checks that `program` is a QEMU of a suitable version, and gives the version.
///
/// # Errors
/// Bad input that names the package to install.
pub fn check_version(program: &Path) -> Result<String, Failure> {
    let name = program.display();
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Failure::bad_input(format!(
                "{name} cannot be started ({error}); install QEMU 7.2 or later (Debian: apt install qemu-system-x86)"
            ))
        })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text
        .split_once("version ")
        .map(|(_, rest)| rest.split([' ', '\n']).next().unwrap_or(rest).to_owned())
        .ok_or_else(|| {
            Failure::bad_input(format!(
                "{name} does not say its version; install QEMU 7.2 or later (Debian: apt install qemu-system-x86)"
            ))
        })?;
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < OLDEST {
        return Err(Failure::bad_input(format!(
            "QEMU {version} is too old for nested SVM with five-level tables; install QEMU 7.2 or later (Debian 12: apt install qemu-system-x86)"
        )));
    }
    Ok(version)
}

impl Machine<'_> {
    /// The command line after the program.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut list: Vec<OsString> = Vec::new();
        let mut add = |option: &str, value: OsString| list.extend([option.into(), value]);
        let joined = |parts: &[&dyn AsRef<std::ffi::OsStr>]| {
            parts.iter().fold(OsString::new(), |mut whole, part| {
                whole.push(part);
                whole
            })
        };
        add("-machine", "q35".into());
        add("-m", format!("{}M", self.memory_bytes >> 20).into());
        add("-smp", processors(self.vcpus).to_string().into());
        let threads = self.threads.map_or("", Threads::option);
        add("-accel", format!("tcg{threads}").into());
        // Bit 51, the C-bit, must be a legal physical bit, and only five levels of tables reach it.
        add("-cpu", "EPYC-Milan,+la57,phys-bits=52".into());
        add("-kernel", self.host.into());
        add("-vga", "none".into());
        add("-display", "none".into());
        add("-monitor", "none".into());
        add("-serial", joined(&[&"file:", &self.console]));
        add("-debugcon", joined(&[&"file:", &self.records]));
        add("-device", DEBUG_EXIT_PORT.into());
        let (launch, address) = self.launch;
        let at = format!(",addr={address:#x},force-raw=on");
        add("-device", joined(&[&"loader,file=", &escaped(launch), &at]));
        if address != LAUNCH_BASE {
            let note = format!("loader,addr={LAUNCH_BASE:#x},data={address:#x},data-len=8");
            add("-device", note.into());
        }
        for (index, (disk, read_only)) in self.disks.iter().enumerate() {
            let drive = format!(
                "if=none,id=d{index},format=raw,{}",
                throttle(self.read_rate)
            );
            let mode = if *read_only {
                "readonly=on,"
            } else {
                // A full file system is an error that the guest sees, not a machine that stands still.
                "cache=unsafe,werror=report,"
            };
            let file = escaped(disk);
            add("-drive", joined(&[&drive, &mode, &"file=", &file]));
            let device =
                format!("virtio-blk-pci,drive=d{index},disable-legacy=on,iommu_platform=on");
            add("-device", device.into());
        }
        list.extend(self.devices.iter().cloned());
        let mut add = |option: &str, value: OsString| list.extend([option.into(), value]);
        if self.deterministic {
            add("-icount", format!("shift={ICOUNT_SHIFT},sleep=off").into());
            // The firmware waits while the clock changes, once in a second of whatever it counts.
            add("-rtc", "base=2026-01-01,clock=vm".into());
        }
        list.extend(["-nodefaults".into(), "-no-reboot".into()]);
        list
    }

    /// Starts the machine.
    ///
    /// # Errors
    /// [`Failure::Died`] when the program does not start.
    pub fn start(&self) -> Result<RunningMachine, Failure> {
        let fail = |error: std::io::Error| {
            Failure::Died(format!("cannot start {}: {error}", self.program.display()))
        };
        let log = File::create(self.log).map_err(fail)?;
        let child = Command::new(self.program)
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(fail)?)
            .stderr(log)
            .spawn()
            .map_err(fail)?;
        Ok(RunningMachine { child })
    }
}

/// The drive option, with its comma, for a disk that gives at most so many bytes in a second.
#[must_use]
pub fn throttle(read_rate: Option<u64>) -> String {
    read_rate.map_or_else(String::new, |rate| format!("throttling.bps-read={rate},"))
}

/// A comma separates options for QEMU; doubled, it is a character of a file name.
#[must_use]
pub fn escaped(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

/// A running QEMU; it is ended when this is dropped.
#[derive(Debug)]
pub struct RunningMachine {
    child: Child,
}

impl RunningMachine {
    /// Exit status once the machine has ended; -1 if a signal ended it.
    pub fn ended(&mut self) -> Option<i32> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.code().unwrap_or(-1)),
            Err(_) => Some(-1),
        }
    }

    /// Bytes of this computer's memory that the machine has now; 0 when it is gone.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        resident(&status.unwrap_or_default()).unwrap_or(0)
    }
}

/// What a process has by its `status` file (proc_pid_status(5)).
fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

impl Drop for RunningMachine {
    fn drop(&mut self) {
        // Both fail only when the machine has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// QEMU's messages without those that every run has: TCG lacks some features of the CPU model.
#[must_use]
pub fn messages(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| !line.contains("doesn't support requested feature"))
        .filter(|line| !line.trim().is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::{Machine, Threads, check_version, escaped, messages};

    fn script(folder: &Path, says: &str) -> PathBuf {
        let (text, path) = (folder.join("text"), folder.join("qemu"));
        std::fs::write(&text, format!("#!/bin/sh\necho '{says}'\n")).expect("a temporary file");
        // Not by this process: a thread that starts another program meanwhile would hand it on open for
        // writing, and nobody may execute it then.
        let mut install = Command::new("install");
        let status = install.args(["-m", "755"]).args([&text, &path]).status();
        assert!(status.expect("install starts").success());
        path
    }

    #[test]
    fn a_missing_or_old_qemu_is_named_with_its_package() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let missing = check_version(&folder.path().join("no-qemu"))
            .unwrap_err()
            .to_string();
        assert!(missing.contains("apt install qemu-system-x86"), "{missing}");
        let old = script(folder.path(), "QEMU emulator version 6.2.0 (Debian)");
        let old = check_version(&old).unwrap_err().to_string();
        assert!(old.contains("6.2.0") && !old.contains('\n'), "{old}");
        let other = script(folder.path(), "hello");
        assert!(check_version(&other).is_err());
    }

    #[test]
    fn suitable_versions_are_accepted() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for version in ["7.2.22", "10.0.2", "11.1"] {
            let says = format!("QEMU emulator version {version} (Debian 1:x)");
            let program = script(folder.path(), &says);
            assert_eq!(check_version(&program).expect(version), version);
        }
    }

    #[test]
    fn file_names_with_commas_reach_qemu_whole() {
        assert_eq!(escaped(Path::new("a,b")), "a,,b");
        let disks = [
            (PathBuf::from("in,put"), true),
            (PathBuf::from("out"), false),
        ];
        let machine = Machine {
            program: Path::new("q"),
            memory_bytes: 3 << 30,
            vcpus: 2,
            host: Path::new("h"),
            launch: (Path::new("l"), 0x7a00_0000),
            records: Path::new("r"),
            console: Path::new("c"),
            log: Path::new("e"),
            disks: &disks,
            read_rate: None,
            devices: &["-device".into(), "nvme".into()],
            deterministic: false,
            threads: Some(Threads::Single),
        };
        let arguments = machine.arguments();
        let has = |text: &str| arguments.iter().any(|argument| argument == text);
        assert!(has("if=none,id=d0,format=raw,readonly=on,file=in,,put"));
        assert!(has(
            "if=none,id=d1,format=raw,cache=unsafe,werror=report,file=out"
        ));
        assert!(has("nvme") && has("tcg,thread=single"));
        // Two for the guest, and QEMU's CPU 0.
        assert!(arguments.windows(2).any(|pair| pair == ["-smp", "3"]));
        assert!(has("loader,file=l,addr=0x7a000000,force-raw=on"));
        let note = "loader,addr=0x7a000000,data=0x180000000,data-len=8";
        assert!(!has(note));
        let large = Machine {
            launch: (Path::new("l"), 0x1_8000_0000),
            read_rate: Some(8 << 20),
            ..machine
        };
        let arguments = large.arguments();
        assert!(arguments.iter().any(|argument| argument == note));
        let slow = "if=none,id=d0,format=raw,throttling.bps-read=8388608,readonly=on,file=in,,put";
        assert!(arguments.iter().any(|argument| argument == slow));
    }

    #[test]
    fn what_is_resident_is_read() {
        let status = "Name:\tqemu\nVmHWM:\t  99 kB\nVmRSS:\t  1024 kB\nRssAnon:\t 1 kB\n";
        assert_eq!(super::resident(status), Some(1 << 20));
        assert_eq!(super::resident("Name:\tqemu\n"), None);
    }

    #[test]
    fn harmless_warnings_are_left_out() {
        let log = "qemu: warning: TCG doesn't support requested feature: CPUID[1]\n\nqemu: bad\n";
        assert_eq!(messages(log), ["qemu: bad"]);
    }
}
