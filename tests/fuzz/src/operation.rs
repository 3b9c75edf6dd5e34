// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a case consists of: eight bytes of setup, then eight bytes for each operation.
//!
//! Every string of bytes is a case, so a fuzzer never wastes a mutation; small numbers mean simple things, so shrinking
//! bytes towards zero makes a case simpler; and records of one size can be cut out and put together.

use guest_shim::{CopyIn, Direction};

use crate::machine::CpuNumber;
use crate::service::Mood;

mod decode;

/// Bytes of the setup and of each operation.
pub const RECORD_BYTES: usize = 8;

/// Under Miri a byte that is copied costs a microsecond. Elsewhere no window is that long.
pub const LONGEST_COPY: usize = if cfg!(miri) { 2600 } else { 64 << 20 };

/// What a case starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Chunks of the window.
    pub chunks: usize,
    /// CPUs the pool has caches for.
    pub cpus: usize,
    /// Chunks that one GROW grants at most.
    pub grow_limit: usize,
    /// Chunks granted at attach.
    pub initial: u64,
    /// Chunks that `maintain` keeps.
    pub minimum: u64,
    /// Chunks of one growth at most.
    pub growth_limit: u64,
    /// Records for mappings below 2 KiB beyond the default.
    pub small_mappings: usize,
    /// Address of the metadata, modulo a page.
    pub metadata_phase: usize,
}

impl Setup {
    /// Every record means something.
    pub fn decode(record: [u8; RECORD_BYTES]) -> Self {
        let [chunks, cpus, grow, initial, minimum, growth, small, phase] = record.map(usize::from);
        let most = if cfg!(miri) { 2 } else { 6 };
        Self {
            chunks: 1 + (chunks + 1) % most,
            cpus: 1 + cpus % 4,
            grow_limit: [255, 1, 2, 3][grow % 4],
            initial: (initial % 4) as u64,
            minimum: (minimum % 3) as u64,
            growth_limit: [16, 1, 2, 3][growth % 4],
            // Attach enters each of them into a list, which under Miri takes a millisecond.
            small_mappings: [if cfg!(miri) { 300 } else { 32_768 }, 0, 100, 1000][small % 4],
            metadata_phase: phase,
        }
    }
}

/// How a mapping is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// `unmap`.
    Handle,
    /// `unmap_address`.
    Address,
    /// `unmap_written`.
    HandleWritten,
    /// `unmap_address_written`.
    AddressWritten,
}

/// What is asked of a mapping beside its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Who writes.
    pub direction: Direction,
    /// What is copied in.
    pub copy_in: CopyIn,
    /// log2 of `min_align_mask` plus 1.
    pub mask: u32,
    /// log2 of the alignment.
    pub align: u32,
    /// How far the device reaches: not quite to the end of a mapping that begins at this unit of the window; 0 for all
    /// of memory.
    pub reach: u64,
    /// log2 of the segment boundary; 0 for none.
    pub boundary: u32,
    /// Low bits of the buffer's address.
    pub phase: usize,
}

/// Which of the many wrong things to do. The pool must refuse it, say why, and change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// An old handle.
    Stale,
    /// A live handle with another length.
    Length,
    /// A live handle with another direction.
    Direction,
    /// A live handle with another generation.
    Generation,
    /// A live handle at another address.
    Address,
    /// More written, or a part synced, than there is.
    Range,
    /// A mapping's address where a shared buffer is meant, or the reverse.
    Kind,
    /// An address where nothing is.
    Nowhere,
    /// A request that no pool could serve.
    Request,
    /// A request of another shape than the reservation's.
    Reserved,
}

/// One operation. `which` is counted modulo what there is; nothing happens where there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "named as the functions of the pool and their arguments"
)]
pub enum Operation {
    Map {
        length: usize,
        shape: Shape,
    },
    /// The same, several times.
    MapMany {
        count: usize,
        length: usize,
        shape: Shape,
    },
    /// Until there is no more room.
    Fill {
        length: usize,
    },
    MapReserved {
        which: usize,
        length: usize,
        shape: Shape,
    },
    Unmap {
        which: usize,
        manner: Manner,
        written: usize,
    },
    /// A mapping ends, and one of equal length takes its place, most likely at the same address.
    Remap {
        which: usize,
        shape: Shape,
    },
    /// Mappings and shared buffers, every `step`th from the first on.
    EndMany {
        count: usize,
        first: usize,
        step: usize,
    },
    Sync {
        which: usize,
        for_device: bool,
        by_address: bool,
        offset: usize,
        length: usize,
    },
    DriverWrites {
        which: usize,
        seed: u64,
    },
    DeviceWrites {
        which: usize,
        seed: u64,
    },
    /// A device writes to all shared memory.
    Scribble {
        seed: u64,
    },
    /// From now on a device writes to what is copied out just before it is; not for seed 0.
    Attack {
        seed: u64,
    },
    AllocShared {
        length: usize,
        align: u32,
    },
    WriteShared {
        which: usize,
        offset: usize,
        length: usize,
        seed: u64,
    },
    ReadShared {
        which: usize,
        offset: usize,
        length: usize,
    },
    FreeShared {
        which: usize,
        by_address: bool,
    },
    Reserve {
        count: usize,
        length: usize,
        align: u32,
    },
    CancelReservation {
        which: usize,
    },
    Maintain,
    GiveBack,
    SetCap {
        bytes: u64,
    },
    SetMood {
        mood: Mood,
    },
    SetCpu {
        number: CpuNumber,
    },
    Misuse {
        which: usize,
        misuse: Misuse,
        variant: usize,
    },
}
