// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes cpio archives of the kind that Linux takes as an initrd (`newc`; kernel documentation,
//! "initramfs buffer format"). All owners are root and all times 0, so equal contents give equal bytes.

/// Bits of a file's mode that say what it is.
mod kind {
    pub const FOLDER: u32 = 0o040_000;
    pub const FILE: u32 = 0o100_000;
    pub const CHARACTER_DEVICE: u32 = 0o020_000;
}

/// Magic of an entry without checksum.
const MAGIC: &str = "070701";
/// Name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";
/// Entries and contents start at multiples of this.
const ALIGNMENT: usize = 4;

/// An archive under construction.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder.
    pub fn folder(&mut self, name: &str) {
        self.entry(name, kind::FOLDER | 0o755, &[], (0, 0));
    }

    /// Adds a file; those to execute have `executable` set.
    pub fn file(&mut self, name: &str, executable: bool, contents: &[u8]) {
        let mode = if executable { 0o755 } else { 0o644 };
        self.entry(name, kind::FILE | mode, contents, (0, 0));
    }

    /// Adds a character device with its major and minor number.
    pub fn character_device(&mut self, name: &str, number: (u32, u32)) {
        self.entry(name, kind::CHARACTER_DEVICE | 0o600, &[], number);
    }

    /// The whole archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, &[], (0, 0));
        self.bytes
    }

    /// One entry: thirteen fields of eight hexadecimal digits, the name, the contents.
    ///
    /// Contents of 4 GiB or more do not exist here: an initrd lies in the memory of a small guest.
    fn entry(&mut self, name: &str, mode: u32, contents: &[u8], device: (u32, u32)) {
        self.entries += 1;
        let (major, minor) = device;
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let fields = [
            self.entries,
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time
            size(contents.len()),
            0, // device the file lies on, major
            0, // and minor
            major,
            minor,
            size(name.len() + 1),
            0, // checksum, unused by this magic
        ];
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(contents);
        self.align();
    }

    fn align(&mut self) {
        let bytes = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(bytes, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::Archive;

    fn sample() -> Vec<u8> {
        let mut archive = Archive::default();
        archive.folder("dev");
        archive.character_device("dev/console", (5, 1));
        archive.file("init", true, b"#!/bin/sh\n");
        archive.file("order", false, b"abc");
        archive.finish()
    }

    #[test]
    fn entries_are_framed_and_aligned() {
        let bytes = sample();
        assert!(bytes.len().is_multiple_of(4));
        let text = String::from_utf8_lossy(&bytes);
        let starts: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(starts.len(), 5);
        assert!(starts.iter().all(|at| at.is_multiple_of(4)), "{starts:?}");
        // The device: mode, then numbers 5 and 1 in the last fields but two.
        let device = &text[starts[1]..];
        assert_eq!(&device[14..22], "00002180");
        assert_eq!(&device[78..94], "0000000500000001");
        assert_eq!(&device[94..102], "0000000c", "name with its end");
        let file = &text[starts[2]..];
        assert_eq!(&file[14..22], "000081ed");
        assert_eq!(&file[54..62], "0000000a");
        assert!(file[110..].starts_with("init\0"));
        assert!(text.contains("TRAILER!!!\0"));
        assert_eq!(sample(), bytes, "equal contents, equal bytes");
    }

    #[test]
    fn another_program_reads_the_archive_where_there_is_one() {
        // Nothing else on a fresh machine reads the format; the kernel itself is the final judge.
        let Ok(mut reader) = Command::new("cpio")
            .args(["--list", "--verbose", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            return;
        };
        let mut input = reader.stdin.take().expect("piped");
        input.write_all(&sample()).expect("it reads");
        drop(input);
        let output = reader.wait_with_output().expect("it ends");
        let list = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && list.lines().count() == 4,
            "{list}"
        );
        assert!(
            list.contains("crw-------") && list.contains("-rwxr-xr-x"),
            "{list}"
        );
    }
}
