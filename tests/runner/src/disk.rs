// SPDX-License-Identifier: MIT OR Apache-2.0
//! The disks of a run: checks of the user's file, its digest, and the second disk.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::Failure;

/// Bytes of a sector; virtio-blk counts in these.
pub const SECTOR: u64 = 512;

/// The disk to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The file.
    pub path: PathBuf,
    /// Its size, a multiple of [`SECTOR`], not 0.
    pub bytes: u64,
}

impl Disk {
    /// Checks the file at `path`.
    ///
    /// # Errors
    /// Bad input when it is missing, no regular file, empty or not a whole number of sectors.
    pub fn check(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let refuse = |what: String| Failure::bad_input(format!("disk {name} {what}"));
        let metadata = std::fs::metadata(path)
            .map_err(|error| refuse(format!("cannot be read ({error}); check the path")))?;
        if !metadata.is_file() {
            return Err(refuse("is no regular file; pass a raw disk image".into()));
        }
        let bytes = metadata.len();
        if bytes == 0 {
            return Err(refuse("is empty; pass a raw disk image".into()));
        }
        if !bytes.is_multiple_of(SECTOR) {
            let padded = bytes.next_multiple_of(SECTOR);
            return Err(refuse(format!(
                "has {bytes} bytes, not a multiple of 512; pad it with 'truncate -s {padded}'"
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            bytes,
        })
    }
}

/// Makes the second disk: a file of `bytes` zeros that takes no space until it is written.
///
/// # Errors
/// Bad input when the folder is not writable.
pub fn create_second(path: &Path, bytes: u64) -> Result<(), Failure> {
    File::create(path)
        .and_then(|file| file.set_len(bytes))
        .map_err(|error| {
            let name = path.display();
            Failure::bad_input(format!("cannot make the second disk {name}: {error}"))
        })
}

/// SHA-256 of the first `bytes` bytes of a file as 64 lower-case hexadecimal digits.
///
/// # Errors
/// What the operating system says, among others when the file is shorter.
pub fn sha256(path: &Path, bytes: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?.take(bytes);
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut left = bytes;
    while left != 0 {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&piece[..read]);
        left -= read as u64;
    }
    Ok(hexadecimal(&hash.finalize()))
}

/// A digest as people write it.
#[must_use]
pub fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `bytes` bytes of the file at `path` from `offset` on; `None` when it has not as many.
#[must_use]
pub fn read_block(path: &Path, offset: u64, bytes: usize) -> Option<Vec<u8>> {
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(offset)).ok()?;
    let mut block = vec![0; bytes];
    file.read_exact(&mut block).ok()?;
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::{Disk, create_second, sha256};

    #[test]
    fn unsuitable_files_get_one_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let odd = folder.path().join("odd");
        std::fs::write(&odd, [0; 1000]).expect("a temporary file");
        let empty = folder.path().join("empty");
        std::fs::write(&empty, []).expect("a temporary file");
        for (path, part) in [
            (folder.path().join("missing"), "cannot be read"),
            (folder.path().to_owned(), "no regular file"),
            (empty, "is empty"),
            (odd, "truncate -s 1024"),
        ] {
            let message = Disk::check(&path).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn digest_is_that_of_sha256() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("abc");
        std::fs::write(&path, b"abcdef").expect("a temporary file");
        // FIPS 180-4, example "abc".
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&path, 3).expect("readable"), want);
        assert!(sha256(&path, 7).is_err(), "the file is shorter");
    }

    #[test]
    fn second_disk_is_zero_and_of_the_size_asked_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("second");
        create_second(&path, 1 << 20).expect("a writable folder");
        let bytes = std::fs::read(&path).expect("readable");
        assert_eq!(bytes.len(), 1 << 20);
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
}
