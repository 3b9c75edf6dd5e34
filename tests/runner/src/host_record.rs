// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records that the emulated host writes to the debug console, one per line.

use snp_host::record::kind;

use crate::line::{Line, LineError};

/// First word: `vmpl=`; the guest turned the machine off.
const POWER_OFF: &str = "poweroff";
/// First word: `vmpl= port=`; the guest reset the machine.
const RESET: &str = "reset";

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRecord {
    /// The host runs.
    Boot,
    /// The guest wrote marker `id`; the snapshot with the same number follows.
    Mark {
        /// Marker.
        id: u64,
        /// Time stamp counter.
        tsc: u64,
    },
    /// Counters follow.
    Snapshot {
        /// Number of the snapshot: a marker, or `snp_host::record::FINAL_SNAPSHOT`.
        id: u64,
        /// Time stamp counter.
        tsc: u64,
    },
    /// One counter of the open snapshot.
    Count {
        /// Dotted name.
        name: String,
        /// Its value since the machine started.
        value: u64,
    },
    /// The snapshot is complete.
    End {
        /// Its number.
        id: u64,
    },
    /// The guest had a run of pages converted.
    PageStateChange(Conversion),
    /// An access that broke a rule of the machine, which stopped it.
    Violation(String),
    /// The guest cannot go on, for instance after a triple fault; the machine stopped.
    Died(String),
    /// The guest ended itself.
    Terminate(Termination),
    /// The guest turned the machine off.
    PowerOff(String),
    /// The guest reset the machine.
    Reset(String),
    /// The shared view of a page that was never shared has changed.
    Pattern(String),
    /// What VMPL 0's page tables allow.
    Inspected(Inspection),
    /// Pages that no longer hold what they held when the guest had it noted.
    SharedChange(SharedChange),
    /// The machine is about to exit.
    Exit {
        /// Its exit code.
        code: u64,
    },
    /// Details for a reader, without a meaning for the checks.
    Remark,
}

/// A run of pages that changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Conversion {
    /// Time stamp counter.
    pub tsc: u64,
    /// VMPL that asked.
    pub vmpl: u64,
    /// To shared; else to private.
    pub shared: bool,
    /// First byte.
    pub gpa: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bytes of guest memory that are shared afterwards.
    pub total_shared: u64,
}

/// What VMPL 0's page tables allow, and where its keys are, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspection {
    /// `snp_host::inspection::Moment`.
    pub moment: u64,
    /// Bytes that are writable.
    pub writable: u64,
    /// Bytes that are executable.
    pub executable: u64,
    /// Bytes that are both.
    pub both: u64,
    /// From the first executable byte to the last.
    pub code: (u64, u64),
    /// Bytes of the run of mapped pages around the stack pointer.
    pub stack: u64,
    /// How often a key of VMPL 0 or 1 was found in memory that is VMPL 0's alone.
    pub keys: u64,
}

/// A run of shared pages that changed while they were watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct SharedChange {
    /// First byte.
    pub gpa: u64,
    /// Bytes.
    pub bytes: u64,
    /// They are GHCBs or #HV doorbell pages.
    pub protocol: bool,
}

/// A termination request of the guest (GHCB specification, 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Termination {
    /// VMPL that asked.
    pub vmpl: u64,
    /// Reason set.
    pub set: u64,
    /// Reason code.
    pub reason: u64,
}

