// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a call asks for: the arguments by themselves (clauses P-4.1 to P-4.5, tables of chapter 5).

use protocol::Refusal;
use snp::svsm::{CallRegisters, ResultCode};

/// Chunks are 2 MiB (clause P-3.1).
pub const CHUNK: u64 = 2 << 20;
const PAGE: u64 = 4096;
/// End of the physical address space (clause P-4.5).
const ADDRESS_END: u64 = 1 << 52;

/// A call with arguments that could be right. Sizes of chunks are in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// 5.0
    Identify,
    /// 5.1
    Describe {
        /// 0 to 7.
        window: u64,
        /// 0 to 2.
        item: u64,
    },
    /// 5.2
    Attach {
        /// Any.
        version: u64,
    },
    /// 5.3
    ListGranted {
        /// 8-byte aligned.
        list: u64,
        /// Claimed.
        epoch: u32,
    },
    /// 5.4
    Adopt {
        /// Claimed.
        epoch: u32,
        /// Whose chunks.
        older: u32,
    },
    /// 5.5
    ReleaseOrphans {
        /// Claimed.
        epoch: u32,
        /// Whose chunks.
        older: u32,
    },
    /// 5.6
    Detach {
        /// Claimed.
        epoch: u32,
    },
    /// 5.7
    Grow {
        /// 0 to 7.
        window: u64,
        /// Never fewer than `least`.
        contiguous: bool,
        /// Claimed.
        epoch: u32,
        /// At least one chunk.
        least: u64,
        /// No less than `least`.
        most: u64,
    },
    /// 5.8
    Release {
        /// Chunk aligned.
        base: u64,
        /// At least one chunk; the range ends in the address space.
        chunks: u64,
        /// Claimed.
        epoch: u32,
        /// Claimed.
        generation: u32,
    },
    /// 5.9
    Convert {
        /// 8-byte aligned.
        list: u64,
        /// Claimed.
        epoch: u32,
    },
    /// 5.11
    Trace {
        /// 8-byte aligned.
        buffer: u64,
        /// The buffer ends in its page.
        bytes: u64,
        /// Any.
        from: u64,
    },
    /// 5.10
    Statistics {
        /// 8-byte aligned.
        buffer: u64,
        /// The buffer ends in its page.
        bytes: u64,
    },
    /// 5.12
    SetLimits {
        /// 0 to 7.
        window: u64,
        /// Claimed.
        epoch: u32,
        /// Any.
        cap: u64,
    },
    /// 5.16
    MemoryForm {
        /// Aligned, behind the header of its page, and ends in it.
        block: u64,
    },
}

/// Calls that IDENTIFY's feature bits announce (clauses P-2.4 and P-4.1), as (call, bit).
const FEATURES: [(u64, u32); 9] = [
    (4, 2),
    (5, 2),
    (6, 3),
    (9, 0),
    (11, 1),
    (13, 4),
    (14, 5),
    (15, 5),
    (16, 6),
];

/// Checks in the order of clause P-4.9: protocol, call, arguments by themselves.
///
/// # Errors
/// The refusal that any state of the service answers.
pub fn asked(call: &CallRegisters, protocol: u32, features: u32) -> Result<Asked, Refusal> {
    if call.rax >> 32 != u64::from(protocol) {
        return Err(ResultCode::UNSUPPORTED_PROTOCOL.into());
    }
    let number = call.rax & 0xFFFF_FFFF;
    let feature = FEATURES.iter().find(|(of, _)| *of == number);
    if number > 16 || feature.is_some_and(|(_, bit)| features & 1 << bit == 0) {
        return Err(ResultCode::UNSUPPORTED_CALL.into());
    }
    arguments(number, call.rcx, call.rdx, call.r8).ok_or(ResultCode::INVALID_PARAMETER.into())
}

fn arguments(number: u64, rcx: u64, rdx: u64, r8: u64) -> Option<Asked> {
    let when = |right: bool, asked| right.then_some(asked);
    let pair = |word: u64| (high(word), low(word));
    match number {
        0 => when(rcx | rdx | r8 == 0, Asked::Identify),
        1 => when(
            rcx < 8 && rdx < 3 && r8 == 0,
            Asked::Describe {
                window: rcx,
                item: rdx,
            },
        ),
        2 => when(rdx | r8 == 0, Asked::Attach { version: rcx }),
        3 => when(
            rcx.is_multiple_of(8) && high(rdx) == 0 && r8 == 0,
            Asked::ListGranted {
                list: rcx,
                epoch: low(rdx),
            },
        ),
        4 | 5 => {
            // P-5.4.2: the two are compared with each other before either is with the current one.
            let (epoch, older) = pair(rcx);
            let ordered = 0 < older && older < epoch;
            let asked = match number {
                4 => Asked::Adopt { epoch, older },
                _ => Asked::ReleaseOrphans { epoch, older },
            };
            when(rdx | r8 == 0 && ordered, asked)
        }
        6 => when(
            low(rcx) == 0 && rdx | r8 == 0,
            Asked::Detach { epoch: high(rcx) },
        ),
        7 => when(
            rcx & 0xFFFF_FE00 == 0
                && rcx & 0xFF < 8
                && (rdx | r8).is_multiple_of(CHUNK)
                && 0 < rdx
                && rdx <= r8,
            Asked::Grow {
                window: rcx & 0xFF,
                contiguous: rcx & 0x100 != 0,
                epoch: high(rcx),
                least: rdx / CHUNK,
                most: r8 / CHUNK,
            },
        ),
        8 => when(
            (rcx | rdx).is_multiple_of(CHUNK)
                && rdx > 0
                && rcx.checked_add(rdx).is_some_and(|end| end <= ADDRESS_END),
            Asked::Release {
                base: rcx,
                chunks: rdx / CHUNK,
                epoch: high(r8),
                generation: low(r8),
            },
        ),
        9 => when(
            rcx.is_multiple_of(8) && high(rdx) == 0 && r8 == 0,
            Asked::Convert {
                list: rcx,
                epoch: low(rdx),
            },
        ),
        11 => when(
            rcx.is_multiple_of(8) && rdx.is_multiple_of(32) && rdx > 0 && rdx <= PAGE - rcx % PAGE,
            Asked::Trace {
                buffer: rcx,
                bytes: rdx,
                from: r8,
            },
        ),
        10 => when(
            (rcx | rdx).is_multiple_of(8) && rdx > 0 && rdx <= PAGE - rcx % PAGE && r8 == 0,
            Asked::Statistics {
                buffer: rcx,
                bytes: rdx,
            },
        ),
        12 => when(
            rcx & 0xFFFF_FF00 == 0 && rcx & 0xFF < 8 && rdx.is_multiple_of(CHUNK) && r8 == 0,
            Asked::SetLimits {
                window: rcx & 0xFF,
                epoch: high(rcx),
                cap: rdx / CHUNK,
            },
        ),
        // P-5.16.1
        16 => when(
            rcx.is_multiple_of(8)
                && (8..=PAGE - 32).contains(&(rcx % PAGE))
                && rdx == u64::MAX
                && r8 == u64::MAX,
            Asked::MemoryForm { block: rcx },
        ),
        _ => None,
    }
}

fn high(word: u64) -> u32 {
    u32::try_from(word >> 32).unwrap_or(u32::MAX)
}

fn low(word: u64) -> u32 {
    u32::try_from(word & 0xFFFF_FFFF).unwrap_or(u32::MAX)
}
