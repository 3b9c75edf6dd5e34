// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has to hold for a boot of Linux to be a success.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::account::Account;
use super::driver::Driver;
use super::facts::Facts;
use super::pool_checks::{STEPS, pool_checks};
use crate::checks::{Check, format, pattern};
use crate::devices::{Device, HostFile};
use crate::disk::hexadecimal;
use crate::own_tables;
use crate::run::Outcome;

/// First words of the block that the guest writes to its second disk.
const MARKER_WORDS: &[u8] = b"svsm-swiotlb: written by Linux ";

/// Work of a kernel that starts another one, and what that one's begins with.
const FIRST: [&str; 2] = ["kexec", "kdump"];
const AFTER: &str = "after-";
/// Work of a kernel that was started by a crash.
const AFTER_CRASH: &str = "after-kdump";

/// Checks a boot that came to its end.
#[must_use]
pub fn checks(outcome: &Outcome, account: &Account) -> Vec<Check> {
    let facts = &outcome.transcript.linux;
    let mut list = vec![
        logged(
            facts,
            "the kernel reports SEV-SNP",
            &["Memory Encryption Features active", "SEV-SNP"],
        ),
        logged(
            facts,
            "the kernel reports an SVSM and VMPL2",
            &["running at VMPL2"],
        ),
    ];
    if outcome.firmware {
        list.push(logged(
            facts,
            "the kernel was started by UEFI firmware",
            &["efi: EFI v"],
        ));
    }
    // A user space of the user's own says nothing that could be compared.
    if !outcome.own_initrd {
        list.push(cpus(facts, outcome.vcpus, outcome.crash_cpus));
        list.extend(later_kernel(facts));
        for window in &outcome.windows {
            if outcome.firmware {
                list.push(no_ram(facts, window));
            } else {
                list.extend(memory(facts, window));
            }
        }
        list.extend(devices(outcome));
        if outcome.driver == Some(Driver::Pool) {
            list.extend(pool_checks(outcome, account));
        }
        list.push(Check {
            name: "the guest tries every step",
            ok: facts.done.is_some(),
            detail: (if facts.done.is_some() {
                "done"
            } else {
                "no done line"
            })
            .into(),
        });
    }
    list.push(power_off(outcome));
    list.push(format(outcome));
    list.push(pattern(outcome));
    if outcome.window_bytes.is_some() {
        list.push(own_tables::check(outcome));
    }
    list
}

/// A line of the kernel's log that contains all `words`.
fn logged(facts: &Facts, name: &'static str, words: &[&str]) -> Check {
    let found = facts
        .log
        .iter()
        .find(|line| words.iter().all(|word| line.contains(word)));
    Check {
        name,
        ok: found.is_some(),
        detail: found.cloned().unwrap_or("its log does not say so".into()),
    }
}

/// A kernel that runs behind a crash has the CPU that crashed, and others if it was told so.
fn cpus(facts: &Facts, vcpus: u32, crash_cpus: u32) -> Check {
    let (name, expected) = match facts.work.as_deref() {
        Some(AFTER_CRASH) => (
            "the CPU that crashed is on line, and as many as were asked for",
            crash_cpus,
        ),
        _ => ("all vCPUs are on line", vcpus),
    };
    Check {
        name,
        ok: facts.cpus == Some(u64::from(expected)),
        detail: match facts.cpus {
            Some(count) => format!("{count} of {vcpus}"),
            None => "it does not say how many".into(),
        },
    }
}

/// Where one kernel was to start another, or did although it was not.
fn later_kernel(facts: &Facts) -> Option<Check> {
    let work = facts.work.as_deref().unwrap_or("no work");
    let is_expected = work.starts_with(AFTER) || FIRST.contains(&work);
    (is_expected || facts.earlier_kernels != 0).then(|| Check {
        name: "a kernel that another one has started does the work",
        ok: work.starts_with(AFTER) && facts.earlier_kernels == 1,
        detail: format!("{work}, {} kernels before it", facts.earlier_kernels),
    })
}

/// A window is reserved, and no page of it is in the kernel's direct map.
fn memory(facts: &Facts, window: &Range<u64>) -> [Check; 2] {
    let around = facts
        .reserved
        .iter()
        .find(|one| one.range.start <= window.start && one.range.end >= window.end);
    let named = format!("{:#x}-{:#x}", window.start, window.end - 1);
    let reserved = Check {
        name: "the window is reserved in the kernel's memory map",
        ok: around.is_some(),
        detail: match around {
            Some(one) => format!("{named} in {:#x}-{:#x}", one.range.start, one.range.end - 1),
            None => format!("{named} is not in one reserved range"),
        },
    };
    let failed = facts.failed.get("direct-map");
    let unmapped = Check {
        name: "no page of the window is in the kernel's direct map",
        ok: failed.is_none() && facts.walk_works && around.is_some_and(|one| one.mapped == 0),
        detail: match (failed, around) {
            (Some(cause), _) => cause.clone(),
            _ if !facts.walk_works => "the look-up does not find a page that is there".into(),
            (_, Some(one)) => format!("{} bytes of its range are", one.mapped),
            (_, None) => "it was not looked up".into(),
        },
    };
    [reserved, unmapped]
}

