// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a Linux guest said in the course of a boot. Where a kernel has started another one, what the last one said.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::line::LinuxLine;
use crate::line::LineError;

/// Words of a console line by which the kernel says that it gave up.
const PANIC: &str = "Kernel panic - not syncing";
/// Words of a kernel's first line, where the console shows it.
const FIRST_LINE: &str = "] Linux version ";
/// Words that say why, when they come before: the initrd is damaged.
const UNPACKING: &str = "Initramfs unpacking failed";
/// Kernel messages from which the checks of SNP, VMPL and firmware are made when no init repeats them.
const LOG_WORDS: [&str; 3] = [
    "Memory Encryption Features active",
    "running at VMPL",
    "efi: EFI v",
];

/// What the paravisor's lines start with; it shares the console.
const PARAVISOR: &str = "vmpl0: ";

/// A moment, by the runner's and by the guest's clock.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds since the machine started.
    pub machine: f64,
    /// Seconds since the kernel started.
    pub kernel: f64,
}

/// A reserved range of the kernel's memory map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// The range.
    pub range: Range<u64>,
    /// Bytes of it that the kernel's direct map covers.
    pub mapped: u64,
}

/// What was read from a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceDigest {
    /// Bytes read.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: String,
}

/// The block that the guest wrote to its second disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Where, in bytes.
    pub offset: u64,
    /// SHA-256 of the block.
    pub sha256: String,
}

/// Use of the kernel's own bounce buffer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounce {
    /// Bytes in use.
    pub used: u64,
    /// Most bytes that were.
    pub peak: u64,
}

/// Statistics of the module by name; lists as they are.
pub type Statistics = BTreeMap<String, String>;

/// All that was said so far.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The kernel's first console line, in seconds since the machine started.
    pub first_line: Option<f64>,
    /// User space runs.
    pub user_space: Option<Moment>,
    /// Kernels that had user space before this one.
    #[serde(default)]
    pub earlier_kernels: u64,
    /// All steps were tried.
    pub done: Option<Moment>,
    /// Release of the kernel.
    pub release: Option<String>,
    /// Devices that the guest looks for.
    pub devices: Vec<String>,
    /// Kernel messages that name SEV.
    pub log: Vec<String>,
    /// Processors that are on line.
    pub cpus: Option<u64>,
    /// Size of the kernel's own bounce buffer in bytes.
    pub swiotlb_bytes: Option<u64>,
    /// Who bounces.
    pub driver: Option<String>,
    /// How hard the devices are worked.
    pub work: Option<String>,
    /// Use of the kernel's own bounce buffer by moment.
    pub bounce: BTreeMap<String, Bounce>,
    /// Statistics of the module by moment.
    pub pool: BTreeMap<String, Statistics>,
    /// Lines of the module in the kernel's log.
    pub module_log: Vec<String>,
    /// Lines of the kernel's log about trouble.
    pub trouble: Vec<String>,
    /// Transfers of the heavy work by how they ended.
    pub stress: BTreeMap<String, u64>,
    /// Seconds that it took.
    pub stress_seconds: Option<f64>,
    /// RAM as the kernel sees it.
    pub ram: Vec<Range<u64>>,
    /// Reserved ranges.
    pub reserved: Vec<Reserved>,
    /// The look-up in the direct map found a page that is there.
    pub walk_works: bool,
    /// What was read, by device.
    pub digests: BTreeMap<String, DeviceDigest>,
    /// What was written.
    pub marker: Option<Marker>,
    /// What modules for tests said, by module.
    pub said: BTreeMap<String, Vec<String>>,
    /// Steps that failed, and why.
    pub failed: BTreeMap<String, String>,
    /// The kernel's last message.
    pub panic: Option<String>,
    /// The kernel's complaint about its initrd.
    pub initrd_complaint: Option<String>,
}

impl Facts {
    /// Takes in one console line, `after` the start of the machine.
    ///
    /// # Errors
    /// What is wrong with a line of init's.
    pub fn hear(&mut self, text: &str, after: Duration) -> Result<(), LineError> {
        let machine = after.as_secs_f64();
        if !text.starts_with(PARAVISOR) {
            self.first_line.get_or_insert(machine);
        }
        match LinuxLine::parse(text).transpose()? {
            Some(line) => self.take(line, machine),
            None => self.kernel_says(text),
        }
        Ok(())
    }

    fn kernel_says(&mut self, text: &str) {
        if text.contains(FIRST_LINE) && self.user_space.is_some() {
            self.next_kernel();
        }
        if let Some(at) = text.find(PANIC) {
            self.panic.get_or_insert(text[at..].to_owned());
        } else if let Some(at) = text.find(UNPACKING) {
            self.initrd_complaint.get_or_insert(text[at..].to_owned());
        } else if LOG_WORDS.iter().any(|words| text.contains(words)) {
            self.log.push(text.to_owned());
        }
    }

