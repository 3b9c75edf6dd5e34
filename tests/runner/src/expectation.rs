// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a run has to show to be a success.

use std::str::FromStr;

use paravisor::boot_block::BootBlock;

/// What a run has to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// Self-test and disk work, as on the default run.
    All,
    /// Disk work only.
    Disk,
    /// Self-test only.
    SelfTest,
    /// Kernels that crash at peak load and account for every chunk.
    Restart,
    /// The guest ends itself and reports success; what it did is its own affair.
    Success,
    /// A Linux guest starts, tries all devices and turns the machine off (`runner linux`).
    Linux,
    /// Nothing: the run is reported, whatever happens.
    Nothing,
    /// The guest ends itself with this reason set and code.
    Termination {
        /// Reason set.
        set: u64,
        /// Reason code.
        reason: u64,
    },
    /// The machine stops with a violation report that contains this text.
    Violation(String),
}

impl Expectation {
    /// What an image of this kind is expected to do: the test guest tells by its last `mode=`, a foreign
    /// image promises nothing.
    #[must_use]
    pub fn of(boot_block: Option<&BootBlock>) -> Self {
        let Some(block) = boot_block else {
            return Self::Nothing;
        };
        let text = String::from_utf8_lossy(&block.cmdline);
        let mode = text
            .trim_end_matches('\0')
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("mode="))
            .next_back();
        match mode {
            Some("disk" | "windows") => Self::Disk,
            Some("selftest") => Self::SelfTest,
            Some("restart") => Self::Restart,
            Some("limits" | "attacked" | "attacked-work" | "host-replies") => Self::Success,
            _ => Self::All,
        }
    }

    /// The self-test has to have run.
    #[must_use]
    pub fn self_test(&self) -> bool {
        matches!(self, Self::All | Self::SelfTest)
    }

    /// There has to be a disk to read.
    #[must_use]
    pub fn reads_disk(&self) -> bool {
        self.disk() || *self == Self::Restart
    }

    /// The disks have to have been worked on.
    #[must_use]
    pub fn disk(&self) -> bool {
        matches!(self, Self::All | Self::Disk | Self::Linux)
    }
}

impl FromStr for Expectation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once('=').unwrap_or((text, ""));
        match (kind, rest) {
            ("all", "") => Ok(Self::All),
            ("disk", "") => Ok(Self::Disk),
            ("selftest", "") => Ok(Self::SelfTest),
            ("restart", "") => Ok(Self::Restart),
            ("success", "") => Ok(Self::Success),
            ("nothing", "") => Ok(Self::Nothing),
            ("violation", what) => Ok(Self::Violation(what.to_owned())),
            ("terminate", both) => both
                .split_once(':')
                .and_then(|(set, reason)| {
                    let (set, reason) = (number(set)?, number(reason)?);
                    Some(Self::Termination { set, reason })
                })
                .ok_or_else(|| format!("'{both}' is no SET:REASON, such as 0xa:0x4a")),
            _ => Err(
                "write all, disk, selftest, restart, success, nothing, terminate=SET:REASON or \
                      violation=TEXT"
                    .into(),
            ),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use paravisor::boot_block::BootBlock;
    use zerocopy::FromZeros;

    use super::Expectation;

    #[test]
    fn the_guest_command_line_tells() {
        assert_eq!(Expectation::of(None), Expectation::Nothing);
        for (text, expected) in [
            ("", Expectation::All),
            ("mode=all x", Expectation::All),
            ("mode=all mode=disk", Expectation::Disk),
            ("mode=selftest", Expectation::SelfTest),
            ("mode=restart", Expectation::Restart),
            ("mode=windows", Expectation::Disk),
        ] {
            let mut block = BootBlock::new_zeroed();
            block.cmdline[..text.len()].copy_from_slice(text.as_bytes());
            assert_eq!(Expectation::of(Some(&block)), expected, "{text}");
        }
    }

    #[test]
    fn options_are_read() {
        let parse = |text: &str| text.parse::<Expectation>();
        assert_eq!(parse("selftest"), Ok(Expectation::SelfTest));
        let ended = Expectation::Termination {
            set: 10,
            reason: 0x4a,
        };
        assert_eq!(parse("terminate=0xa:0x4a"), Ok(ended));
        assert_eq!(
            parse("violation=gpa=0x1"),
            Ok(Expectation::Violation("gpa=0x1".into()))
        );
        for text in [
            "",
            "al",
            "all=1",
            "terminate",
            "terminate=1",
            "terminate=x:1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
