// SPDX-License-Identifier: MIT OR Apache-2.0
//! The devices of a machine: which there are, the files behind them, and QEMU's options for each.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::Failure;
use crate::disk::{self, Disk};
use crate::disk_image::write_filler;
use crate::qemu::{escaped, throttle};

/// Bytes of the NVMe disk that a run makes for itself.
const NVME_BYTES: u64 = 4 << 20;
/// Bytes of the file that a run makes for itself to be fetched.
const FETCHED_BYTES: u64 = 4 << 20;
/// Starts of these files' contents: no two disks of a run have a sector in common.
const NVME_SEED: u64 = 0x4e56_4d65 << 32;
const FETCHED_SEED: u64 = 0x4e45_5421 << 32;
/// The same of the disk at the AHCI controller, which is as large as the NVMe disk.
const AHCI_SEED: u64 = 0x4148_4349 << 32;
/// The same of the first of further virtio-blk disks.
const MORE_SEED: u64 = 0x6d6f_7265 << 32;
/// Where the guest fetches: the address at which its user network has a peer, by HTTP.
const PEER: &str = "tcp:10.0.2.100:80";

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Device {
    /// Two virtio-blk disks, the first one read-only.
    Blk,
    /// A virtio-net card on a network with one peer, which serves one file.
    Net,
    /// An NVMe disk, which keeps nothing that the guest writes.
    Nvme,
    /// A disk at the AHCI controller of the machine's chip set, which keeps nothing that the guest writes.
    Ahci,
}

impl Device {
    /// Those of a Linux guest for which none are named.
    pub const USUAL: [Self; 3] = [Self::Blk, Self::Net, Self::Nvme];

    /// Its name on the command lines of runner and guest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Blk => "blk",
            Self::Net => "net",
            Self::Nvme => "nvme",
            Self::Ahci => "ahci",
        }
    }
}

/// A file that the guest is to read whole, and what the host knows of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HostFile {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// The files behind the devices other than virtio-blk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceFiles {
    /// The NVMe disk.
    pub nvme: Option<HostFile>,
    /// The guest may write it. That goes to a file of QEMU's own, which ends with the machine.
    pub nvme_writable: bool,
    /// Most bytes that the NVMe disk gives in a second; `None` is no limit.
    pub read_rate: Option<u64>,
    /// What the network's peer serves.
    pub fetched: Option<HostFile>,
    /// The disk at the AHCI controller.
    pub ahci: Option<HostFile>,
}

impl DeviceFiles {
    /// Provides a file for each of `devices` that needs one: the user's, or a new one in `folder`.
    ///
    /// # Errors
    /// Bad input when a file of the user's is unsuitable or `folder` is full.
    pub fn provide(
        devices: &[Device],
        nvme: Option<&Path>,
        fetched: Option<&Path>,
        folder: &Path,
    ) -> Result<Self, Failure> {
        let mut files = Self::default();
        if devices.contains(&Device::Nvme) {
            let path = match nvme {
                Some(path) => Disk::check(path)?.path,
                None => filler(folder.join("nvme.img"), NVME_BYTES, NVME_SEED)?,
            };
            files.nvme = Some(host_file(path)?);
        }
        if devices.contains(&Device::Net) {
            let path = match fetched {
                Some(path) => path.to_owned(),
                None => filler(folder.join("fetched.bin"), FETCHED_BYTES, FETCHED_SEED)?,
            };
            files.fetched = Some(host_file(path)?);
        }
        if devices.contains(&Device::Ahci) {
            let path = filler(folder.join("ahci.img"), NVME_BYTES, AHCI_SEED)?;
            files.ahci = Some(host_file(path)?);
        }
        Ok(files)
    }

    /// QEMU's options; `runner` is the program that serves the file.
    #[must_use]
    pub fn arguments(&self, runner: &Path) -> Vec<OsString> {
        let mut list: Vec<OsString> = Vec::new();
        if let Some(file) = &self.nvme {
            let mode = if self.nvme_writable {
                "snapshot=on"
            } else {
                "readonly=on"
            };
            let slow = throttle(self.read_rate);
            let mut drive = OsString::from(format!("if=none,id=n0,format=raw,{slow}{mode},file="));
            drive.push(escaped(&file.path));
            list.extend(["-drive".into(), drive]);
            list.extend(["-device".into(), "nvme,serial=swiotlb,drive=n0".into()]);
        }
        if let Some(file) = &self.fetched {
            // QEMU takes the commas, its network library the quotes.
            let command = format!(
                "{} serve {}",
                quoted(&runner.to_string_lossy()),
                quoted(&file.path.to_string_lossy())
            );
            let mut network =
                OsString::from(format!("user,id=net0,restrict=on,guestfwd={PEER}-cmd:"));
            network.push(escaped(Path::new(&command)));
            list.extend(["-netdev".into(), network]);
            let card = "virtio-net-pci,netdev=net0,disable-legacy=on,iommu_platform=on,romfile=";
            list.extend(["-device".into(), card.into()]);
        }
        if let Some(file) = &self.ahci {
            // QEMU takes no such disk that is read-only.
            let slow = throttle(self.read_rate);
            let mut drive =
                OsString::from(format!("if=none,id=a0,format=raw,{slow}snapshot=on,file="));
            drive.push(escaped(&file.path));
            list.extend(["-drive".into(), drive]);
            list.extend(["-device".into(), "ide-hd,drive=a0,bus=ide.0".into()]);
        }
        list
    }
}

