// SPDX-License-Identifier: MIT OR Apache-2.0
//! The devices as works: each reads everything it has, hashes it, and does so again.

use guest_shim::virtio::GlobalPool;
use sha2::{Digest, Sha256};
use test_guest::fetch::Fetch;
use test_guest::record::{Phase, Record};
use test_guest::schedule::{Step, Work};
use test_guest::stop::Stop;
use test_guest::transfer::{Disk, Pass};

use crate::machine::calling::GuestPool;
use crate::machine::cpu;
use crate::machine::ending::fail;
use crate::machine::memory::Buffers;
use crate::machine::net::NetDevice;
use crate::machine::pass_watch::{PassWatch, emit};
use crate::machine::processor::time_stamp;

/// Ticks of the time stamp counter that the TCP stack takes for a millisecond. Its timers only
/// matter when something is lost, which nothing is here.
const TICKS: u64 = 2_000_000;

/// What all works note of a pass.
#[derive(Debug)]
struct Log {
    phase: Phase,
    cpu: usize,
    from: u64,
    to: u64,
    rounds: u64,
    bytes: u64,
    sha256: Option<[u8; 32]>,
}

impl Log {
    const fn new(phase: Phase) -> Self {
        Self {
            phase,
            cpu: 0,
            from: 0,
            to: 0,
            rounds: 0,
            bytes: 0,
            sha256: None,
        }
    }

    /// Another pass; the digest stays, all are to be equal.
    fn restart(&mut self, phase: Phase) {
        let sha256 = self.sha256;
        *self = Self {
            sha256,
            ..Self::new(phase)
        };
    }

    fn begin(&mut self) {
        if self.rounds == 0 {
            self.from = time_stamp();
            self.cpu = cpu::number();
        }
    }

    fn round(&mut self, bytes: u64, sha256: [u8; 32]) -> Step {
        self.to = time_stamp();
        self.rounds += 1;
        self.bytes = bytes;
        if *self.sha256.get_or_insert(sha256) != sha256 {
            let phase = self.phase.name();
            fail(
                Stop::Digest,
                format_args!("{phase}: another digest than before"),
            );
        }
        Step::Round
    }

    fn report(&self) {
        emit(Record::Busy {
            phase: self.phase,
            cpu: self.cpu as u64,
            from: self.from,
            to: self.to,
            rounds: self.rounds,
            bytes: self.bytes,
        });
        if let Some(sha256) = &self.sha256 {
            emit(Record::Digest {
                phase: self.phase,
                sha256,
            });
        }
    }
}

/// Reads a disk from its first byte to its last.
pub struct DiskWork<D> {
    disk: D,
    buffers: Buffers,
    total: u64,
    stop: Stop,
    round: Option<(Pass, PassWatch)>,
    log: Log,
}

impl<D: Disk> DiskWork<D> {
    /// Reads `total` bytes; a failure ends the guest with `stop`.
    pub const fn new(disk: D, buffers: Buffers, total: u64, stop: Stop) -> Self {
        Self {
            disk,
            buffers,
            total,
            stop,
            round: None,
            log: Log::new(Phase::Read1),
        }
    }

    /// Before a pass.
    pub fn prepare(&mut self, phase: Phase) {
        self.log.restart(phase);
    }

    /// Behind a pass.
    pub fn report(&self) {
        self.log.report();
    }

    /// The disk and the digest of all rounds. Nothing is in flight between passes.
    pub fn finish(self) -> (D, Option<[u8; 32]>) {
        (self.disk, self.log.sha256)
    }
}

impl<D: Disk> Work for DiskWork<D> {
    fn step(&mut self) -> Step {
        let phase = self.log.phase;
        if self.round.is_none() {
            self.log.begin();
            let pass = Pass::new(self.total, self.disk.largest_request());
            self.round = Some((pass, PassWatch::new(self.buffers, phase, self.total)));
        }
        let Some((pass, watch)) = &mut self.round else {
            return Step::More;
        };
        match pass.step(&mut self.disk, watch) {
            Ok(false) => Step::More,
            Ok(true) => {
                let digest = self.round.take().map(|(_, watch)| watch.silent_digest());
                self.log.round(self.total, digest.unwrap_or_default())
            }
            Err(error) => fail(self.stop, format_args!("{}: {error:?}", phase.name())),
        }
    }
}

/// Fetches a file.
pub struct NetWork {
    device: NetDevice,
    fetch: Fetch<'static>,
    hasher: Option<(Sha256, u64)>,
    log: Log,
}

impl NetWork {
    /// Over this device and stack.
    pub const fn new(device: NetDevice, fetch: Fetch<'static>) -> Self {
        Self {
            device,
            fetch,
            hasher: None,
            log: Log::new(Phase::Net1),
        }
    }

    /// Before a pass.
    pub fn prepare(&mut self, phase: Phase) {
        self.log.restart(phase);
    }

    /// Behind a pass.
    pub fn report(&self) {
        self.log.report();
    }

    /// Ends the device.
    pub fn close(self) {
        self.device.close();
    }
}

impl Work for NetWork {
    fn step(&mut self) -> Step {
        let (mut hasher, mut bytes) = match self.hasher.take() {
            Some(round) => round,
            None => {
                self.log.begin();
                self.fetch.begin();
                (Sha256::new(), 0)
            }
        };
        let now = i64::try_from(time_stamp() / TICKS).unwrap_or(i64::MAX);
        let step = self.fetch.step(&mut self.device, now, &mut |part| {
            hasher.update(part);
            bytes += part.len() as u64;
        });
        match step {
            Ok(false) => {
                self.hasher = Some((hasher, bytes));
                Step::More
            }
            Ok(true) => self.log.round(bytes, hasher.finalize().into()),
            Err(error) => fail(
                Stop::Network,
                format_args!("{}: {error:?}", self.log.phase.name()),
            ),
        }
    }
}

/// SVSM calls that the shim has made so far.
pub fn calls() -> u64 {
    GuestPool::pool().statistics().total_calls()
}
