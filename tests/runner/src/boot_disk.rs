// SPDX-License-Identifier: MIT OR Apache-2.0
//! `runner boot-disk`: a disk from which UEFI firmware boots a Linux kernel.
//!
//! One partition, an EFI system partition with a FAT16 file system (Microsoft, "FAT: General Overview of
//! On-Disk Format", 1.03; UEFI specification, 13.3). The kernel is its own EFI program; the script that
//! the UEFI Shell runs by itself (`startup.nsh`) starts it with initrd and command line. No program of
//! this computer is needed, and the same input gives the same bytes.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::Failure;

const SECTOR: usize = 512;
/// First sector of the partition.
const PARTITION: u32 = 2048;
/// Sectors of a cluster.
const CLUSTER_SECTORS: usize = 8;
const CLUSTER: usize = CLUSTER_SECTORS * SECTOR;
/// Fewer clusters would be FAT12, more FAT32.
const CLUSTERS: std::ops::Range<usize> = 4200..65_000;
const ROOT_ENTRIES: u16 = 512;
const ROOT_SECTORS: usize = ROOT_ENTRIES as usize * 32 / SECTOR;
const FATS: usize = 2;
/// Type of a fixed disk, and first entry of its table.
const MEDIA: u8 = 0xf8;
/// Last cluster of a file.
const END_OF_FILE: u16 = 0xffff;
const EFI_SYSTEM_PARTITION: u8 = 0xef;
const SIGNATURE: [u8; 2] = [0x55, 0xaa];

