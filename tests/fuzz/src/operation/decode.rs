// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the eight bytes of a record mean.

use guest_shim::{CHUNK_BYTES, CopyIn, Direction};
use protocol::result as code;
use snp::svsm::ResultCode;

use super::{Manner, Misuse, Operation, RECORD_BYTES, Shape};
use crate::machine::CpuNumber;
use crate::service::{Mood, Order, Trouble};

/// What a first byte means: this table's element. Common things come more often, and first.
const CODES: [u8; 64] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // Map
    4, 4, 4, 4, 4, 4, 4, 23, 23, // Unmap, Remap
    6, 6, 6, 6, 6, 6, // Sync
    1, 1, 5, 5, 23, 2, // MapMany, EndMany, Remap, Fill
    7, 8, 8, 9, 10, // DriverWrites, DeviceWrites, Scribble, Attack
    11, 11, 12, 13, 14, 14, // shared buffers
    15, 3, 3, 16, // reservations
    17, 17, 18, 19, 20, 20, 21, 21, // Maintain, GiveBack, SetCap, SetMood, SetCpu
    22, 22, 22, 22, 22, 22, 22, 22, // Misuse
];

impl Operation {
    /// Every record means something.
    pub fn decode(record: [u8; RECORD_BYTES]) -> Self {
        let [first, a, b, c, d, e, f, g] = record;
        let (which, seed) = (pair(a, b), u64::from(c) + 1);
        match CODES[usize::from(first) % CODES.len()] {
            0 => Self::Map {
                length: length(a, b),
                shape: shape(c, d, e, f, g),
            },
            1 => Self::MapMany {
                count: 1 + usize::from(g) % if cfg!(miri) { 8 } else { 100 },
                length: length(a % 26, b),
                shape: shape(c, d, e, f, 0),
            },
            2 => Self::Fill {
                length: length(a, b),
            },
            3 => Self::MapReserved {
                which: usize::from(f),
                length: length(a, b),
                shape: shape(c, d, e, 0, g),
            },
            4 => Self::Unmap {
                which,
                manner: [
                    Manner::Handle,
                    Manner::Address,
                    Manner::HandleWritten,
                    Manner::AddressWritten,
                ][usize::from(c) % 4],
                written: pair(d, e),
            },
            23 => Self::Remap {
                which,
                shape: shape(c, d, e, f, g),
            },
            5 => Self::EndMany {
                count: 1 + usize::from(a),
                first: usize::from(b),
                step: 1 + usize::from(c) % 5,
            },
            6 => Self::Sync {
                which,
                for_device: c & 1 != 0,
                by_address: c & 2 != 0,
                offset: pair(d, e),
                length: pair(f, g),
            },
            7 => Self::DriverWrites { which, seed },
            8 => Self::DeviceWrites { which, seed },
            9 => Self::Scribble { seed },
            10 => Self::Attack {
                seed: u64::from(a % 4) * seed,
            },
            11 => Self::AllocShared {
                length: length(a, b),
                align: log2(c, 13),
            },
            12 => Self::WriteShared {
                which,
                seed,
                offset: pair(d, e),
                length: pair(f, g),
            },
            13 => Self::ReadShared {
                which,
                offset: pair(d, e),
                length: pair(f, g),
            },
            14 => Self::FreeShared {
                which,
                by_address: c & 1 != 0,
            },
            15 => Self::Reserve {
                count: 1 + usize::from(d) % 20,
                length: length(a % 30, b),
                align: log2(c, 13),
            },
            16 => Self::CancelReservation { which },
            17 => Self::Maintain,
            18 => Self::GiveBack,
            19 => Self::SetCap {
                bytes: [64, 0, 1, 2, 3, 4, 5, 6][usize::from(a) % 8] * CHUNK_BYTES
                    + u64::from(b & 1) * 4096,
            },
            20 => Self::SetMood {
                mood: mood(a, b, c),
            },
            21 => Self::SetCpu {
                number: match a % 8 {
                    6 => CpuNumber::Changing(2 + usize::from(b) % 4),
                    7 => CpuNumber::Absurd,
                    number => CpuNumber::Fixed(number.into()),
                },
            },
            _ => Self::Misuse {
                which,
                misuse: [
                    Misuse::Stale,
                    Misuse::Length,
                    Misuse::Direction,
                    Misuse::Generation,
                    Misuse::Address,
                    Misuse::Range,
                    Misuse::Kind,
                    Misuse::Nowhere,
                    Misuse::Request,
                    Misuse::Reserved,
                    Misuse::Stale,
                ][usize::from(c) % 11],
                variant: pair(d, e),
            },
        }
    }
}

