// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wrong calls of the pool protocol.

use protocol::list::{ListHeader, MAX_ENTRIES};
use protocol::result::{
    CAP_REACHED, NOT_ATTACHED, NOT_HELD, STALE_EPOCH, TOO_LARGE, UNSUPPORTED_VERSION,
};
use protocol::{CHUNK_BYTES, Call};
use snp::address::PAGE_SIZE;
use snp::svsm::{CallRegisters, ResultCode};
use zerocopy::IntoBytes;

use super::case::registers;
use super::{Case, Facts, ListPage};

const UNSUPPORTED_PROTOCOL: ResultCode = ResultCode::UNSUPPORTED_PROTOCOL;
const UNSUPPORTED_CALL: ResultCode = ResultCode::UNSUPPORTED_CALL;
const ADDRESS: ResultCode = ResultCode::INVALID_ADDRESS;
const PARAMETER: ResultCode = ResultCode::INVALID_PARAMETER;

/// Bytes of the buffer in the STATISTICS cases.
const BUFFER_BYTES: u64 = 64;

const fn call(facts: &Facts, call: Call, arguments: [u64; 3]) -> CallRegisters {
    registers(facts.protocol, call.number(), arguments)
}

const fn epoch_field(epoch: u32) -> u64 {
    (epoch as u64) << 32
}

/// GROW of one chunk with RCX as given.
const fn grow(facts: &Facts, rcx: u64, least: u64, most: u64) -> CallRegisters {
    call(
        facts,
        Call::Grow,
        [rcx | epoch_field(facts.epoch), least, most],
    )
}

const fn release(facts: &Facts, base: u64, bytes: u64) -> CallRegisters {
    let holder = epoch_field(facts.epoch) | facts.generation as u64;
    call(facts, Call::Release, [base, bytes, holder])
}

/// LIST_GRANTED of a list with room for `capacity` entries at `offset` of the list page.
fn list_at(facts: &Facts, page: &mut ListPage, offset: u16, capacity: u16) -> CallRegisters {
    page.put(
        usize::from(offset),
        ListHeader {
            capacity,
            written: 0,
            cursor: 0,
        }
        .as_bytes(),
    );
    list(facts, facts.list + u64::from(offset))
}

const fn list(facts: &Facts, address: u64) -> CallRegisters {
    call(facts, Call::ListGranted, [address, facts.epoch as u64, 0])
}

const fn statistics(facts: &Facts, address: u64) -> CallRegisters {
    call(facts, Call::Statistics, [address, BUFFER_BYTES, 0])
}

const fn set_limits(facts: &Facts, rcx: u64, cap: u64) -> CallRegisters {
    call(
        facts,
        Call::SetLimits,
        [rcx | epoch_field(facts.epoch), cap, 0],
    )
}

/// Calls that need an attachment, before there is one.
pub const DETACHED: &[Case] = &[
    Case::refused("grow-detached", NOT_ATTACHED, |f, _| {
        call(f, Call::Grow, [epoch_field(1), CHUNK_BYTES, CHUNK_BYTES])
    }),
    Case::refused("release-detached", NOT_ATTACHED, |f, _| {
        call(
            f,
            Call::Release,
            [f.window.start, CHUNK_BYTES, epoch_field(1) | 1],
        )
    }),
    Case::refused("list-detached", NOT_ATTACHED, |f, l| {
        l.put(
            0,
            ListHeader {
                capacity: 1,
                written: 0,
                cursor: 0,
            }
            .as_bytes(),
        );
        call(f, Call::ListGranted, [f.list, 1, 0])
    }),
    Case::refused("set-limits-detached", NOT_ATTACHED, |f, _| {
        call(f, Call::SetLimits, [epoch_field(1), CHUNK_BYTES, 0])
    }),
];

