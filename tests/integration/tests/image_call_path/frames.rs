// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much stack each function takes, by the call frame information that every image has for debuggers (DWARF 5, 6.4).
//!
//! The compiler describes the distance from the stack pointer to the caller's frame after each instruction that changes
//! it; the largest is the frame, return address included. Functions of `core` keep a frame pointer, and are described by
//! it: their frames come out too small.

use std::collections::BTreeMap;

/// Marks a common entry, which describes no function.
const COMMON: u32 = u32::MAX;

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_first_chunk().expect("the section goes on");
        self.0 = rest;
        *taken
    }

    fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    /// LEB128, unsigned; a signed one is as long.
    fn number(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }

    /// The largest offset of the caller's frame that these instructions define.
    fn largest_offset(mut self) -> u64 {
        let mut largest = 0;
        while !self.0.is_empty() {
            match self.byte() {
                // nop, remember_state, restore_state; advance_loc and restore hold their operand
                0x00 | 0x0a | 0x0b | 0x40..0x80 | 0xc0.. => {}
                0x02 => _ = self.take::<1>(),
                0x03 => _ = self.take::<2>(),
                0x04 => _ = self.take::<4>(),
                // offset, undefined, same_value, def_cfa_register
                0x80..0xc0 | 0x07 | 0x08 | 0x0d => _ = self.number(),
                0x0c => {
                    self.number();
                    largest = largest.max(self.number());
                }
                0x0e => largest = largest.max(self.number()),
                other => panic!("a call frame instruction that compilers did not use: {other:#x}"),
            }
        }
        largest
    }
}

/// Bytes of the frame of each function, by its address.
pub fn frames(debug_frame: &[u8]) -> BTreeMap<u64, u64> {
    let mut frames = BTreeMap::new();
    let mut section = Reader(debug_frame);
    while !section.0.is_empty() {
        let length = u32::from_le_bytes(section.take()) as usize;
        let (entry, rest) = section.0.split_at(length);
        section.0 = rest;
        let mut entry = Reader(entry);
        if u32::from_le_bytes(entry.take()) == COMMON {
            continue;
        }
        let start = u64::from_le_bytes(entry.take());
        let _bytes: [u8; 8] = entry.take();
        // At the first instruction only the return address is there.
        let frame = entry.largest_offset().max(8);
        frames.insert(start, frame);
    }
    frames
}
