// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks that a file can be an initrd: a cpio archive or something the kernel can decompress.
//!
//! A cpio archive is walked to its end, so one that is cut short is found; what is inside a compressed
//! file is only seen by the kernel. Source: Linux, Documentation/driver-api/early-userspace/
//! buffer-format.rst and lib/decompress.c.

use std::path::Path;

use crate::Error;

/// First bytes of what the kernel decompresses.
const COMPRESSED: [&[u8]; 9] = [
    b"\x1f\x8b",         // gzip
    b"\x1f\x9e",         // gzip, old
    b"BZh",              // bzip2
    b"\x5d\0\0",         // lzma
    b"\xfd7zXZ\0",       // xz
    b"\x89LZO",          // lzo
    b"\x02\x21\x4c\x18", // lz4
    b"\x28\xb5\x2f\xfd", // zstd
    b"\x04\x22\x4d\x18", // lz4 frame
];
/// Bytes of a cpio header.
const HEADER: usize = 110;
/// Offsets of the hexadecimal fields in it.
const FILE_SIZE: usize = 54;
const NAME_SIZE: usize = 94;

/// Checks `bytes`, the contents of the file `path` (for messages).
///
/// # Errors
/// [`Error::Initrd`] when the kernel is sure to reject it.
pub fn check_initrd(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let refuse = |what| Error::Initrd {
        path: path.to_owned(),
        what,
    };
    if bytes.is_empty() {
        return Err(refuse("is empty"));
    }
    if is_header(bytes) {
        return check_cpio(bytes).map_err(refuse);
    }
    if COMPRESSED.iter().any(|magic| bytes.starts_with(magic)) {
        return Ok(());
    }
    Err(refuse(
        "is no cpio archive and not compressed in a way the kernel knows",
    ))
}

fn is_header(bytes: &[u8]) -> bool {
    bytes.starts_with(b"070701") || bytes.starts_with(b"070702")
}

/// Walks the members up to the trailer.
fn check_cpio(bytes: &[u8]) -> Result<(), &'static str> {
    let mut offset = 0_usize;
    loop {
        let member = bytes.get(offset..).unwrap_or(&[]);
        if member.len() < HEADER {
            return Err("is a cpio archive that is cut short");
        }
        if !is_header(member) {
            return Err("is a damaged cpio archive");
        }
        let field = |at: usize| {
            let text = member
                .get(at..at + 8)
                .and_then(|text| std::str::from_utf8(text).ok());
            let value = text.and_then(|text| u32::from_str_radix(text, 16).ok());
            value
                .and_then(|value| usize::try_from(value).ok())
                .ok_or("is a damaged cpio archive")
        };
        let (file, name) = (field(FILE_SIZE)?, field(NAME_SIZE)?);
        let data = (HEADER + name).next_multiple_of(4);
        let name = member
            .get(HEADER..HEADER + name)
            .ok_or("is a cpio archive that is cut short")?;
        if name == b"TRAILER!!!\0" {
            return Ok(());
        }
        if member.len() < data + file {
            return Err("is a cpio archive that is cut short");
        }
        offset += (data + file).next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use super::check_initrd;
    use std::path::Path;

    /// A member with a name and contents.
    fn member(name: &str, contents: &[u8]) -> Vec<u8> {
        let mut bytes = b"070701".to_vec();
        let fields = [
            0,
            0o100_755,
            0,
            0,
            1,
            0,
            contents.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ];
        for field in fields {
            bytes.extend(format!("{field:08X}").bytes());
        }
        bytes.extend(name.bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(contents);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn refusal(bytes: &[u8]) -> Option<String> {
        let result = check_initrd(Path::new("initrd"), bytes);
        result.err().map(|error| error.to_string())
    }

    #[test]
    fn archives_and_compressed_files_pass() {
        let archive = [member("init", b"#!/bin/sh"), member("TRAILER!!!", b"")].concat();
        assert_eq!(refusal(&archive), None);
        for magic in [&b"\x1f\x8b\x08"[..], b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0"] {
            assert_eq!(refusal(magic), None);
        }
    }

    #[test]
    fn the_rest_is_refused_in_one_line() {
        let archive = [member("init", b"#!/bin/sh"), member("TRAILER!!!", b"")].concat();
        let mut damaged = archive.clone();
        damaged[member("init", b"#!/bin/sh").len()] = b'X';
        let mut no_number = archive.clone();
        no_number[54] = b'-';
        let cases: [(&[u8], &str); 6] = [
            (b"", "is empty"),
            (b"#!/bin/sh", "is no cpio archive"),
            (&archive[..archive.len() - 20], "cut short"),
            (&archive[..116], "cut short"),
            (&damaged, "damaged"),
            (&no_number, "damaged"),
        ];
        for (bytes, part) in cases {
            let message = refusal(bytes).expect(part);
            assert!(message.contains(part), "{message}");
            assert!(
                message.contains(';') && !message.contains('\n'),
                "{message}"
            );
        }
    }
}