impl HostRecord {
    /// Reads one line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let word = text.split(' ').next().unwrap_or(text);
        // These are for a reader, whole.
        match word {
            kind::VIOLATION => return Ok(Self::Violation(text.to_owned())),
            kind::DIED => return Ok(Self::Died(text.to_owned())),
            kind::PATTERN => return Ok(Self::Pattern(text.to_owned())),
            POWER_OFF => return Ok(Self::PowerOff(text.to_owned())),
            RESET => return Ok(Self::Reset(text.to_owned())),
            kind::TRACE => return Ok(Self::Remark),
            _ => {}
        }
        let line = Line::parse(text)?;
        let id = || line.number("id");
        Ok(match word {
            kind::BOOT => Self::Boot,
            kind::MARK => Self::Mark {
                id: id()?,
                tsc: line.number("tsc")?,
            },
            kind::SNAPSHOT => Self::Snapshot {
                id: id()?,
                tsc: line.number("tsc")?,
            },
            kind::COUNT => Self::Count {
                name: line.text("name")?.to_owned(),
                value: line.number("value")?,
            },
            kind::END => Self::End { id: id()? },
            kind::PAGE_STATE => Self::PageStateChange(Conversion {
                tsc: line.number("tsc")?,
                vmpl: line.number("vmpl")?,
                shared: match line.text("op")? {
                    "shared" => true,
                    "private" => false,
                    other => return Err(format!("'op={other}' is neither shared nor private")),
                },
                gpa: line.number("gpa")?,
                bytes: line.number("bytes")?,
                total_shared: line.number("total_shared")?,
            }),
            kind::TERMINATE => Self::Terminate(Termination {
                vmpl: line.number("vmpl")?,
                set: line.number("set")?,
                reason: line.number("reason")?,
            }),
            kind::INSPECTED => Self::Inspected(Inspection {
                moment: line.number("moment")?,
                writable: line.number("writable")?,
                executable: line.number("executable")?,
                both: line.number("both")?,
                code: (line.number("code_start")?, line.number("code_end")?),
                stack: line.number("stack")?,
                keys: line.number("keys")?,
            }),
            kind::CHANGED => Self::SharedChange(SharedChange {
                gpa: line.number("gpa")?,
                bytes: line.number("bytes")?,
                protocol: line.flag("protocol")?,
            }),
            kind::EXIT => Self::Exit {
                code: line.number("code")?,
            },
            other => return Err(format!("'{other}' is no kind of record")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Conversion, HostRecord, Termination};

    #[test]
    fn records_of_every_kind_are_read() {
        let conversion = Conversion {
            tsc: 9,
            vmpl: 0,
            shared: true,
            gpa: 0x3000_0000,
            bytes: 0x20_0000,
            total_shared: 0x20_1000,
        };
        let termination = Termination {
            vmpl: 2,
            set: 11,
            reason: 0,
        };
        let violation = "violation what=unassigned gpa=0x1000 vmpl=2 rip=0x0";
        for (text, record) in [
            (
                "boot version=1 mem=0x40000000 switches=0x0",
                HostRecord::Boot,
            ),
            ("mark id=1 tsc=5", HostRecord::Mark { id: 1, tsc: 5 }),
            (
                "snapshot id=1 tsc=6",
                HostRecord::Snapshot { id: 1, tsc: 6 },
            ),
            ("end id=1", HostRecord::End { id: 1 }),
            (
                "count name=exit.2.npf value=12",
                HostRecord::Count {
                    name: "exit.2.npf".into(),
                    value: 12,
                },
            ),
            (
                "psc tsc=9 vmpl=0 op=shared gpa=0x30000000 bytes=0x200000 total_shared=0x201000",
                HostRecord::PageStateChange(conversion),
            ),
            (
                "terminate vmpl=2 set=0xb reason=0x0",
                HostRecord::Terminate(termination),
            ),
            ("exit code=0", HostRecord::Exit { code: 0 }),
            (violation, HostRecord::Violation(violation.into())),
            (
                "died what=triple-fault vmpl=2",
                HostRecord::Died("died what=triple-fault vmpl=2".into()),
            ),
            (
                "poweroff vmpl=2",
                HostRecord::PowerOff("poweroff vmpl=2".into()),
            ),
            (
                "reset vmpl=2 port=0xcf9",
                HostRecord::Reset("reset vmpl=2 port=0xcf9".into()),
            ),
            ("trace anything at all", HostRecord::Remark),
        ] {
            assert_eq!(HostRecord::parse(text), Ok(record), "{text}");
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        for text in [
            "",
            "hello",
            "mark id=1",
            "mark id=x tsc=1",
            "count name=a",
            "psc tsc=9 vmpl=0 op=maybe gpa=0 bytes=1 total_shared=0",
            "snapshot tsc=1",
            "exit",
        ] {
            assert!(HostRecord::parse(text).is_err(), "{text}");
        }
    }
}
