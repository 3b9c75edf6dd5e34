// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's command line: words of the form `key=value`, separated by spaces.

/// What to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// Send every wrong call and compare the answers.
    pub self_test: bool,
    /// Move the disks through the pool.
    pub disk: bool,
}

impl Mode {
    /// Both, the default.
    pub const ALL: Self = Self {
        self_test: true,
        disk: true,
    };

    /// Reads `mode=all`, `mode=disk` or `mode=selftest`; the last one given counts. `None` for
    /// another value: running something else than asked for would be a silent success.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut mode = Self::ALL;
        for word in line.split(u8::is_ascii_whitespace) {
            let Some(value) = word.strip_prefix(b"mode=") else {
                continue;
            };
            mode = match value {
                b"all" => Self::ALL,
                b"disk" => Self {
                    self_test: false,
                    disk: true,
                },
                b"selftest" => Self {
                    self_test: true,
                    disk: false,
                },
                _ => return None,
            };
        }
        Some(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::Mode;

    #[test]
    fn the_mode_is_one_of_three_words() {
        assert_eq!(Mode::parse(b""), Some(Mode::ALL));
        assert_eq!(Mode::parse(b"quiet mode=all"), Some(Mode::ALL));
        let disk = Mode::parse(b"mode=disk").expect("known mode");
        assert!(disk.disk && !disk.self_test);
        let self_test = Mode::parse(b"mode=disk mode=selftest").expect("known mode");
        assert!(self_test.self_test && !self_test.disk);
        assert_eq!(Mode::parse(b"mode=none"), None);
    }
}
