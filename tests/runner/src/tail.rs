// SPDX-License-Identifier: MIT OR Apache-2.0
//! Follows a file to which another process appends lines.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A line longer than this is cut: no component writes one, but the guest is not ours to trust.
const LONGEST_LINE: usize = 64 << 10;

/// The end of a growing file.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
    partial: Vec<u8>,
}

impl Tail {
    /// Follows `path` from its beginning; it need not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            offset: 0,
            partial: Vec::new(),
        }
    }

    /// The complete lines that have come since the last call, without line ends. Bytes that are no
    /// text are replaced.
    pub fn lines(&mut self) -> Vec<String> {
        let mut new = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_end(&mut new)
        });
        // Not there yet, or not readable: nothing has been said.
        if read.is_err() {
            return Vec::new();
        }
        self.offset += new.len() as u64;
        self.partial.extend_from_slice(&new);
        let complete = match self.partial.iter().rposition(|byte| *byte == b'\n') {
            Some(position) => position + 1,
            None if self.partial.len() > LONGEST_LINE => self.partial.len(),
            None => return Vec::new(),
        };
        let lines: Vec<u8> = self.partial.drain(..complete).collect();
        let lines = lines.strip_suffix(b"\n").unwrap_or(&lines);
        lines.split(|byte| *byte == b'\n').map(clean).collect()
    }

    /// Bytes read so far, lines or not.
    #[must_use]
    pub const fn bytes_read(&self) -> u64 {
        self.offset
    }

    /// What is left without a line end, once nothing more will come.
    pub fn rest(&mut self) -> Option<String> {
        let line = clean(&std::mem::take(&mut self.partial));
        (!line.is_empty()).then_some(line)
    }
}

fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.trim_end_matches(['\n', '\r']).to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::Tail;

    #[test]
    fn lines_are_given_out_once_and_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log");
        let mut tail = Tail::new(&path);
        assert!(tail.lines().is_empty(), "no file yet");
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .expect("a temporary file");
        file.write_all(b"one\r\ntw").expect("our file");
        assert_eq!(tail.lines(), ["one"]);
        assert!(tail.lines().is_empty());
        file.write_all(b"o\n\nthree\xff").expect("our file");
        assert_eq!(tail.lines(), ["two", ""]);
        assert_eq!(tail.rest().as_deref(), Some("three\u{fffd}"));
        assert_eq!(tail.rest(), None);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log");
        std::fs::write(&path, vec![b'a'; 70_000]).expect("a temporary file");
        assert_eq!(Tail::new(&path).lines().len(), 1);
    }
}