/// Firmware is told of no RAM in a window, and its map does not say what else is there.
fn no_ram(facts: &Facts, window: &Range<u64>) -> Check {
    let overlaps = |ram: &&Range<u64>| ram.start < window.end && window.start < ram.end;
    let over = facts.ram.iter().find(overlaps);
    let last = facts.ram.iter().map(|ram| ram.end).max();
    Check {
        name: "no RAM of the kernel is in the window",
        ok: over.is_none() && last.is_some(),
        detail: match (over, last) {
            (Some(ram), _) => format!("{:#x}-{:#x} is", ram.start, ram.end - 1),
            (None, Some(end)) => format!("its RAM ends at {:#x}", end - 1),
            (None, None) => "it does not say what its RAM is".into(),
        },
    }
}

/// One check for each device that the machine has or the guest looks for.
fn devices(outcome: &Outcome) -> Vec<Check> {
    let facts = &outcome.transcript.linux;
    let in_use = |device: Device| {
        outcome.devices.contains(&device) || facts.devices.iter().any(|name| name == device.name())
    };
    let files = &outcome.device_files;
    let mut list = Vec::new();
    if in_use(Device::Blk) {
        let disk = outcome.disk_digests.as_ref();
        let host = disk.map(|disk| (disk.bytes, disk.first.as_str()));
        let name = "the disk read through virtio-blk matches";
        list.push(digest(facts, name, ("vda", "blk"), host));
        list.push(marker(facts, outcome.second_disk_block.as_deref()));
    }
    let host = |file: &'static str, all: &'_ Option<HostFile>| (file, all.clone());
    for (device, name, (node, file)) in [
        (
            Device::Nvme,
            "the disk read through NVMe matches",
            host("nvme0n1", &files.nvme),
        ),
        (
            Device::Net,
            "the file fetched through virtio-net matches",
            host("eth0", &files.fetched),
        ),
        (
            Device::Ahci,
            "the disk read through AHCI matches",
            host("sda", &files.ahci),
        ),
    ] {
        if in_use(device) {
            let host = file.as_ref().map(|file| (file.bytes, file.sha256.as_str()));
            list.push(digest(facts, name, (node, device.name()), host));
        }
    }
    // What belongs to none of the checks above.
    for (step, cause) in &facts.failed {
        let known = ["direct-map", "marker", "blk", "nvme", "net", "ahci"];
        let of_pool = outcome.driver == Some(Driver::Pool) && STEPS.contains(&step.as_str());
        if !known.contains(&step.as_str()) && !of_pool {
            list.push(Check {
                name: "no step of the guest fails",
                ok: false,
                detail: format!("{step}: {cause}"),
            });
        }
    }
    list
}

/// The guest's digest of a device beside the host's.
fn digest(
    facts: &Facts,
    name: &'static str,
    (node, step): (&str, &str),
    host: Option<(u64, &str)>,
) -> Check {
    let guest = facts.digests.get(node);
    let ok = guest.map(|guest| (guest.bytes, guest.sha256.as_str())) == host && host.is_some();
    let detail = match (facts.failed.get(step), guest, host) {
        (Some(cause), ..) => cause.clone(),
        (None, None, _) => "the guest did not come to it".into(),
        (None, Some(_), None) => "the machine has no such device".into(),
        (None, Some(guest), Some((bytes, _))) if guest.bytes != bytes => {
            format!("{} bytes instead of {bytes}", guest.bytes)
        }
        (None, Some(guest), Some(_)) if ok => format!("{} of {} bytes", guest.sha256, guest.bytes),
        (None, Some(guest), Some((_, host))) => format!("{} instead of {host}", guest.sha256),
    };
    Check {
        name,
        ok: ok && !facts.failed.contains_key(step),
        detail,
    }
}

/// The block that the guest says it wrote is in the host's file.
fn marker(facts: &Facts, block: Option<&[u8]>) -> Check {
    let check = |ok, detail: String| Check {
        name: "the guest's marker is on the second disk",
        ok,
        detail,
    };
    if let Some(cause) = facts.failed.get("marker") {
        return check(false, cause.clone());
    }
    match (&facts.marker, block) {
        (None, _) => check(false, "the guest wrote none".into()),
        (_, None) => check(false, "the second disk is too small for it".into()),
        (Some(marker), Some(block)) => {
            let found = hexadecimal(&Sha256::digest(block));
            let ok = found == marker.sha256 && block.starts_with(MARKER_WORDS);
            let words = block.split(|byte| *byte == b'\n' || *byte == 0).next();
            let words = String::from_utf8_lossy(words.unwrap_or_default()).into_owned();
            match ok {
                true => check(true, words),
                false => check(false, format!("the host's file has '{words}' there")),
            }
        }
    }
}

fn power_off(outcome: &Outcome) -> Check {
    let code = outcome.transcript.exit_code;
    Check {
        name: "the guest turns the machine off, and the host has no complaint",
        ok: code == Some(0),
        detail: match code {
            Some(0) => "exit code 0".into(),
            Some(code) => format!("the host's exit code is {code}"),
            None => "the host gave no exit code".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{Facts, no_ram};

    #[test]
    fn ram_in_the_window_is_found_and_no_ram_proves_nothing() {
        let window = 0x3000..0x5000;
        let check = |ram: &[std::ops::Range<u64>]| {
            let facts = Facts {
                ram: ram.to_vec(),
                ..Facts::default()
            };
            no_ram(&facts, &window)
        };
        assert!(check(&[0..0x3000, 0x5000..0x6000]).ok);
        let over = check(&[0..0x1000, 0x2000..0x3001]);
        assert!(!over.ok && over.detail == "0x2000-0x3000 is");
        assert!(!check(&[]).ok);
    }
}
