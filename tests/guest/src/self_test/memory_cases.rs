// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wrong calls by MEMORY_FORM (docs/PROTOCOL.md, section 5.16): forms that are refused, and blocks with wrong calls.

use protocol::memory_form::{BLOCK_BYTES, CallBlock, outer_call};
use protocol::result::{NOT_HELD, STALE_EPOCH, TOO_LARGE};
use protocol::{CHUNK_BYTES, Call};
use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use snp::svsm::{CallRegisters, ResultCode, calling_area, core_protocol};
use zerocopy::IntoBytes;

use super::case::registers;
use super::{Case, Facts};

const UNSUPPORTED_PROTOCOL: ResultCode = ResultCode::UNSUPPORTED_PROTOCOL;
const UNSUPPORTED_CALL: ResultCode = ResultCode::UNSUPPORTED_CALL;
const ADDRESS: ResultCode = ResultCode::INVALID_ADDRESS;
const PARAMETER: ResultCode = ResultCode::INVALID_PARAMETER;

/// The form with a block at this address.
fn form(facts: &Facts, block: u64) -> CallRegisters {
    outer_call(facts.protocol, GuestPhysicalAddress::new(block))
}

/// The form with a block where a Linux kernel puts it.
fn good(facts: &Facts) -> CallRegisters {
    form(facts, facts.calling_area + calling_area::BUFFER)
}

/// GROW of one chunk.
const fn grow(facts: &Facts, epoch: u32, flags: u64, bytes: u64) -> CallRegisters {
    let rcx = (epoch as u64) << 32 | flags;
    registers(facts.protocol, Call::Grow.number(), [rcx, bytes, bytes])
}

/// The form itself is wrong, or the place of its block.
pub const FORMS: &[Case] = &[
    Case::refused("memory-header", PARAMETER, |f, _| form(f, f.calling_area)),
    Case::refused("memory-misaligned", PARAMETER, |f, _| {
        form(f, f.calling_area + calling_area::BUFFER + 4)
    }),
    Case::refused("memory-crossing", PARAMETER, |f, _| {
        form(f, f.calling_area + PAGE_SIZE - BLOCK_BYTES + 8)
    }),
    Case::refused("memory-second-argument", PARAMETER, |f, _| CallRegisters {
        rdx: 0,
        ..good(f)
    }),
    Case::refused("memory-third-argument", PARAMETER, |f, _| CallRegisters {
        r8: 0,
        ..good(f)
    }),
    Case::refused("memory-in-a-list", ADDRESS, |f, l| {
        l.put(
            8,
            CallBlock::of(&grow(f, f.epoch, 0, CHUNK_BYTES)).as_bytes(),
        );
        form(f, f.list + 8)
    }),
    Case::refused("memory-in-window", ADDRESS, |f, _| form(f, f.granted + 8)),
    Case::refused("memory-in-paravisor", ADDRESS, |f, _| {
        form(f, f.paravisor_page() + 8)
    }),
    Case::refused("memory-unvalidated", ADDRESS, |f, _| {
        form(f, f.unvalidated + 8)
    }),
    Case::refused("memory-shared", ADDRESS, |f, _| form(f, f.shared + 8)),
    Case::refused("memory-beyond", ADDRESS, |f, _| form(f, Facts::BEYOND + 8)),
];

/// What is wrong is the call in the block; the answers are those that come back from it.
pub const BLOCKS: &[Case] = &[
    Case::refused("block-nested", UNSUPPORTED_CALL, |f, _| good(f)),
    Case::refused("block-core-protocol", UNSUPPORTED_PROTOCOL, |f, _| {
        registers(
            core_protocol::NUMBER,
            core_protocol::PVALIDATE,
            [f.list, 0, 0],
        )
    }),
    Case::refused("block-call-unknown", UNSUPPORTED_CALL, |f, _| {
        registers(f.protocol, 17, [1, 2, 3])
    }),
    Case::refused("block-identify-reserved", PARAMETER, |f, _| {
        registers(f.protocol, Call::Identify.number(), [0, 0, 1])
    }),
    Case::refused("block-grow-stale-epoch", STALE_EPOCH, |f, _| {
        grow(f, f.epoch + 1, 0, CHUNK_BYTES)
    }),
    Case::refused("block-grow-too-large", TOO_LARGE, |f, _| {
        grow(f, f.epoch, 1 << 8, 1 << 40)
    })
    .returning(253 * CHUNK_BYTES),
    Case::refused("block-release-not-granted", NOT_HELD, |f, _| {
        let holder = u64::from(f.epoch) << 32 | u64::from(f.generation);
        let range = [f.free_chunk(), CHUNK_BYTES, holder];
        registers(f.protocol, Call::Release.number(), range)
    }),
    Case::refused("block-statistics-in-window", ADDRESS, |f, _| {
        registers(f.protocol, Call::Statistics.number(), [f.granted, 64, 0])
    }),
];
