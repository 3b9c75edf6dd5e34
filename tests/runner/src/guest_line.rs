// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machine-readable lines that the test guest prints on its console: they begin with `@`.

use serde::Serialize;

use crate::line::{Line, LineError};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestLine {
    /// The guest has attached to the pool.
    Attach(Attach),
    /// The pool as the guest sees it.
    Pool(PoolSample),
    /// How far a phase has come.
    Progress(PhaseProgress),
    /// SHA-256 of what a phase read.
    Digest {
        /// Phase.
        phase: String,
        /// 64 hexadecimal digits.
        sha256: String,
    },
    /// How many vCPUs the guest uses.
    Cpus {
        /// Number.
        count: u64,
    },
    /// When a device was busy.
    Busy(Busy),
    /// What a vCPU did in the burst.
    Burst(Burst),
    /// SVSM calls of one kind so far.
    Calls {
        /// Kind.
        name: String,
        /// Number.
        count: u64,
    },
    /// A counter of the shim.
    Shim {
        /// Name.
        name: String,
        /// Value.
        value: u64,
    },
    /// A kernel is about to crash.
    Crash(Crash),
    /// The next one has dealt with what it left behind.
    Restart(Restart),
    /// A counter of the service.
    Service {
        /// Name.
        name: String,
        /// Value.
        value: u64,
    },
    /// An event that the service noted.
    Trace(Trace),
    /// One wrong call and its answer.
    SelfTest(SelfTest),
    /// The guest converted pages of its own.
    Convert {
        /// Bytes, each time.
        bytes: u64,
    },
    /// The guest is done.
    Done {
        /// It has found nothing wrong.
        ok: bool,
    },
}

/// The moment of attaching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Attach {
    /// Time stamp counter.
    pub tsc: u64,
    /// Time stamp counter at the guest's first instruction.
    pub boot_tsc: u64,
    /// Bytes of the window.
    pub window: u64,
    /// Bytes granted from the start.
    pub granted: u64,
}

/// The pool at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PoolSample {
    /// Time stamp counter.
    pub tsc: u64,
    /// Bytes granted.
    pub granted: u64,
    /// Bytes in use.
    pub used: u64,
}

/// How far a phase has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseProgress {
    /// Phase.
    pub phase: String,
    /// Bytes done.
    pub done: u64,
    /// Bytes of the whole phase.
    pub total: u64,
}

/// A device's share of a pass in which all devices are busy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Busy {
    /// Phase.
    pub phase: String,
    /// The vCPU that drove the device.
    pub cpu: u64,
    /// Time stamp counter at the beginning.
    pub from: u64,
    /// Time stamp counter behind the last round.
    pub to: u64,
    /// Times that everything was read.
    pub rounds: u64,
    /// Bytes of each round.
    pub bytes: u64,
}

/// What a vCPU did in the burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Burst {
    /// The vCPU.
    pub cpu: u64,
    /// Times that it filled its share and drained it.
    pub rounds: u64,
    /// Mappings that came back intact.
    pub maps: u64,
    /// Mappings refused for want of memory.
    pub refused: u64,
    /// Its calls that grew the pool.
    pub grows: u64,
    /// Its calls that gave memory back.
    pub releases: u64,
    /// Bytes it gave back.
    pub released: u64,
}

/// A kernel at the moment of its crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Crash {
    /// Its epoch.
    pub epoch: u64,
    /// Bytes granted, by the service.
    pub granted: u64,
    /// Requests that devices are at.
    pub in_flight: u64,
}

/// What a kernel made of what the one before it left behind. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Restart {
    /// Its epoch.
    pub epoch: u64,
    /// Orphaned, by ATTACH.
    pub orphaned: u64,
    /// Of older epochs, by LIST_GRANTED.
    pub listed: u64,
    /// Adopted.
    pub adopted: u64,
    /// Given back.
    pub released: u64,
    /// Granted afterwards, by the service.
    pub service: u64,
    /// Held afterwards, by the shim.
    pub held: u64,
}

/// An event that the service noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// Its number.
    pub sequence: u64,
    /// What kind of event.
    pub kind: String,
    /// As the kind says (docs/PROTOCOL.md, P-12.2).
    pub code: u64,
    /// As the kind says.
    pub detail: u64,
    /// First byte of what it concerns.
    pub address: u64,
    /// Bytes of what it concerns.
    pub bytes: u64,
}

/// One wrong call and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SelfTest {
    /// Name of the case.
    pub name: String,
    /// Result code that the protocol promises.
    pub expected: String,
    /// Result code that came.
    pub got: String,
    /// They agree and nothing else changed.
    pub ok: bool,
}

