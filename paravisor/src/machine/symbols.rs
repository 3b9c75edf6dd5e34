// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses that the linker script defines.

use core::ptr::addr_of;

use paravisor::fault_fixup::FixupEntry;
use paravisor::range_list::PhysRange;

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __fixup_start: FixupEntry;
    static __fixup_end: FixupEntry;
    static __data_start: u8;
    static __data_end: u8;
    static __boot_stacks: u8;
}

/// The range between two symbols.
macro_rules! between {
    ($start:ident, $end:ident) => {
        PhysRange {
            start: addr_of!($start).addr() as u64,
            end: addr_of!($end).addr() as u64,
        }
    };
}

/// Code.
pub fn text() -> PhysRange {
    between!(__text_start, __text_end)
}

/// Constants.
pub fn rodata() -> PhysRange {
    between!(__rodata_start, __rodata_end)
}

/// Variables.
pub fn data() -> PhysRange {
    between!(__data_start, __data_end)
}

/// First guard page of the boot processor's stacks.
pub fn boot_stacks() -> u64 {
    addr_of!(__boot_stacks).addr() as u64
}

/// The table of survivable faults.
pub fn fixup_table() -> &'static [FixupEntry] {
    let start = addr_of!(__fixup_start);
    let bytes = addr_of!(__fixup_end).addr() - start.addr();
    // SAFETY: The linker script places both symbols around the section, which holds nothing but
    // entries and is never written.
    unsafe { core::slice::from_raw_parts(start, bytes / size_of::<FixupEntry>()) }
}