/// What to put onto the disk.
#[derive(Debug, Clone, Args)]
pub struct BootDiskOptions {
    /// The kernel, an EFI program (vmlinuz of a distribution)
    #[arg(long, value_name = "FILE")]
    pub kernel: PathBuf,
    /// Its initial user space
    #[arg(long, value_name = "FILE")]
    pub initrd: PathBuf,
    /// Its command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub cmdline: String,
    /// The disk image to write
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

/// A file of the root directory: its name in the form of a directory entry, and its contents.
type NamedFile<'a> = (&'a [u8; 11], &'a [u8]);

/// Makes the disk.
///
/// # Errors
/// Bad input when a file is missing or unsuitable, or the output cannot be written.
pub fn make_boot_disk(options: &BootDiskOptions) -> Result<(), Failure> {
    let kernel = read(&options.kernel, "the kernel")?;
    if !kernel.starts_with(b"MZ") {
        return Err(Failure::bad_input(format!(
            "{} is no EFI program; pass a kernel with an EFI stub (vmlinuz of a distribution)",
            options.kernel.display()
        )));
    }
    let initrd = read(&options.initrd, "the initrd")?;
    let script = format!("fs0:\r\nlinux.efi initrd=\\initrd {}\r\n", options.cmdline);
    let files: [NamedFile<'_>; 3] = [
        (b"LINUX   EFI", &kernel),
        (b"INITRD     ", &initrd),
        (b"STARTUP NSH", script.as_bytes()),
    ];
    let disk = disk(&files).ok_or_else(|| {
        Failure::bad_input("kernel and initrd are too large for the boot disk; pass smaller ones")
    })?;
    let output = options.output.display();
    std::fs::write(&options.output, disk)
        .map_err(|error| Failure::bad_input(format!("cannot write {output}: {error}")))
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    let name = path.display();
    std::fs::read(path)
        .map_err(|error| Failure::bad_input(format!("cannot read {what} {name}: {error}")))
}

/// The disk; `None` when the files do not fit.
fn disk(files: &[NamedFile<'_>]) -> Option<Vec<u8>> {
    let needed: usize = files
        .iter()
        .map(|(_, contents)| contents.len().div_ceil(CLUSTER))
        .sum();
    let clusters = needed.max(CLUSTERS.start);
    if clusters >= CLUSTERS.end {
        return None;
    }
    // The first two entries of the table stand for no cluster.
    let fat_sectors = ((clusters + 2) * 2).div_ceil(SECTOR);
    let data_sectors = clusters * CLUSTER_SECTORS;
    let sectors = 1 + FATS * fat_sectors + ROOT_SECTORS + data_sectors;
    let sectors_32 = u32::try_from(sectors).ok()?;

    let mut fat = vec![0_u16; fat_sectors * SECTOR / 2];
    fat[0] = 0xff00 | u16::from(MEDIA);
    fat[1] = END_OF_FILE;
    let mut root = vec![0; ROOT_SECTORS * SECTOR];
    let mut data = vec![0; clusters * CLUSTER];
    let mut next = 2_u16;
    for ((name, contents), entry) in files.iter().zip(root.chunks_mut(32)) {
        let count = u16::try_from(contents.len().div_ceil(CLUSTER)).ok()?;
        let start = usize::from(next - 2) * CLUSTER;
        data[start..start + contents.len()].copy_from_slice(contents);
        for cluster in next..next + count {
            let last = cluster + 1 == next + count;
            fat[usize::from(cluster)] = if last { END_OF_FILE } else { cluster + 1 };
        }
        entry[..11].copy_from_slice(*name);
        entry[26..28].copy_from_slice(&next.to_le_bytes());
        entry[28..32].copy_from_slice(&u32::try_from(contents.len()).ok()?.to_le_bytes());
        next += count;
    }

    let mut disk = master_boot_record(sectors_32);
    disk.resize(PARTITION as usize * SECTOR, 0);
    disk.extend(boot_sector(sectors_32, u16::try_from(fat_sectors).ok()?));
    for _ in 0..FATS {
        disk.extend(fat.iter().flat_map(|entry| entry.to_le_bytes()));
    }
    disk.extend(root);
    disk.extend(data);
    Some(disk)
}

/// One partition of `sectors`; addresses by cylinders are left at their largest values.
fn master_boot_record(sectors: u32) -> Vec<u8> {
    let mut sector = vec![0; SECTOR];
    let entry = &mut sector[446..462];
    entry[1..4].fill(0xff);
    entry[4] = EFI_SYSTEM_PARTITION;
    entry[5..8].fill(0xff);
    entry[8..12].copy_from_slice(&PARTITION.to_le_bytes());
    entry[12..16].copy_from_slice(&sectors.to_le_bytes());
    sector[510..].copy_from_slice(&SIGNATURE);
    sector
}

/// The file system's parameters.
fn boot_sector(sectors: u32, fat_sectors: u16) -> Vec<u8> {
    let mut sector = vec![0; SECTOR];
    let mut put = |offset: usize, bytes: &[u8]| {
        sector[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &[0xeb, 0x3c, 0x90]);
    put(3, b"SWIOTLB ");
    put(11, &512_u16.to_le_bytes());
    put(13, &[CLUSTER_SECTORS.to_le_bytes()[0]]);
    put(14, &1_u16.to_le_bytes());
    put(16, &[FATS.to_le_bytes()[0]]);
    put(17, &ROOT_ENTRIES.to_le_bytes());
    put(21, &[MEDIA]);
    put(22, &fat_sectors.to_le_bytes());
    put(24, &[63, 0, 255, 0]);
    put(28, &PARTITION.to_le_bytes());
    put(32, &sectors.to_le_bytes());
    // Number of the drive, an unused byte, and the mark that serial number and names follow.
    put(36, &[0x80, 0, 0x29]);
    put(39, b"SWIO");
    put(43, b"SVSM BOOT  FAT16   ");
    put(510, &SIGNATURE);
    sector
}

#[cfg(test)]
mod tests {
    use super::{CLUSTER, END_OF_FILE, NamedFile, PARTITION, SECTOR, disk};

    fn u16_at(bytes: &[u8], at: usize) -> u16 {
        u16::from_le_bytes([bytes[at], bytes[at + 1]])
    }

    /// Reads a file as firmware does: by the numbers in the boot sector.
    fn read(disk: &[u8], name: &[u8; 11]) -> Vec<u8> {
        let volume = &disk[PARTITION as usize * SECTOR..];
        let fats = usize::from(volume[16]) * usize::from(u16_at(volume, 22));
        let root = (usize::from(u16_at(volume, 14)) + fats) * SECTOR;
        let data = root + usize::from(u16_at(volume, 17)) * 32;
        let entry = volume[root..data]
            .chunks(32)
            .find(|entry| entry[..11] == *name)
            .expect("the file");
        let mut cluster = u16_at(entry, 26);
        let mut contents = Vec::new();
        while cluster != END_OF_FILE {
            let start = data + usize::from(cluster - 2) * CLUSTER;
            contents.extend(&volume[start..start + CLUSTER]);
            cluster = u16_at(volume, SECTOR + 2 * usize::from(cluster));
        }
        contents.truncate(usize::from(u16_at(entry, 28)));
        contents
    }

    #[test]
    fn files_are_found_by_the_file_systems_own_numbers() {
        let large: Vec<u8> = (0..3 * CLUSTER + 5).map(|at| at.to_le_bytes()[1]).collect();
        let files: [NamedFile<'_>; 2] = [(b"A       EFI", &large), (b"B          ", b"hello")];
        let disk = disk(&files).expect("it fits");
        assert_eq!(read(&disk, b"A       EFI"), large);
        assert_eq!(read(&disk, b"B          "), b"hello");
        assert_eq!(disk[450], 0xef, "an EFI system partition");
        let sectors = u32::from_le_bytes(disk[458..462].try_into().expect("four bytes"));
        assert_eq!(disk.len(), (PARTITION + sectors) as usize * SECTOR);
    }

    #[test]
    fn a_disk_that_would_not_be_fat16_is_refused() {
        let large = vec![0; 65_000 * CLUSTER];
        assert!(disk(&[(b"A       EFI", &large)]).is_none());
    }
}