impl GuestLine {
    /// Reads a console line; `None` for text meant for people.
    ///
    /// # Errors
    /// What is wrong with a line that begins with `@`.
    pub fn parse(text: &str) -> Option<Result<Self, LineError>> {
        text.strip_prefix('@').map(Self::parse_fields)
    }

    fn parse_fields(text: &str) -> Result<Self, LineError> {
        let line = Line::parse(text)?;
        let name = || line.text("name").map(str::to_owned);
        let phase = || line.text("phase").map(str::to_owned);
        Ok(match line.kind {
            "attach" => Self::Attach(Attach {
                tsc: line.number("tsc")?,
                boot_tsc: line.number("boot_tsc")?,
                window: line.number("window")?,
                granted: line.number("granted")?,
            }),
            "pool" => Self::Pool(PoolSample {
                tsc: line.number("tsc")?,
                granted: line.number("granted")?,
                used: line.number("used")?,
            }),
            "progress" => Self::Progress(PhaseProgress {
                phase: phase()?,
                done: line.number("done")?,
                total: line.number("total")?,
            }),
            "digest" => Self::Digest {
                phase: phase()?,
                sha256: digest(line.text("sha256")?)?,
            },
            "cpus" => Self::Cpus {
                count: line.number("count")?,
            },
            "busy" => Self::Busy(Busy {
                phase: phase()?,
                cpu: line.number("cpu")?,
                from: line.number("from")?,
                to: line.number("to")?,
                rounds: line.number("rounds")?,
                bytes: line.number("bytes")?,
            }),
            "burst" => Self::Burst(Burst {
                cpu: line.number("cpu")?,
                rounds: line.number("rounds")?,
                maps: line.number("maps")?,
                refused: line.number("refused")?,
                grows: line.number("grows")?,
                releases: line.number("releases")?,
                released: line.number("released")?,
            }),
            "svsm" => Self::Calls {
                name: name()?,
                count: line.number("count")?,
            },
            "crash" => Self::Crash(Crash {
                epoch: line.number("epoch")?,
                granted: line.number("granted")?,
                in_flight: line.number("in_flight")?,
            }),
            "restart" => Self::Restart(Restart {
                epoch: line.number("epoch")?,
                orphaned: line.number("orphaned")?,
                listed: line.number("listed")?,
                adopted: line.number("adopted")?,
                released: line.number("released")?,
                service: line.number("service")?,
                held: line.number("held")?,
            }),
            "service" => Self::Service {
                name: name()?,
                value: line.number("value")?,
            },
            "trace" => Self::Trace(Trace {
                sequence: line.number("sequence")?,
                kind: line.text("kind")?.to_owned(),
                code: line.number("code")?,
                detail: line.number("detail")?,
                address: line.number("address")?,
                bytes: line.number("bytes")?,
            }),
            "shim" => Self::Shim {
                name: name()?,
                value: line.number("value")?,
            },
            "selftest" => Self::SelfTest(SelfTest {
                name: name()?,
                expected: line.text("expected")?.to_owned(),
                got: line.text("got")?.to_owned(),
                ok: line.flag("ok")?,
            }),
            "convert" => Self::Convert {
                bytes: line.number("bytes")?,
            },
            "done" => Self::Done {
                ok: line.flag("ok")?,
            },
            other => return Err(format!("'@{other}' is no kind of line")),
        })
    }
}

fn digest(text: &str) -> Result<String, LineError> {
    let is_digest = text.len() == 64 && text.chars().all(|digit| digit.is_ascii_hexdigit());
    is_digest
        .then(|| text.to_ascii_lowercase())
        .ok_or_else(|| format!("'{text}' is no SHA-256"))
}

#[cfg(test)]
mod tests {
    use super::{GuestLine, PoolSample};

    #[test]
    fn lines_for_people_are_left_alone() {
        assert_eq!(GuestLine::parse("found a disk of 64 MiB"), None);
        assert_eq!(GuestLine::parse(""), None);
    }

    #[test]
    fn lines_for_us_are_read_strictly() {
        let sample = PoolSample {
            tsc: 7,
            granted: 4 << 20,
            used: 4096,
        };
        let line = "@pool tsc=7 granted=4194304 used=4096";
        assert_eq!(GuestLine::parse(line), Some(Ok(GuestLine::Pool(sample))));
        for text in [
            "@",
            "@pool",
            "@pool tsc=7 granted=-1 used=0",
            "@digest phase=read1 sha256=abc",
            "@done ok=2",
            "@cpus",
            "@busy phase=nvme1 cpu=0 from=1 to=2 rounds=1",
            "@burst cpu=0 rounds=1 maps=1 refused=0 grows=1 releases=-1 released=0",
            "@selftest name=a expected=0x1 got=0x1",
            "@unknown a=1",
        ] {
            assert!(
                GuestLine::parse(text).is_some_and(|line| line.is_err()),
                "{text}"
            );
        }
    }
}
