// SPDX-License-Identifier: MIT OR Apache-2.0
//! `runner disk`: a disk image with a real file system, made from a folder.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use igvm_builder::{format_size, parse_size};

use crate::Failure;

/// Smallest image; below it a default run would not grow the pool often enough.
const SMALLEST: u64 = 64 << 20;
/// Folders of the source tree that are not sources.
const LEFT_OUT: [&str; 2] = [".git", "target"];
/// Identity of the file system and seed of its directory hashes: fixed, as all else here.
const UUID: &str = "5c50b1ae-0000-4000-8000-000000000001";
/// All times in the file system, in seconds of the Unix epoch.
const TIME: &str = "1767225600";

/// What to put into the image.
#[derive(Debug, Clone, Args)]
pub struct DiskOptions {
    /// Folder whose contents go into the file system (`target` and `.git` are left out)
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// The image to write
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Size of the image, at least 64MiB
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    pub size: u64,
}

/// Makes the image.
///
/// # Errors
/// Bad input when a folder is unsuitable, it does not fit, or mke2fs is missing.
pub fn make_disk(options: &DiskOptions) -> Result<(), Failure> {
    if options.size < SMALLEST || !options.size.is_multiple_of(1 << 20) {
        return Err(Failure::bad_input(format!(
            "a disk of {} is impossible; pass a multiple of 1MiB, at least 64MiB",
            format_size(options.size)
        )));
    }
    let program = find_mke2fs()?;
    let from = options.from.display();
    let staging = tempfile::tempdir()
        .map_err(|error| Failure::bad_input(format!("no temporary folder: {error}")))?;
    let copied = copy(&options.from, staging.path())
        .map_err(|error| Failure::bad_input(format!("cannot copy {from}: {error}")))?;
    // The rest of the disk shall not be zeros, which a lost transfer would produce as well.
    let filler = (options.size / 8 * 7).checked_sub(copied).ok_or_else(|| {
        Failure::bad_input(format!(
            "{from} has {}MiB, too much for a disk of {}; pass a larger --size",
            copied >> 20,
            format_size(options.size)
        ))
    })?;
    write_filler(&staging.path().join("filler.bin"), filler, 0)
        .map_err(|error| Failure::bad_input(format!("no room for temporary files: {error}")))?;
    format(&program, options, staging.path())
}

/// mke2fs lies outside a plain user's search path on Debian.
fn find_mke2fs() -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/sbin".into(), "/usr/sbin".into()])
        .map(|folder: PathBuf| folder.join("mke2fs"))
        .find(|program| program.is_file())
        .ok_or_else(|| {
            Failure::bad_input(
                "mke2fs is missing, it makes the default disk; install e2fsprogs (Debian: apt install e2fsprogs) or pass a disk of your own (make: DISK=)",
            )
        })
}

/// Copies the files below `from` and gives their bytes, each rounded up to a block.
fn copy(from: &Path, to: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if LEFT_OUT.iter().any(|left_out| name == OsStr::new(left_out)) {
            continue;
        }
        let target = to.join(&name);
        if kind.is_dir() {
            fs::create_dir(&target)?;
            bytes += 4096 + copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            bytes += fs::copy(entry.path(), &target)?.next_multiple_of(4096);
        }
    }
    Ok(bytes)
}

/// A file in which no two words are equal, so that a misplaced sector changes the digest. Files made
/// with numbers `first` that are further apart than their words have no word in common.
pub fn write_filler(path: &Path, bytes: u64, first: u64) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for word in 0..bytes / 8 {
        // The finalizer of SplitMix64, a bijection.
        let mut mixed = first.wrapping_add(word);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        file.write_all(&(mixed ^ (mixed >> 31)).to_le_bytes())?;
    }
    file.flush()
}

fn format(program: &Path, options: &DiskOptions, staging: &Path) -> Result<(), Failure> {
    let name = options.output.display();
    let fail = |error: String| {
        Failure::bad_input(format!(
            "{} cannot make {name}: {error}; check the folder and its free space",
            program.display()
        ))
    };
    // Started from scratch: an older image would show through.
    let image = File::create(&options.output).and_then(|file| file.set_len(options.size));
    image.map_err(|error| fail(error.to_string()))?;
    let output = Command::new(program)
        .args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-b",
            "4096",
            "-m",
            "0",
            "-O",
            "^has_journal",
        ])
        .args(["-L", "svsm-swiotlb", "-U", UUID])
        .args(["-E", &format!("hash_seed={UUID},root_owner=0:0,nodiscard")])
        .arg("-d")
        .arg(staging)
        .arg(&options.output)
        .env("E2FSPROGS_FAKE_TIME", TIME)
        .output()
        .map_err(|error| fail(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(fail(message.trim().replace('\n', ", ")))
}

#[cfg(test)]
mod tests {
    use super::{DiskOptions, make_disk, write_filler};

    #[test]
    fn the_image_has_a_file_system_with_the_files() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let from = folder.path().join("tree");
        std::fs::create_dir_all(from.join("target")).expect("ours");
        std::fs::write(from.join("hello.txt"), "a text to look for").expect("ours");
        std::fs::write(from.join("target/out.txt"), "a built thing").expect("ours");
        let output = folder.path().join("disk.img");
        let options = DiskOptions {
            from,
            output: output.clone(),
            size: 64 << 20,
        };
        make_disk(&options).expect("mke2fs makes it");
        let image = std::fs::read(&output).expect("ours");
        assert_eq!(image.len(), 64 << 20);
        assert_eq!(image[1080..1082], [0x53, 0xef], "no ext4 magic");
        let holds = |text: &[u8]| image.windows(text.len()).any(|window| window == text);
        assert!(holds(b"a text to look for"));
        assert!(!holds(b"a built thing"));
        let filled = image
            .chunks(4096)
            .filter(|block| block.iter().any(|byte| *byte != 0));
        assert!(filled.count() > 64 * 256 * 3 / 4, "mostly zeros");
    }

    #[test]
    fn impossible_requests_get_one_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = |from: &str, size| DiskOptions {
            from: folder.path().join(from),
            output: folder.path().join("disk.img"),
            size,
        };
        for options in [
            options("", 63 << 20),
            options("", (64 << 20) + 512),
            options("no", 64 << 20),
        ] {
            let message = make_disk(&options).unwrap_err().to_string();
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn filler_words_differ() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("filler");
        write_filler(&path, 8000, 7).expect("ours");
        let bytes = std::fs::read(&path).expect("ours");
        let words: std::collections::BTreeSet<_> = bytes.chunks(8).collect();
        assert_eq!(words.len(), 1000);
    }
}
