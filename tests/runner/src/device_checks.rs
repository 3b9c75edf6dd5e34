// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has to hold where the test guest has several devices or vCPUs: all of them worked, at the
//! same time, while the pool grew and shrank, and nothing was lost.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::checks::Check;
use crate::devices::{Device, DeviceFiles, HostFile};
use crate::guest_line::Busy;
use crate::run::Outcome;
use crate::transcript::Transcript;

/// Rounds of the burst that each vCPU does at least.
const BURST_ROUNDS: u64 = 3;
/// Growths of the burst, at least.
const BURST_GROWTHS: u64 = 3;

/// The machine, as far as these checks look at it.
struct Machine<'a> {
    transcript: &'a Transcript,
    vcpus: u32,
    devices: &'a BTreeSet<Device>,
    files: &'a DeviceFiles,
}

/// The checks; none where there is one vCPU and nothing but disks.
#[must_use]
pub fn device_checks(outcome: &Outcome) -> Vec<Check> {
    Machine {
        transcript: &outcome.transcript,
        vcpus: outcome.vcpus,
        devices: &outcome.devices,
        files: &outcome.device_files,
    }
    .checks()
}

impl Machine<'_> {
    fn checks(&self) -> Vec<Check> {
        if self.vcpus == 1 && self.devices.iter().all(|device| *device == Device::Blk) {
            return Vec::new();
        }
        let mut list = vec![self.all_vcpus()];
        for (names, phases, file) in [
            (
                [
                    "the NVMe disk's digest matches, in the burst",
                    "the NVMe disk's digest matches, in the steady state",
                ],
                ["nvme1", "nvme2"],
                &self.files.nvme,
            ),
            (
                [
                    "the fetched file's digest matches, in the burst",
                    "the fetched file's digest matches, in the steady state",
                ],
                ["net1", "net2"],
                &self.files.fetched,
            ),
        ] {
            let Some(file) = file else { continue };
            for (name, phase) in names.into_iter().zip(phases) {
                list.push(self.digest(name, phase, file));
            }
        }
        let burst = self.phases(["read1", "net1", "nvme1"]);
        let steady = self.phases(["read2", "net2", "nvme2"]);
        list.push(self.at_once("all devices are busy at once in the burst", &burst));
        list.push(self.at_once("all devices are busy at once in the steady state", &steady));
        list.push(self.bursts());
        list.push(self.converted_meanwhile(&burst));
        list
    }

    fn all_vcpus(&self) -> Check {
        let count = self.transcript.cpus;
        Check {
            name: "the guest uses every vCPU",
            ok: count == Some(self.vcpus.into()),
            detail: match count {
                Some(count) => format!("{count} of {}", self.vcpus),
                None => "it does not say how many".into(),
            },
        }
    }

    fn digest(&self, name: &'static str, phase: &str, file: &HostFile) -> Check {
        let guest = self.transcript.digests.get(phase);
        Check {
            name,
            ok: guest == Some(&file.sha256),
            detail: guest.cloned().unwrap_or("no digest".into()),
        }
    }

    /// The names for the devices that there are; the disks are always there.
    fn phases(&self, [disk, net, nvme]: [&'static str; 3]) -> Vec<&'static str> {
        let named = [(Device::Net, net), (Device::Nvme, nvme)];
        let others = named
            .into_iter()
            .filter(|(device, _)| self.devices.contains(device));
        std::iter::once(disk)
            .chain(others.map(|(_, phase)| phase))
            .collect()
    }

    fn busy(&self, phases: &[&str]) -> Vec<&Busy> {
        let all = self.transcript.busy.iter();
        all.filter(|busy| phases.contains(&busy.phase.as_str()) && busy.rounds > 0)
            .collect()
    }

    /// When all devices were busy; empty when never, or when one was not at all.
    fn common_time(&self, phases: &[&str]) -> Range<u64> {
        let busy = self.busy(phases);
        if busy.len() != phases.len() {
            return 0..0;
        }
        let from = busy.iter().map(|busy| busy.from).max().unwrap_or(0);
        let to = busy.iter().map(|busy| busy.to).min().unwrap_or(0);
        from..to
    }

    fn at_once(&self, name: &'static str, phases: &[&str]) -> Check {
        let busy = self.busy(phases);
        let vcpus: BTreeSet<_> = busy.iter().map(|busy| busy.cpu).collect();
        let most = phases.len().min(usize::try_from(self.vcpus).unwrap_or(1));
        let common = self.common_time(phases);
        let whole = busy.iter().map(|busy| busy.to).max().unwrap_or(0)
            - busy.iter().map(|busy| busy.from).min().unwrap_or(0);
        let share = common.end.saturating_sub(common.start) * 100 / whole.max(1);
        Check {
            name,
            ok: !common.is_empty() && vcpus.len() == most,
            detail: format!(
                "{} of {} devices on {} vCPUs, {share} % of the time all of them",
                busy.len(),
                phases.len(),
                vcpus.len()
            ),
        }
    }

    fn bursts(&self) -> Check {
        let bursts = &self.transcript.bursts;
        let several = usize::try_from(self.vcpus.min(2)).unwrap_or(2);
        let with = |calls: fn(&crate::guest_line::Burst) -> u64| {
            bursts.iter().filter(|burst| calls(burst) > 0).count()
        };
        let (growing, shrinking) = (with(|burst| burst.grows), with(|burst| burst.releases));
        let growths: u64 = bursts.iter().map(|burst| burst.grows).sum();
        let released: u64 = bursts.iter().map(|burst| burst.released).sum();
        let vcpus: BTreeSet<_> = bursts.iter().map(|burst| burst.cpu).collect();
        Check {
            name: "the pool grows from several vCPUs under the burst, and shrinks",
            ok: vcpus.len() == usize::try_from(self.vcpus).unwrap_or(0)
                && bursts
                    .iter()
                    .all(|burst| burst.rounds >= BURST_ROUNDS && burst.maps > 0)
                && growths >= BURST_GROWTHS
                && released > 0
                && growing >= several
                // Whichever comes first gives back what all have left.
                && shrinking > 0,
            detail: format!(
                "{growths} growths from {growing} vCPUs, {} MiB given back from {shrinking}",
                released >> 20
            ),
        }
    }

    /// By the host's account, which the guest cannot embellish.
    fn converted_meanwhile(&self, phases: &[&str]) -> Check {
        let common = self.common_time(phases);
        let bytes = |shared: bool| -> u64 {
            let conversions = self.transcript.conversions.iter();
            conversions
                .filter(|one| one.vmpl == 0 && one.shared == shared && common.contains(&one.tsc))
                .map(|one| one.bytes)
                .sum()
        };
        let (granted, taken) = (bytes(true), bytes(false));
        Check {
            name: "the host shares and takes back memory while all devices are busy",
            ok: granted > 0 && taken > 0,
            detail: format!(
                "{} MiB shared, {} MiB taken back",
                granted >> 20,
                taken >> 20
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Device, DeviceFiles, HostFile, Machine, Transcript};

    const SHA: [&str; 2] = ["11", "22"];

    fn good() -> Vec<String> {
        let digest =
            |phase: &str, text: &str| format!("@digest phase={phase} sha256={}", text.repeat(32));
        let busy = |phase: &str, cpu: u32, from: u32, to: u32| {
            format!("@busy phase={phase} cpu={cpu} from={from} to={to} rounds=2 bytes=7")
        };
        let burst = |cpu: u32| {
            format!("@burst cpu={cpu} rounds=3 maps=9 refused=0 grows=2 releases=1 released=4")
        };
        vec![
            "@cpus count=2".into(),
            busy("read1", 0, 10, 30),
            busy("nvme1", 1, 12, 31),
            busy("net1", 0, 11, 32),
            busy("read2", 0, 50, 70),
            busy("nvme2", 1, 52, 71),
            busy("net2", 0, 51, 69),
            digest("nvme1", SHA[0]),
            digest("nvme2", SHA[0]),
            digest("net1", SHA[1]),
            digest("net2", SHA[1]),
            burst(0),
            burst(1),
            "psc tsc=13 vmpl=0 op=shared gpa=0 bytes=2097152 total_shared=0".into(),
            "psc tsc=29 vmpl=0 op=private gpa=0 bytes=2097152 total_shared=0".into(),
        ]
    }

    /// Names of the checks that fail when `lines` are said.
    fn failing(lines: &[String]) -> Vec<&'static str> {
        let mut transcript = Transcript::default();
        for line in lines {
            if line.starts_with('@') {
                transcript.guest_says(line, Duration::ZERO);
            } else {
                transcript.host_says(line);
            }
        }
        assert!(transcript.broken.is_empty(), "{:?}", transcript.broken);
        let file = |text: &str| {
            Some(HostFile {
                path: "f".into(),
                bytes: 7,
                sha256: text.repeat(32),
            })
        };
        let machine = Machine {
            transcript: &transcript,
            vcpus: 2,
            devices: &Device::USUAL.into(),
            files: &DeviceFiles {
                nvme: file(SHA[0]),
                nvme_writable: false,
                read_rate: None,
                fetched: file(SHA[1]),
                ahci: None,
            },
        };
        let checks = machine.checks();
        assert_eq!(checks.len(), 9);
        let failing = checks.into_iter().filter(|check| !check.ok);
        failing.map(|check| check.name).collect()
    }

    #[test]
    fn a_good_run_keeps_every_promise() {
        assert_eq!(failing(&good()), [""; 0]);
    }

    #[test]
    fn each_broken_promise_is_named() {
        for (old, new, name) in [
            ("@cpus count=2", "@cpus count=1", "every vCPU"),
            (
                "phase=nvme1 sha256=11",
                "phase=nvme1 sha256=12",
                "the NVMe disk's digest matches, in the burst",
            ),
            (
                "phase=nvme2 sha256=11",
                "phase=nvme2 sha256=12",
                "the NVMe disk's digest matches, in the steady",
            ),
            (
                "phase=net1 sha256=22",
                "phase=net1 sha256=12",
                "the fetched file's digest matches, in the burst",
            ),
            (
                "phase=net2 sha256=22",
                "phase=net2 sha256=12",
                "the fetched file's digest matches, in the steady",
            ),
            // One vCPU for all; one that came too late; one that did nothing.
            (
                "phase=nvme2 cpu=1",
                "phase=nvme2 cpu=0",
                "busy at once in the steady",
            ),
            (
                "from=52 to=71",
                "from=70 to=71",
                "busy at once in the steady",
            ),
            (
                "from=52 to=71 rounds=2",
                "from=52 to=71 rounds=0",
                "busy at once in the steady",
            ),
            (
                "@burst cpu=1 rounds=3",
                "@burst cpu=1 rounds=2",
                "grows from several",
            ),
            ("@burst cpu=1", "@burst cpu=0", "grows from several"),
            ("maps=9", "maps=0", "grows from several"),
            ("grows=2", "grows=0", "grows from several"),
            ("releases=1", "releases=0", "grows from several"),
            ("released=4", "released=0", "grows from several"),
            // Behind the end of the first device.
            ("tsc=29 vmpl=0", "tsc=30 vmpl=0", "the host shares"),
            ("tsc=13 vmpl=0", "tsc=11 vmpl=0", "the host shares"),
            ("tsc=13 vmpl=0", "tsc=13 vmpl=2", "the host shares"),
        ] {
            let lines: Vec<_> = good().iter().map(|line| line.replace(old, new)).collect();
            assert_ne!(lines, good(), "{old}");
            let failing = failing(&lines);
            assert_eq!(failing.len(), 1, "{old}: {failing:?}");
            assert!(failing[0].contains(name), "{old}: {failing:?}");
        }
    }

    #[test]
    fn the_default_run_has_none_of_them() {
        let machine = |vcpus| {
            Machine {
                transcript: &Transcript::default(),
                vcpus,
                devices: &[Device::Blk].into(),
                files: &DeviceFiles::default(),
            }
            .checks()
            .len()
        };
        assert_eq!(machine(1), 0);
        assert_eq!(machine(2), 5);
    }
}
