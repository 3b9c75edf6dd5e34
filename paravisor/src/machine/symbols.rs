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
    static __stack_bottom: u8;
    static __stack_top: u8;
    static __fault_stack_bottom: u8;
    static __fault_stack_top: u8;
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

/// The ordinary stack and the one for double faults; below each lies a guard page.
pub fn stacks() -> [PhysRange; 2] {
    [
        between!(__stack_bottom, __stack_top),
        between!(__fault_stack_bottom, __fault_stack_top),
    ]
}

/// First address above the stack for double faults.
pub fn fault_stack_top() -> u64 {
    addr_of!(__fault_stack_top).addr() as u64
}

/// The table of survivable faults.
pub fn fixup_table() -> &'static [FixupEntry] {
    let start = addr_of!(__fixup_start);
    let bytes = addr_of!(__fixup_end).addr() - start.addr();
    // SAFETY: The linker script places both symbols around the section, which holds nothing but
    // entries and is never written.
    unsafe { core::slice::from_raw_parts(start, bytes / size_of::<FixupEntry>()) }
}