fn pair(low: u8, high: u8) -> usize {
    usize::from(low) | usize::from(high) << 8
}

/// Lengths of all scales, those round powers of two and those round chunks among them.
fn length(scale: u8, value: u8) -> usize {
    let value = usize::from(value);
    match scale % 32 {
        0..=3 => 1 + value % 64,
        4..=7 => 1 + value * 2,
        8..=11 => 1 + value * 16,
        12..=15 => 1 + value * 64,
        16..=19 => ((1 << (value % 16)) + value / 16).saturating_sub(7).max(1),
        20..=23 => 1500 + value,
        24..=27 => 1 + value * 512,
        28 | 29 => 1 + value * 4096,
        30 => 1 + value * 16_384,
        _ => (value % 7 * (1 << 20) + (value / 7) * 1024)
            .saturating_sub(9 << 10)
            .max(1),
    }
}

/// Mostly 0.
fn log2(value: u8, most: u8) -> u32 {
    u32::from((value / 2).saturating_sub(64) % (most + 1))
}

fn shape(how: u8, mask: u8, align: u8, reach: u8, phase: u8) -> Shape {
    let (direction, copy_in) = match how % 4 {
        0 => (Direction::Bidirectional, CopyIn::Keep),
        1 => (Direction::ToDevice, CopyIn::Keep),
        2 => (Direction::FromDevice, CopyIn::Keep),
        _ => (Direction::FromDevice, CopyIn::DeviceWritten),
    };
    // A shape in three is a plain one, another third has one constraint.
    let constrained = how / 64;
    Shape {
        direction,
        copy_in,
        mask: if constrained & 1 == 0 {
            log2(mask, 16)
        } else {
            u32::from(mask % 13)
        },
        align: if constrained & 2 == 0 {
            log2(align, 22)
        } else {
            u32::from(align % 14)
        },
        reach: u64::from(reach.saturating_sub(224)) * 3,
        boundary: match reach {
            // 64 bytes to 4 MiB.
            176..224 => 6 + u32::from(reach % 17),
            _ => 0,
        },
        phase: usize::from(phase) * 257,
    }
}

fn mood(order: u8, little: u8, trouble: u8) -> Mood {
    let times = u32::from(trouble / 16) % 4 + 1;
    let kind = match trouble % 16 {
        1 => Some(Trouble::NotRun),
        2 => Some(Trouble::Busy),
        3 => Some(Trouble::Refused(code::CAP_REACHED)),
        4 => Some(Trouble::Refused(code::HOST_REFUSED)),
        5 => Some(Trouble::Refused(code::NO_CONTIGUOUS_RUN)),
        6 => Some(Trouble::Refused(code::RECORDS_EXHAUSTED)),
        7 => Some(Trouble::Refused(ResultCode::INVALID_PARAMETER)),
        8 => Some(Trouble::Refused(code::STALE_EPOCH)),
        9..=12 => Some(Trouble::Lie(trouble / 16)),
        _ => None,
    };
    Mood {
        order: [Order::Lowest, Order::Highest, Order::Scattered][usize::from(order) % 3],
        grants_little: little & 1 != 0,
        releases_little: little & 2 != 0,
        // A busy service is asked again up to 16 times.
        trouble: kind.map(|kind| {
            (
                kind,
                if kind == Trouble::Busy {
                    times * 9
                } else {
                    times
                },
            )
        }),
    }
}
