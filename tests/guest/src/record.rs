// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine-readable lines on the console: an `@`, the kind, then `key=value` pairs.
//!
//! Everything else on the console is text for people. The lines come from the guest, so a reader
//! treats them as hostile.

use core::fmt;

use protocol::trace::{TraceKind, TraceRecord};

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
    /// First read of the NVMe namespace, in the burst.
    Nvme1,
    /// Second one, in the steady state.
    Nvme2,
    /// First fetch of the file over the network, in the burst.
    Net1,
    /// Second one, in the steady state.
    Net2,
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
            Self::Nvme1 => "nvme1",
            Self::Nvme2 => "nvme2",
            Self::Net1 => "net1",
            Self::Net2 => "net2",
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
    /// How many vCPUs run.
    Cpus {
        /// The boot vCPU included.
        count: u64,
    },
    /// A device was busy while others were.
    Busy {
        /// The pass.
        phase: Phase,
        /// The vCPU that drove it.
        cpu: u64,
        /// Time stamp at the beginning.
        from: u64,
        /// Time stamp behind the last round.
        to: u64,
        /// Rounds.
        rounds: u64,
        /// Bytes of each round.
        bytes: u64,
    },
    /// What a vCPU did in the burst.
    Burst {
        /// The vCPU.
        cpu: u64,
        /// Rounds of filling and draining.
        rounds: u64,
        /// Mappings made and found intact.
        maps: u64,
        /// Mappings refused for want of memory.
        refused: u64,
        /// GROW calls.
        grows: u64,
        /// RELEASE calls.
        releases: u64,
        /// Bytes given back.
        released: u64,
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
    /// The guest converted pages of its own, between markers.
    Convert {
        /// Bytes converted there and back each time.
        bytes: u64,
    },
    /// A kernel is about to crash.
    Crash {
        /// Its epoch.
        epoch: u64,
        /// Bytes granted at this moment.
        granted: u64,
        /// Requests that devices are at.
        in_flight: u64,
    },
    /// A kernel has dealt with what the one before it left behind.
    Restart {
        /// Its epoch.
        epoch: u64,
        /// Bytes orphaned, by ATTACH.
        orphaned: u64,
        /// Bytes of older epochs, by LIST_GRANTED.
        listed: u64,
        /// Bytes adopted.
        adopted: u64,
        /// Bytes given back.
        released: u64,
        /// Bytes granted now, by the service.
        service: u64,
        /// Bytes held now, by the shim.
        held: u64,
    },
    /// A counter of the service.
    Service {
        /// The counter.
        name: &'a str,
        /// Its value.
        value: u64,
    },
    /// An event that the service noted.
    Trace(TraceRecord),
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
            Self::Cpus { count } => write!(f, "@cpus count={count}"),
            Self::Busy {
                phase,
                cpu,
                from,
                to,
                rounds,
                bytes,
            } => write!(
                f,
                "@busy phase={} cpu={cpu} from={from} to={to} rounds={rounds} bytes={bytes}",
                phase.name()
            ),
            Self::Burst {
                cpu,
                rounds,
                maps,
                refused,
                grows,
                releases,
                released,
            } => write!(
                f,
                "@burst cpu={cpu} rounds={rounds} maps={maps} refused={refused} grows={grows} \
                 releases={releases} released={released}"
            ),
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
            Self::Convert { bytes } => {
                write!(f, "@convert bytes={bytes}")
            }
            Self::Crash {
                epoch,
                granted,
                in_flight,
            } => write!(
                f,
                "@crash epoch={epoch} granted={granted} in_flight={in_flight}"
            ),
            Self::Restart {
                epoch,
                orphaned,
                listed,
                adopted,
                released,
                service,
                held,
            } => write!(
                f,
                "@restart epoch={epoch} orphaned={orphaned} listed={listed} adopted={adopted} \
                 released={released} service={service} held={held}"
            ),
            Self::Service { name, value } => write!(f, "@service name={name} value={value}"),
            Self::Trace(record) => {
                let kind = TraceKind::try_from(record.kind).map_or("unknown", TraceKind::name);
                write!(
                    f,
                    "@trace sequence={} kind={kind} code={} detail={:#x} address={:#x} bytes={:#x}",
                    record.sequence, record.code, record.detail, record.address, record.bytes
                )
            }
            Self::Done { ok } => write!(f, "@done ok={}", u8::from(ok)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Phase, Record, TraceKind, TraceRecord};
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
        let busy = Record::Busy {
            phase: Phase::Net1,
            cpu: 1,
            from: 5,
            to: 9,
            rounds: 2,
            bytes: 70,
        };
        assert_eq!(
            busy.to_string(),
            "@busy phase=net1 cpu=1 from=5 to=9 rounds=2 bytes=70"
        );
        let burst = Record::Burst {
            cpu: 1,
            rounds: 2,
            maps: 3,
            refused: 4,
            grows: 5,
            releases: 6,
            released: 7,
        };
        assert_eq!(
            burst.to_string(),
            "@burst cpu=1 rounds=2 maps=3 refused=4 grows=5 releases=6 released=7"
        );
        let convert = Record::Convert { bytes: 4 << 20 };
        assert_eq!(convert.to_string(), "@convert bytes=4194304");
        let trace = TraceRecord {
            sequence: 7,
            kind: TraceKind::Grown.number(),
            code: 0,
            detail: 2,
            address: 0x3000_0000,
            bytes: 0x20_0000,
        };
        assert_eq!(
            Record::Trace(trace).to_string(),
            "@trace sequence=7 kind=grown code=0 detail=0x2 address=0x30000000 bytes=0x200000"
        );
        assert_eq!(Record::Cpus { count: 2 }.to_string(), "@cpus count=2");
        assert_eq!(Record::Done { ok: true }.to_string(), "@done ok=1");
    }
}