    fn take(&mut self, line: LinuxLine, machine: f64) {
        let moment = |kernel| Some(Moment { machine, kernel });
        match line {
            LinuxLine::Start(kernel) => {
                if self.user_space.is_some() {
                    self.next_kernel();
                }
                self.user_space = moment(kernel);
            }
            LinuxLine::Done(kernel) => self.done = moment(kernel),
            LinuxLine::Release(release) => self.release = Some(release),
            LinuxLine::Devices(devices) => self.devices = devices,
            LinuxLine::Log(text) => self.log.push(text),
            LinuxLine::Cpus(count) => self.cpus = Some(count),
            LinuxLine::Swiotlb(bytes) => self.swiotlb_bytes = Some(bytes),
            LinuxLine::Ram(start, last) => self.ram.push(exclusive(start, last)),
            LinuxLine::Reserved(start, last, mapped) => self.reserved.push(Reserved {
                range: exclusive(start, last),
                mapped,
            }),
            // The page was one of 4096 bytes.
            LinuxLine::WalkTest(mapped) => self.walk_works = mapped == 4096,
            LinuxLine::Digest(device, bytes, sha256) => {
                self.digests.insert(device, DeviceDigest { bytes, sha256 });
            }
            LinuxLine::Marker(offset, sha256) => self.marker = Some(Marker { offset, sha256 }),
            LinuxLine::Driver(driver, work) => {
                (self.driver, self.work) = (Some(driver), Some(work));
            }
            LinuxLine::Bounce(moment, used, peak) => {
                self.bounce.insert(moment, Bounce { used, peak });
            }
            LinuxLine::Pool(moment, name, value) => {
                self.pool.entry(moment).or_default().insert(name, value);
            }
            LinuxLine::ModuleLog(text) => self.module_log.push(text),
            LinuxLine::Trouble(text) => self.trouble.push(text),
            LinuxLine::Stress(what, count) => {
                self.stress.insert(what, count);
            }
            LinuxLine::StressTime(from, to) => self.stress_seconds = Some(to - from),
            LinuxLine::Said(module, words) => self.said.entry(module).or_default().push(words),
            LinuxLine::Failed(step, cause) => {
                self.failed.entry(step).or_insert(cause);
            }
        }
    }

    /// Forgets what an earlier kernel said, its last message too; not which steps failed, nor what scripts and modules for tests had
    /// to say.
    fn next_kernel(&mut self) {
        *self = Self {
            first_line: self.first_line,
            earlier_kernels: self.earlier_kernels + 1,
            said: std::mem::take(&mut self.said),
            failed: std::mem::take(&mut self.failed),
            ..Self::default()
        };
    }

    /// The module's statistic `name` at `moment`, if it is there and a number.
    #[must_use]
    pub fn statistic(&self, moment: &str, name: &str) -> Option<u64> {
        self.pool.get(moment)?.get(name)?.parse().ok()
    }

    /// Transfers of the heavy work that ended with an error, with wrong bytes or not at all.
    #[must_use]
    pub fn bad_transfers(&self) -> u64 {
        let bad = |what: &str| !what.ends_with("-right");
        let all = self.stress.iter();
        all.filter(|(what, _)| bad(what)).map(|(_, n)| n).sum()
    }

    /// Seconds from the start of the machine to that of the kernel.
    #[must_use]
    pub fn kernel_start(&self) -> Option<f64> {
        self.user_space.map(|start| start.machine - start.kernel)
    }
}

fn exclusive(start: u64, last: u64) -> Range<u64> {
    start..last.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Facts;

    fn told(lines: &[&str]) -> Facts {
        let mut facts = Facts::default();
        for line in lines {
            facts
                .hear(line, Duration::from_secs(4))
                .expect("a good line");
        }
        facts
    }

    #[test]
    fn a_panic_and_its_cause_are_found_among_kernel_messages() {
        let facts = told(&[
            "[    1.0] Initramfs unpacking failed: invalid magic at start of compressed archive",
            "[    2.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
            "[    2.0] ---[ end Kernel panic - not syncing: VFS ]---",
        ]);
        let panic = facts.panic.expect("it is one");
        assert!(panic.ends_with("unknown-block(0,0)"), "{panic}");
        let complaint = facts.initrd_complaint.expect("there is one");
        assert!(complaint.starts_with("Initramfs"), "{complaint}");
        assert_eq!(facts.first_line, Some(4.0));
        assert_eq!(told(&["vmpl0: the guest starts"]).first_line, None);
    }

    #[test]
    fn a_later_kernel_speaks_for_itself() {
        let first = [
            "linux: start uptime=3",
            "linux: cpus online=2",
            "linux: log running at VMPL2",
            "linux: said kdump: granted 2097152",
            "linux: failed step=net cause=first",
            "[    9.0] Kernel panic - not syncing: sysrq triggered crash",
        ];
        assert!(told(&first).panic.is_some());
        // The first lines of a kernel are not always on the console.
        for (lines, logged) in [
            (&[][..], 0),
            (&["[    0.0] Linux version 7", "[    0.0] efi: EFI v2.7"], 1),
        ] {
            let facts = told(&[&first[..], lines, &["linux: start uptime=5"]].concat());
            assert_eq!((facts.earlier_kernels, facts.cpus), (1, None));
            assert_eq!((facts.panic, facts.log.len()), (None, logged));
            assert_eq!(facts.user_space.map(|start| start.kernel), Some(5.0));
        }
        let facts = told(&[&first[..], &["linux: start uptime=5"]].concat());
        assert_eq!(facts.said["kdump"], ["granted 2097152"]);
        assert_eq!(facts.failed["net"], "first");
    }

    #[test]
    fn times_are_related_and_ranges_end_behind_their_last_byte() {
        let facts = told(&[
            "linux: start uptime=3",
            "linux: reserved start=0x1000 last=0x1fff mapped=0",
            "linux: walk-test mapped=4096",
            "linux: failed step=net cause=first",
            "linux: failed step=net cause=second",
        ]);
        assert_eq!(facts.kernel_start(), Some(1.0));
        assert_eq!(facts.reserved[0].range, 0x1000..0x2000);
        assert!(facts.walk_works);
        assert_eq!(facts.failed["net"], "first");
        assert!(!told(&["linux: walk-test mapped=0"]).walk_works);
        let damaged = Facts::default().hear("linux: start", Duration::ZERO);
        assert!(damaged.is_err());
    }
}
