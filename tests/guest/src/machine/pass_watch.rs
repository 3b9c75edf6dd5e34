// SPDX-License-Identifier: MIT OR Apache-2.0
//! Watches a pass: hashes the data in private memory, samples the pool, reports progress.

use sha2::{Digest, Sha256};
use test_guest::record::{Phase, Record};
use test_guest::request_plan::{MAX_DEPTH, Request, depth_at};
use test_guest::transfer::PassObserver;

use super::calling::GuestPool;
use super::ghcb::{console_line, console_line_of};
use super::memory::Buffers;
use super::processor::time_stamp;
use guest_shim::virtio::GlobalPool;

/// Samples of the pool in a pass, at equal distances.
const SAMPLES: u64 = 50;

/// Writes a record to the console.
pub fn emit(record: Record<'_>) {
    console_line(format_args!("{record}"));
}

/// Writes a sample of the pool to the console and returns the bytes granted.
pub fn sample_pool() -> u64 {
    let mut granted = 0;
    console_line_of(|| {
        let statistics = GuestPool::pool().statistics();
        granted = statistics.granted_bytes;
        Record::Pool {
            tsc: time_stamp(),
            granted,
            used: statistics.used_bytes,
        }
    });
    granted
}

/// The watch of one pass.
pub struct PassWatch {
    buffers: Buffers,
    phase: Phase,
    total: u64,
    hasher: Sha256,
    granted: u64,
    next_sample: u64,
}

impl PassWatch {
    /// A watch of a pass over `total` bytes.
    pub fn new(buffers: Buffers, phase: Phase, total: u64) -> Self {
        emit(Record::Progress {
            phase,
            done: 0,
            total,
        });
        let granted = sample_pool();
        Self {
            buffers,
            phase,
            total,
            hasher: Sha256::new(),
            granted,
            next_sample: 0,
        }
    }

    /// The digest of everything the pass moved; also written to the console.
    pub fn digest(self) -> [u8; 32] {
        let phase = self.phase;
        let sha256 = self.silent_digest();
        emit(Record::Digest {
            phase,
            sha256: &sha256,
        });
        sha256
    }

    /// The same for the console of nobody: of a round behind the first.
    pub fn silent_digest(self) -> [u8; 32] {
        self.hasher.finalize().into()
    }
}

impl PassObserver for PassWatch {
    fn consume(&mut self, slot: usize, request: Request) {
        let bytes = usize::try_from(request.bytes).unwrap_or(0);
        // SAFETY: A pass hands a slot over after its request was completed and before the next one
        // is started on it.
        let data = unsafe { self.buffers.slot(slot, bytes) };
        self.hasher.update(data);
    }

    fn depth(&mut self, done: u64) -> usize {
        match self.phase {
            Phase::Read1 | Phase::Nvme1 => depth_at(done),
            _ => MAX_DEPTH,
        }
    }

    fn progress(&mut self, done: u64) {
        let granted = GuestPool::pool().statistics().granted_bytes;
        if granted != self.granted || done >= self.next_sample {
            self.granted = sample_pool();
            emit(Record::Progress {
                phase: self.phase,
                done,
                total: self.total,
            });
            self.next_sample = done + self.total / SAMPLES;
        }
    }
}