/// Calls that are wrong after ATTACH with one chunk granted.
pub const ATTACHED: &[Case] = &[
    // Numbers.
    Case::refused("protocol-unknown", UNSUPPORTED_PROTOCOL, |f, _| {
        registers(f.protocol ^ 0xff00, 0, [0; 3])
    }),
    Case::refused("protocol-attestation", UNSUPPORTED_PROTOCOL, |_, _| {
        registers(1, 0, [0; 3])
    }),
    Case::refused("call-unknown", UNSUPPORTED_CALL, |f, _| {
        registers(f.protocol, 17, [0; 3])
    }),
    Case::refused("call-highest", UNSUPPORTED_CALL, |f, _| {
        registers(f.protocol, u32::MAX, [0; 3])
    }),
    Case::refused("call-export", UNSUPPORTED_CALL, |f, _| {
        call(f, Call::ExportState, [0; 3])
    }),
    // ADOPT, RELEASE_ORPHANS, DETACH, TRACE.
    Case::refused("adopt-own-epoch", PARAMETER, |f, _| {
        call(
            f,
            Call::Adopt,
            [epoch_field(f.epoch) | u64::from(f.epoch), 0, 0],
        )
    }),
    Case::refused("adopt-reserved", PARAMETER, |f, _| {
        call(f, Call::Adopt, [epoch_field(f.epoch + 1) | 1, 0, 1])
    }),
    Case::refused("adopt-stale", STALE_EPOCH, |f, _| {
        call(f, Call::Adopt, [epoch_field(f.epoch + 1) | 1, 0, 0])
    }),
    Case::refused("release-orphans-own-epoch", PARAMETER, |f, _| {
        let own = epoch_field(f.epoch) | u64::from(f.epoch);
        call(f, Call::ReleaseOrphans, [own, 0, 0])
    }),
    Case::refused("release-orphans-stale", STALE_EPOCH, |f, _| {
        call(
            f,
            Call::ReleaseOrphans,
            [epoch_field(f.epoch + 1) | 1, 0, 0],
        )
    }),
    Case::refused("detach-reserved", PARAMETER, |f, _| {
        call(f, Call::Detach, [epoch_field(f.epoch) | 1, 0, 0])
    }),
    Case::refused("detach-stale", STALE_EPOCH, |f, _| {
        call(f, Call::Detach, [epoch_field(f.epoch + 1), 0, 0])
    }),
    Case::refused("trace-part-of-a-record", PARAMETER, |f, _| {
        call(f, Call::Trace, [f.list, 40, 0])
    }),
    Case::refused("trace-in-the-window", ADDRESS, |f, _| {
        call(f, Call::Trace, [f.window.start, 32, 0])
    }),
    Case::refused("call-donate", UNSUPPORTED_CALL, |f, _| {
        call(f, Call::Donate, [0; 3])
    }),
    // IDENTIFY, DESCRIBE, ATTACH.
    Case::refused("identify-reserved", PARAMETER, |f, _| {
        call(f, Call::Identify, [0, 1, 0])
    }),
    Case::refused("describe-absent-window", PARAMETER, |f, _| {
        call(f, Call::Describe, [7, 0, 0])
    }),
    Case::refused("describe-window-8", PARAMETER, |f, _| {
        call(f, Call::Describe, [8, 0, 0])
    }),
    Case::refused("describe-item", PARAMETER, |f, _| {
        call(f, Call::Describe, [0, 3, 0])
    }),
    Case::refused("describe-reserved", PARAMETER, |f, _| {
        call(f, Call::Describe, [0, 0, 1])
    }),
    Case::refused("attach-version", UNSUPPORTED_VERSION, |f, _| {
        call(f, Call::Attach, [2, 0, 0])
    }),
    Case::refused("attach-reserved", PARAMETER, |f, _| {
        call(f, Call::Attach, [1, 1, 0])
    }),
    // LIST_GRANTED.
    Case::refused("list-misaligned", PARAMETER, |f, _| list(f, f.list + 4)),
    Case::refused("list-reserved", PARAMETER, |f, _| {
        call(
            f,
            Call::ListGranted,
            [f.list, epoch_field(1) | u64::from(f.epoch), 0],
        )
    }),
    Case::refused("list-empty", PARAMETER, |f, l| list_at(f, l, 0, 0)),
    Case::refused("list-crossing", PARAMETER, |f, l| {
        list_at(f, l, 0, MAX_ENTRIES + 1)
    }),
    Case::refused("list-crossing-at-end", PARAMETER, |f, l| {
        list_at(f, l, 4088, 1)
    }),
    Case::refused("list-stale-epoch", STALE_EPOCH, |f, l| {
        let mut registers = list_at(f, l, 0, 1);
        registers.rdx += 1;
        registers
    }),
    Case::refused("list-in-window", ADDRESS, |f, _| list(f, f.granted)),
    Case::refused("list-in-paravisor", ADDRESS, |f, _| {
        list(f, f.paravisor_page())
    }),
    Case::refused("list-in-storage", ADDRESS, |f, _| list(f, f.storage_page())),
    Case::refused("list-unvalidated", ADDRESS, |f, _| list(f, f.unvalidated)),
    Case::refused("list-shared", ADDRESS, |f, _| list(f, f.shared)),
    Case::refused("list-device", ADDRESS, |f, _| list(f, Facts::DEVICE)),
    Case::refused("list-launch-vmsa", ADDRESS, |f, _| {
        list(f, Facts::LAUNCH_VMSA)
    }),
    Case::refused("list-beyond", ADDRESS, |f, _| list(f, Facts::BEYOND)),
    // GROW.
    Case::refused("grow-absent-window", PARAMETER, |f, _| {
        grow(f, 7, CHUNK_BYTES, CHUNK_BYTES)
    }),
    Case::refused("grow-reserved", PARAMETER, |f, _| {
        grow(f, 1 << 9, CHUNK_BYTES, CHUNK_BYTES)
    }),
    Case::refused("grow-zero", PARAMETER, |f, _| grow(f, 0, 0, CHUNK_BYTES)),
    Case::refused("grow-misaligned", PARAMETER, |f, _| {
        grow(f, 0, PAGE_SIZE, CHUNK_BYTES)
    }),
    Case::refused("grow-least-above-most", PARAMETER, |f, _| {
        grow(f, 0, 2 * CHUNK_BYTES, CHUNK_BYTES)
    }),
    Case::refused("grow-stale-epoch", STALE_EPOCH, |f, _| {
        call(
            f,
            Call::Grow,
            [epoch_field(f.epoch + 1), CHUNK_BYTES, CHUNK_BYTES],
        )
    }),
    Case::refused("grow-past-cap", CAP_REACHED, |f, _| {
        grow(f, 0, CHUNK_BYTES, CHUNK_BYTES)
    })
    .with_cap_at_granted(),
    Case::refused("grow-contiguous-past-cap", CAP_REACHED, |f, _| {
        grow(f, 1 << 8, CHUNK_BYTES, CHUNK_BYTES)
    })
    .with_cap_at_granted(),
    Case::refused("grow-too-large", TOO_LARGE, |f, _| {
        grow(f, 1 << 8, 1 << 40, 1 << 40)
    })
    .returning(253 * CHUNK_BYTES),
    // RELEASE.
    Case::refused("release-misaligned", PARAMETER, |f, _| {
        release(f, f.granted + PAGE_SIZE, CHUNK_BYTES)
    }),
    Case::refused("release-zero", PARAMETER, |f, _| release(f, f.granted, 0)),
    Case::refused("release-odd-bytes", PARAMETER, |f, _| {
        release(f, f.granted, PAGE_SIZE)
    }),
    Case::refused("release-wrapping", PARAMETER, |f, _| {
        release(f, f.granted, 0_u64.wrapping_sub(CHUNK_BYTES))
    }),
    Case::refused("release-guest-ram", ADDRESS, |f, _| {
        release(f, f.private_large, CHUNK_BYTES)
    }),
    Case::refused("release-paravisor", ADDRESS, |f, _| {
        release(f, f.paravisor.start, CHUNK_BYTES)
    }),
    Case::refused("release-not-granted", NOT_HELD, |f, _| {
        release(f, f.free_chunk(), CHUNK_BYTES)
    }),
    Case::refused("release-beyond-window", ADDRESS, |f, _| {
        release(f, f.free_chunk(), 2 * CHUNK_BYTES)
    }),
    Case::refused("release-partly-held", NOT_HELD, |f, _| {
        release(f, f.granted, f.window.end - f.granted)
    }),
    Case::refused("release-generation", NOT_HELD, |f, _| {
        let mut registers = release(f, f.granted, CHUNK_BYTES);
        registers.r8 += 1;
        registers
    }),
    Case::refused("release-stale-epoch", STALE_EPOCH, |f, _| {
        let mut registers = release(f, f.granted, CHUNK_BYTES);
        registers.r8 += epoch_field(1);
        registers
    }),
    // STATISTICS.
    Case::refused("statistics-misaligned", PARAMETER, |f, _| {
        statistics(f, f.list + 4)
    }),
    Case::refused("statistics-zero", PARAMETER, |f, _| {
        call(f, Call::Statistics, [f.list, 0, 0])
    }),
    Case::refused("statistics-odd-bytes", PARAMETER, |f, _| {
        call(f, Call::Statistics, [f.list, 12, 0])
    }),
    Case::refused("statistics-crossing", PARAMETER, |f, _| {
        statistics(f, f.list + PAGE_SIZE - BUFFER_BYTES + 8)
    }),
    Case::refused("statistics-in-window", ADDRESS, |f, _| {
        statistics(f, f.granted)
    }),
    Case::refused("statistics-in-paravisor", ADDRESS, |f, _| {
        statistics(f, f.paravisor_page())
    }),
    Case::refused("statistics-unvalidated", ADDRESS, |f, _| {
        statistics(f, f.unvalidated)
    }),
    Case::refused("statistics-shared", ADDRESS, |f, _| statistics(f, f.shared)),
    Case::refused("statistics-device", ADDRESS, |f, _| {
        statistics(f, Facts::DEVICE)
    }),
    Case::refused("statistics-launch-vmsa", ADDRESS, |f, _| {
        statistics(f, Facts::LAUNCH_VMSA)
    }),
    Case::refused("statistics-beyond", ADDRESS, |f, _| {
        statistics(f, Facts::BEYOND)
    }),
    // SET_LIMITS.
    Case::refused("set-limits-absent-window", PARAMETER, |f, _| {
        set_limits(f, 7, CHUNK_BYTES)
    }),
    Case::refused("set-limits-reserved", PARAMETER, |f, _| {
        set_limits(f, 1 << 8, CHUNK_BYTES)
    }),
    Case::refused("set-limits-misaligned", PARAMETER, |f, _| {
        set_limits(f, 0, PAGE_SIZE)
    }),
    Case::refused("set-limits-above-window", PARAMETER, |f, _| {
        set_limits(f, 0, f.window.bytes() + CHUNK_BYTES)
    }),
    Case::refused("set-limits-stale-epoch", STALE_EPOCH, |f, _| {
        call(
            f,
            Call::SetLimits,
            [epoch_field(f.epoch + 1), CHUNK_BYTES, 0],
        )
    }),
];