/// A word as a shell takes it whole.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Makes `count` further disks in `folder`.
///
/// # Errors
/// Bad input when `folder` is full.
pub fn more_disks(count: u32, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let disk = |number: u32| {
        let seed = MORE_SEED + u64::from(number) * NVME_BYTES;
        filler(folder.join(format!("more{number}.img")), NVME_BYTES, seed)
    };
    (0..count).map(disk).collect()
}

fn filler(path: PathBuf, bytes: u64, seed: u64) -> Result<PathBuf, Failure> {
    write_filler(&path, bytes, seed).map_err(|error| {
        Failure::bad_input(format!(
            "{} cannot be written ({error}); make room there or pass another folder with --keep",
            path.display()
        ))
    })?;
    Ok(path)
}

fn host_file(path: PathBuf) -> Result<HostFile, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::bad_input(format!(
            "{} cannot be read ({error}); check the path",
            path.display()
        ))
    };
    // QEMU starts the server in a folder of its own choice.
    let path = std::path::absolute(&path).map_err(unreadable)?;
    let bytes = std::fs::metadata(&path).map_err(unreadable)?.len();
    let sha256 = disk::sha256(&path, bytes).map_err(unreadable)?;
    Ok(HostFile {
        path,
        bytes,
        sha256,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::{Device, DeviceFiles, HostFile};

    #[test]
    fn files_are_made_for_the_devices_that_there_are() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let provide = |devices: &[Device]| DeviceFiles::provide(devices, None, None, folder.path());
        assert_eq!(provide(&[Device::Blk]), Ok(DeviceFiles::default()));
        let files = provide(&[Device::Net, Device::Nvme, Device::Ahci]).expect("room");
        let starts: BTreeSet<_> = [files.nvme, files.fetched, files.ahci]
            .into_iter()
            .map(|file| {
                let file = file.expect("made");
                assert_eq!(file.bytes, 4 << 20);
                std::fs::read(file.path).expect("made")[..512].to_vec()
            })
            .collect();
        assert_eq!(starts.len(), 3, "the disks cannot be told apart");
    }

    #[test]
    fn files_of_the_users_are_checked() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let odd = folder.path().join("odd");
        std::fs::write(&odd, [1; 513]).expect("ours");
        let missing = folder.path().join("missing");
        for (nvme, fetched) in [(Some(&odd), None), (None, Some(&missing))] {
            let files = DeviceFiles::provide(
                &Device::USUAL,
                nvme.map(PathBuf::as_path),
                fetched.map(PathBuf::as_path),
                folder.path(),
            );
            let message = files.unwrap_err().to_string();
            assert!(
                !message.contains('\n') && message.contains("; "),
                "{message}"
            );
        }
        let files = DeviceFiles::provide(&[Device::Net], None, Some(&odd), folder.path());
        let fetched = files.expect("any file can be fetched").fetched;
        assert_eq!(fetched.map(|file| file.bytes), Some(513));
    }

    #[test]
    fn odd_file_names_reach_qemu_and_the_server_whole() {
        let file = |path: &str| {
            Some(HostFile {
                path: path.into(),
                bytes: 1,
                sha256: String::new(),
            })
        };
        let files = DeviceFiles {
            nvme: file("/a,b"),
            nvme_writable: false,
            read_rate: None,
            fetched: file("/it's, a file"),
            ahci: file("/c,d"),
        };
        let arguments = files.arguments(Path::new("/my runner"));
        let has = |text: &str| arguments.iter().any(|argument| argument == text);
        assert!(has("if=none,id=n0,format=raw,readonly=on,file=/a,,b"));
        assert!(has("if=none,id=a0,format=raw,snapshot=on,file=/c,,d"));
        assert!(
            has(
                r"user,id=net0,restrict=on,guestfwd=tcp:10.0.2.100:80-cmd:'/my runner' serve '/it'\''s,, a file'"
            ),
            "{arguments:?}"
        );
        let writable = DeviceFiles {
            nvme_writable: true,
            read_rate: Some(8 << 20),
            ..files
        };
        let arguments = writable.arguments(Path::new("/my runner"));
        assert!(
            arguments.iter().any(|argument| argument
                == "if=none,id=n0,format=raw,throttling.bps-read=8388608,snapshot=on,file=/a,,b"),
            "{arguments:?}"
        );
        assert!(DeviceFiles::default().arguments(Path::new("r")).is_empty());
    }
}
