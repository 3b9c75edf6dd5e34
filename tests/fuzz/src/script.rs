// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases as text: one record of eight bytes in hexadecimal per line, and behind `#` what it means.

use std::fmt::{self, Write as _};

use crate::operation::{Operation, RECORD_BYTES, Setup};

/// A case: its setup and its operations.
#[derive(Clone, PartialEq, Eq)]
pub struct Script {
    /// What it starts with.
    pub setup: [u8; RECORD_BYTES],
    /// What is done.
    pub operations: Vec<[u8; RECORD_BYTES]>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{}", self.to_text())
    }
}

impl Script {
    /// The case that a fuzzer's bytes stand for. Bytes that fill no record are left out.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (records, _) = bytes.as_chunks::<RECORD_BYTES>();
        let (setup, operations) = records.split_first().unwrap_or((&[0; RECORD_BYTES], &[]));
        Self {
            setup: *setup,
            operations: operations.to_vec(),
        }
    }

    /// The reverse of [`Script::from_bytes`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.setup.to_vec();
        bytes.extend(self.operations.as_flattened());
        bytes
    }

    /// Reads text.
    ///
    /// # Errors
    /// The first line that is no record.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut bytes = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let digits: String = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            if digits.is_empty() {
                continue;
            }
            let record = u64::from_str_radix(&digits, 16)
                .ok()
                .filter(|_| digits.len() == 2 * RECORD_BYTES)
                .ok_or_else(|| format!("line {}: not eight bytes in hexadecimal", number + 1))?;
            bytes.extend(record.to_be_bytes());
        }
        Ok(Self::from_bytes(&bytes))
    }

    /// Writes text that [`Script::parse`] reads.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |record: &[u8; RECORD_BYTES], meaning: String| {
            let hex = record
                .chunks(2)
                .map(|pair| format!("{:02x}{:02x}", pair[0], pair[1]));
            let hex: Vec<String> = hex.collect();
            writeln!(text, "{}  # {meaning}", hex.join(" ")).expect("a string grows");
        };
        line(&self.setup, format!("{:?}", Setup::decode(self.setup)));
        for record in &self.operations {
            line(record, format!("{:?}", Operation::decode(*record)));
        }
        text
    }
}
