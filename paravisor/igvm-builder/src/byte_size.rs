// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sizes on the command line: `256MiB`, `1GiB`, `0x200000`, `4096`.

use crate::Error;

/// Units in the order in which [`format_size`] tries them.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Parses a size in bytes: a decimal or `0x` number, with `KiB`, `MiB` or `GiB` (or `K`, `M`, `G`).
///
/// # Errors
/// [`Error::Size`] when `text` is no number, has another suffix, or does not fit 64 bits.
pub fn parse_size(text: &str) -> Result<u64, Error> {
    let refuse = || Error::Size(text.to_owned());
    let (digits, unit) = UNITS
        .into_iter()
        .find_map(|(suffix, unit)| {
            let digits = text.strip_suffix(suffix);
            let digits = digits.or_else(|| text.strip_suffix(&suffix[..1]));
            digits.map(|digits| (digits, unit))
        })
        .unwrap_or((text, 1));
    let number = match digits.trim().strip_prefix("0x") {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16),
        None => digits.trim().parse(),
    };
    number
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(refuse)
}

/// The shortest exact form of `bytes`: `256MiB`, `68KiB`, `17B`.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let unit = UNITS
        .into_iter()
        .find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit));
    match unit {
        Some((suffix, unit)) => format!("{}{suffix}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::{format_size, parse_size};

    #[test]
    fn reads_what_users_write() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("0x200000", 2 << 20),
            ("64K", 64 << 10),
            ("64KiB", 64 << 10),
            ("256MiB", 256 << 20),
            ("256 MiB", 256 << 20),
            ("1G", 1 << 30),
        ] {
            assert_eq!(parse_size(text).ok(), Some(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "MiB", "-1", "1.5GiB", "256MB", "0x", "99999999999G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn writes_the_largest_exact_unit() {
        assert_eq!(format_size(1 << 30), "1GiB");
        assert_eq!(format_size(1536 << 20), "1536MiB");
        assert_eq!(format_size(0), "0B");
        assert_eq!(format_size(4097), "4097B");
    }
}
