// SPDX-License-Identifier: MIT OR Apache-2.0
//! Drivers' buffers.

use core::ptr::NonNull;
use std::boxed::Box;
use std::vec::Vec;

/// A driver's buffer that stays where it is while a device may use it.
#[derive(Debug)]
pub struct Buffer {
    memory: NonNull<[u8]>,
}

// SAFETY: Owns its memory.
unsafe impl Send for Buffer {}

impl Buffer {
    /// A buffer of `length` bytes whose address has these low bits under `mask`.
    pub fn at_phase(length: usize, mask: usize, phase: usize) -> Self {
        let area = Box::leak(std::vec![0_u8; length + 2 * (mask + 1)].into_boxed_slice());
        let start = area.as_mut_ptr();
        let start = start.wrapping_add(start.align_offset(mask + 1) + (phase & mask));
        Self {
            memory: NonNull::slice_from_raw_parts(NonNull::new(start).unwrap(), length),
        }
    }

    pub fn new(length: usize) -> Self {
        Self::at_phase(length, 7, 0)
    }

    /// The same, filled with bytes that depend on `seed`.
    pub fn filled(length: usize, seed: usize) -> Self {
        let buffer = Self::new(length);
        buffer.write(&pattern(length, seed));
        buffer
    }

    pub fn raw(&self) -> NonNull<[u8]> {
        self.memory
    }

    pub fn read(&self) -> Vec<u8> {
        // SAFETY: Our own memory; tests do not touch it while the shim copies.
        unsafe { self.memory.as_ref() }.to_vec()
    }

    pub fn write(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.memory.len());
        // SAFETY: As above.
        unsafe {
            let start = self.memory.as_ptr().cast::<u8>();
            start.copy_from(bytes.as_ptr(), bytes.len());
        }
    }
}

pub fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|at| ((at * 7 + seed * 31 + 1) % 251) as u8)
        .collect()
}
