// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registers of the calls that tests make, straight from the tables of chapter 5. Sizes are in chunks.

use snp::svsm::CallRegisters;

use crate::asked::CHUNK;

/// RAX\[63:32\] of every call.
pub const PROTOCOL: u64 = 0x4000_0001;

/// A call by its number and arguments.
pub const fn raw(number: u64, rcx: u64, rdx: u64, r8: u64) -> CallRegisters {
    CallRegisters::new(PROTOCOL << 32 | number, [rcx, rdx, r8])
}

/// ATTACH.
pub const fn attach() -> CallRegisters {
    raw(2, 1, 0, 0)
}

/// LIST_GRANTED into the list at an address.
pub fn list(epoch: u32, list: u64) -> CallRegisters {
    raw(3, list, epoch.into(), 0)
}

/// ADOPT.
pub fn adopt(epoch: u32, older: u32) -> CallRegisters {
    raw(4, u64::from(epoch) << 32 | u64::from(older), 0, 0)
}

/// RELEASE_ORPHANS.
pub fn release_orphans(epoch: u32, older: u32) -> CallRegisters {
    raw(5, u64::from(epoch) << 32 | u64::from(older), 0, 0)
}

/// DETACH.
pub fn detach(epoch: u32) -> CallRegisters {
    raw(6, u64::from(epoch) << 32, 0, 0)
}

/// GROW.
pub fn grow(epoch: u32, least: u64, most: u64, contiguous: bool) -> CallRegisters {
    let rcx = u64::from(epoch) << 32 | u64::from(contiguous) << 8;
    raw(7, rcx, least * CHUNK, most * CHUNK)
}

/// RELEASE of chunks from an address on.
pub fn release(base: u64, chunks: u64, epoch: u32, generation: u32) -> CallRegisters {
    let r8 = u64::from(epoch) << 32 | u64::from(generation);
    raw(8, base, chunks * CHUNK, r8)
}

/// STATISTICS.
pub const fn statistics(buffer: u64, bytes: u64) -> CallRegisters {
    raw(10, buffer, bytes, 0)
}

/// SET_LIMITS.
pub fn set_limits(epoch: u32, cap: u64) -> CallRegisters {
    raw(12, u64::from(epoch) << 32, cap * CHUNK, 0)
}

/// CONVERT of the list at an address.
pub fn convert(epoch: u32, list: u64) -> CallRegisters {
    raw(9, list, epoch.into(), 0)
}

/// TRACE from a number on.
pub const fn trace(buffer: u64, bytes: u64, from: u64) -> CallRegisters {
    raw(11, buffer, bytes, from)
}

/// MEMORY_FORM of the block at an address; R9 has a value of its own.
pub const fn memory_form(block: u64) -> CallRegisters {
    CallRegisters {
        r9: 0x99,
        ..raw(16, block, u64::MAX, u64::MAX)
    }
}

/// The block that makes this call.
pub fn block(call: &CallRegisters) -> Vec<u8> {
    let words = [call.rax, call.rcx, call.rdx, call.r8];
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// A list of CONVERT, whose cursor is at the first entry.
pub fn convert_list(entries: &[u64]) -> Vec<u8> {
    let number = u16::try_from(entries.len()).unwrap_or(u16::MAX);
    let mut list = Vec::from(number.to_le_bytes());
    list.resize(8, 0);
    list.extend(entries.iter().flat_map(|entry| entry.to_le_bytes()));
    list
}

/// An entry of that list (clause P-5.9.1).
pub const fn convert_entry(page: u64, large: bool, to_shared: bool) -> u64 {
    page | large as u64 | (to_shared as u64) << 2
}
