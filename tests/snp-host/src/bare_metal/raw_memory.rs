// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host physical memory, identity mapped. Guests and devices change it at any time, so every access
//! is volatile and no reference to guest memory exists.

use core::ptr;

use snp_host::hardware::{Devices, PhysicalMemory};

use super::BareMetal;

/// What the boot code maps.
const IDENTITY_BYTES: u64 = 512 << 30;
const PRESENT_WRITABLE: u64 = 3;
const LARGE: u64 = 1 << 7;

unsafe extern "C" {
    static mut boot_level_4: [u64; 512];
    static mut boot_device_level_3: [u64; 512];
}

#[expect(clippy::cast_possible_truncation, reason = "64-bit target")]
pub(super) const fn to_usize(address: u64) -> usize {
    address as usize
}

/// Makes the device memory at `address` reachable and returns the address to use: identity mapped,
/// and beyond the first 512 GiB through the one spare level-3 table.
pub fn map_device(address: u64) -> usize {
    if address >= IDENTITY_BYTES {
        let entry = to_usize(address >> 39) % 512;
        let base = address & !(IDENTITY_BYTES - 1);
        // SAFETY: only this function uses the spare table, on the CPU that holds the machine;
        // entry 0, which maps this host, is never written because the address is beyond it.
        unsafe {
            let table = (&raw mut boot_device_level_3).cast::<u64>();
            // Where the table leads is in its first leaf.
            if table.read() != base + PRESENT_WRITABLE + LARGE {
                for gib in 0..512 {
                    let leaf = base + ((gib as u64) << 30) + PRESENT_WRITABLE + LARGE;
                    table.add(gib).write_volatile(leaf);
                }
            }
            boot_level_4[entry] = table.addr() as u64 + PRESENT_WRITABLE;
        }
        x86_64::instructions::tlb::flush_all();
    }
    to_usize(address)
}

/// Bytes of RAM from 4 GiB on, as the firmware left them in CMOS 0x5B to 0x5D (units of 64 KiB).
pub fn ram_above_4_gib() -> u64 {
    const INDEX: u16 = 0x70;
    const DATA: u16 = 0x71;
    let units = [0x5D, 0x5C, 0x5B].into_iter().fold(0, |units, register| {
        BareMetal.port_write(INDEX, 1, register);
        (units << 8) | u64::from(BareMetal.port_read(DATA, 1))
    });
    units << 16
}

/// A mutable slice over `count` zeroed elements at `address`.
///
/// # Safety
/// The caller owns these bytes, which lie in the identity map, until the machine stops; `address`
/// is aligned for `T`, and all bytes zero is a `T`.
pub unsafe fn zeroed_slice<T>(address: u64, count: usize) -> &'static mut [T] {
    let start = ptr::with_exposed_provenance_mut::<T>(to_usize(address));
    // SAFETY: by this function's contract.
    unsafe {
        ptr::write_bytes(start, 0, count);
        core::slice::from_raw_parts_mut(start, count)
    }
}

/// The launch image, which nothing changes once QEMU has started.
pub fn launch_memory(address: u64, bytes: u64) -> &'static [u8] {
    let start = ptr::with_exposed_provenance::<u8>(to_usize(address));
    // SAFETY: RAM that only QEMU's loader writes, before this host starts; neither guest RAM nor
    // this host overlaps it (memory_plan).
    unsafe { core::slice::from_raw_parts(start, to_usize(bytes)) }
}

/// Words that `fill` and `first_difference` handle at a time, and their bytes: emulated processors
/// spend more on a loop's bookkeeping than on a store.
const UNROLLED: u64 = 8;
const UNROLLED_BYTES: usize = 64;

fn word_pointer(address: u64) -> *mut u64 {
    ptr::with_exposed_provenance_mut(to_usize(address))
}

impl PhysicalMemory for BareMetal {
    fn read(&self, address: u64, bytes: &mut [u8]) {
        let mut at = address;
        for chunk in bytes.chunks_mut(8) {
            if let (Some(word), true) = (chunk.first_chunk_mut::<8>(), at.is_multiple_of(8)) {
                *word = self.read_u64(at).to_le_bytes();
            } else {
                for (at, byte) in (at..).zip(&mut *chunk) {
                    let pointer = ptr::with_exposed_provenance::<u8>(to_usize(at));
                    // SAFETY: host physical memory is mapped; the read is volatile.
                    *byte = unsafe { pointer.read_volatile() };
                }
            }
            at += 8;
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        let mut at = address;
        for chunk in bytes.chunks(8) {
            if let (Some(word), true) = (chunk.first_chunk::<8>(), at.is_multiple_of(8)) {
                self.write_u64(at, u64::from_le_bytes(*word));
            } else {
                for (at, byte) in (at..).zip(chunk) {
                    let pointer = ptr::with_exposed_provenance_mut::<u8>(to_usize(at));
                    // SAFETY: the hypervisor writes only guest views and its own tables
                    // (memory_plan), to which no Rust reference exists.
                    unsafe { pointer.write_volatile(*byte) };
                }
            }
            at += 8;
        }
    }

    fn fill(&self, address: u64, length: u64, word: u64) {
        debug_assert!(length.is_multiple_of(8 * UNROLLED));
        for block in (address..address + length).step_by(UNROLLED_BYTES) {
            for number in 0..UNROLLED {
                // SAFETY: as for `write`.
                unsafe { word_pointer(block + 8 * number).write_volatile(word) };
            }
        }
    }

    fn first_difference(&self, address: u64, length: u64, word: u64) -> Option<(u64, u64)> {
        debug_assert!(length.is_multiple_of(8 * UNROLLED));
        // SAFETY: as for `read_u64`.
        let read = |at| unsafe { word_pointer(at).read_volatile() };
        let differs = |block: &u64| {
            (0..UNROLLED).fold(0, |difference, number| {
                difference | (read(block + 8 * number) ^ word)
            }) != 0
        };
        let block = (address..address + length)
            .step_by(UNROLLED_BYTES)
            .find(differs)?;
        let at = (block..block + 8 * UNROLLED)
            .step_by(8)
            .find(|at| read(*at) != word)?;
        Some((at - address, read(at)))
    }

    fn read_u64(&self, address: u64) -> u64 {
        // SAFETY: host physical memory is mapped; the read is volatile.
        unsafe { word_pointer(address).read_volatile() }
    }

    fn write_u64(&self, address: u64, word: u64) {
        // SAFETY: as for `write`.
        unsafe { word_pointer(address).write_volatile(word) };
    }
}
