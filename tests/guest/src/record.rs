// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine-readable lines on the console: an `@`, the kind, then `key=value` pairs.
//!
//! Everything else on the console is text for people. The lines come from the guest, so a reader
//! treats them as hostile.

use core::fmt;

/// A pass over a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// First read of disk 1: the pool grows.
    Read1,
    /// Second read of disk 1: the steady state.
    Read2,
    /// Copy of disk 1 to disk 2.
    Write,
    /// Read of disk 2.
    Verify,
}

impl Phase {
    /// The word in the records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read1 => "read1",
            Self::Read2 => "read2",
            Self::Write => "write",
            Self::Verify => "verify",
        }
    }
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// The shim attached.
    Attach {
        /// Time stamp.
        tsc: u64,
        /// Time stamp at the guest's first instructions.
        boot_tsc: u64,
        /// Bytes of the window.
        window: u64,
        /// Bytes granted so far.
        granted: u64,
    },
    /// A sample of the pool.
    Pool {
        /// Time stamp.
        tsc: u64,
        /// Bytes granted.
        granted: u64,
        /// Bytes in use.
        used: u64,
    },
    /// How far a pass is.
    Progress {
        /// The pass.
        phase: Phase,
        /// Bytes done.
        done: u64,
        /// Bytes to do.
        total: u64,
    },
    /// SHA-256 of a pass.
    Digest {
        /// The pass.
        phase: Phase,
        /// The digest.
        sha256: &'a [u8; 32],
    },
    /// SVSM calls the guest made.
    SvsmCalls {
        /// The call.
        name: &'a str,
        /// How often.
        count: u64,
    },
    /// A counter of the shim.
    Shim {
        /// The counter.
        name: &'a str,
        /// Its value.
        value: u64,
    },
    /// A case of the self-test.
    SelfTest {
        /// The case.
        name: &'a str,
        /// The code the documents promise.
        expected: u32,
        /// The code that came.
        got: u32,
        /// The code is right and nothing changed.
        ok: bool,
    },
    /// The last line.
    Done {
        /// Every check held.
        ok: bool,
    },
}

impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Attach {
                tsc,
                boot_tsc,
                window,
                granted,
            } => write!(
                f,
                "@attach tsc={tsc} boot_tsc={boot_tsc} window={window} granted={granted}"
            ),
            Self::Pool { tsc, granted, used } => {
                write!(f, "@pool tsc={tsc} granted={granted} used={used}")
            }
            Self::Progress { phase, done, total } => {
                write!(
                    f,
                    "@progress phase={} done={done} total={total}",
                    phase.name()
                )
            }
            Self::Digest { phase, sha256 } => {
                write!(f, "@digest phase={} sha256=", phase.name())?;
                sha256.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::SvsmCalls { name, count } => write!(f, "@svsm name={name} count={count}"),
            Self::Shim { name, value } => write!(f, "@shim name={name} value={value}"),
            Self::SelfTest {
                name,
                expected,
                got,
                ok,
            } => write!(
                f,
                "@selftest name={name} expected={expected:#x} got={got:#x} ok={}",
                u8::from(ok)
            ),
            Self::Done { ok } => write!(f, "@done ok={}", u8::from(ok)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Phase, Record};
    use std::string::ToString;

    #[test]
    fn golden_lines() {
        let mut sha256 = [0; 32];
        (sha256[0], sha256[31]) = (0xab, 0x01);
        let digest = Record::Digest {
            phase: Phase::Verify,
            sha256: &sha256,
        }
        .to_string();
        assert!(digest.starts_with("@digest phase=verify sha256=ab00"));
        assert!(digest.ends_with("0001"));
        assert_eq!(digest.len(), "@digest phase=verify sha256=".len() + 64);
        let pool = Record::Pool {
            tsc: 7,
            granted: 2 << 20,
            used: 4096,
        };
        assert_eq!(pool.to_string(), "@pool tsc=7 granted=2097152 used=4096");
        let case = Record::SelfTest {
            name: "zero",
            expected: 0x8000_0005,
            got: 0,
            ok: false,
        };
        assert_eq!(
            case.to_string(),
            "@selftest name=zero expected=0x80000005 got=0x0 ok=0"
        );
        assert_eq!(Record::Done { ok: true }.to_string(), "@done ok=1");
    }
}
