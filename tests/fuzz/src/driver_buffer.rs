// SPDX-License-Identifier: MIT OR Apache-2.0
//! Drivers' buffers, between canaries.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use guest_shim::{Constraints, CopyIn, Direction, MapError, Mapping, Platform, Pool, Reservation};

/// Bytes before and behind a buffer that nobody may write to.
const CANARY: usize = 64;
const PAGE: usize = 4096;
const CANARY_BYTES: [u8; CANARY] = [0xc3; CANARY];

/// A driver's buffer. Its memory goes back to the allocator when it is dropped, so that a late copy is a use after free
/// for whatever tool watches.
#[derive(Debug)]
pub struct DriverBuffer {
    area: NonNull<u8>,
    layout: Layout,
    /// Offset of the first byte in the area.
    start: usize,
    length: usize,
}

// SAFETY: Owns its memory.
unsafe impl Send for DriverBuffer {}

impl DriverBuffer {
    /// A buffer with these contents whose address has the low bits of `phase`: those of the offset in a page, and more if
    /// `mask`, a power of two minus 1, has more. So a case meets the same low bits each time it is run.
    ///
    /// # Panics
    /// If there is not that much memory.
    pub fn new(contents: &[u8], mask: usize, phase: usize) -> Self {
        let align = (mask + 1).max(PAGE);
        let start = CANARY.next_multiple_of(align) + phase % align;
        let layout = Layout::from_size_align(start + contents.len() + CANARY, align);
        let layout = layout.expect("a small buffer");
        // SAFETY: Of a size that is not zero: there are canaries.
        let Some(area) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        let buffer = Self {
            area,
            layout,
            start,
            length: contents.len(),
        };
        // SAFETY: All three parts lie in the area.
        unsafe {
            let first = area.add(start);
            first
                .sub(CANARY)
                .copy_from_nonoverlapping(NonNull::from(&CANARY_BYTES).cast(), CANARY);
            first
                .add(contents.len())
                .copy_from_nonoverlapping(NonNull::from(&CANARY_BYTES).cast(), CANARY);
        }
        buffer.write(0, contents);
        buffer
    }

    /// The address of its first byte.
    pub fn address(&self) -> u64 {
        self.area.addr().get() as u64 + self.start as u64
    }

    /// Length in bytes.
    pub const fn length(&self) -> usize {
        self.length
    }

    /// The driver writes to it.
    ///
    /// # Panics
    /// If the buffer ends before the bytes do.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length);
        // SAFETY: In the area; the shim copies nothing at this moment.
        unsafe {
            self.area
                .as_ptr()
                .add(self.start + offset)
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    /// What is wrong with the buffer, if it should hold these bytes.
    pub fn complaint(&self, expected: &[u8]) -> Option<String> {
        // SAFETY: The area from the canary before to the one behind; the shim copies nothing at this moment.
        let bytes = unsafe {
            std::slice::from_raw_parts(
                self.area.as_ptr().add(self.start - CANARY),
                self.length + 2 * CANARY,
            )
        };
        let (before, rest) = bytes.split_at(CANARY);
        let (contents, behind) = rest.split_at(self.length);
        if before != CANARY_BYTES {
            return Some("a copy wrote before the driver's buffer".into());
        }
        if behind != CANARY_BYTES {
            return Some("a copy wrote behind the driver's buffer".into());
        }
        if contents == expected {
            return None;
        }
        let wrong = contents
            .iter()
            .zip(expected)
            .position(|(is, should)| is != should)?;
        Some(format!(
            "byte {wrong} of {} of the driver's buffer is {:#x} and should be {:#x}",
            self.length, contents[wrong], expected[wrong]
        ))
    }

    /// [`Pool::map`] of the whole buffer. The caller keeps the buffer until the unmap.
    ///
    /// # Errors
    /// As [`Pool::map`].
    pub fn map<P: Platform>(
        &self,
        pool: &Pool<'_, P>,
        direction: Direction,
        copy_in: CopyIn,
        constraints: &Constraints,
    ) -> Result<Mapping, MapError> {
        // SAFETY: The buffer owns its memory, and whoever maps it here keeps it until the mapping has ended.
        unsafe { pool.map(self.raw(), direction, copy_in, constraints) }
    }

    /// [`Pool::map_reserved`] of the whole buffer. The caller keeps the buffer until the unmap.
    ///
    /// # Errors
    /// As [`Pool::map_reserved`].
    pub fn map_reserved<P: Platform>(
        &self,
        pool: &Pool<'_, P>,
        reservation: &Reservation,
        direction: Direction,
        copy_in: CopyIn,
        constraints: &Constraints,
    ) -> Result<Mapping, MapError> {
        // SAFETY: As in `map`.
        unsafe { pool.map_reserved(reservation, self.raw(), direction, copy_in, constraints) }
    }

    fn raw(&self) -> NonNull<[u8]> {
        // SAFETY: In the area.
        let first = unsafe { self.area.add(self.start) };
        NonNull::slice_from_raw_parts(first, self.length)
    }
}

impl Drop for DriverBuffer {
    fn drop(&mut self) {
        // SAFETY: Allocated in `new` with this layout.
        unsafe { dealloc(self.area.as_ptr(), self.layout) };
    }
}

/// Bytes that differ from seed to seed and from place to place.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    // Longer than a page and no divisor of one, so that a copy that is off by a page or a slot shows.
    const PERIOD: usize = 4099;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length.min(PERIOD) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length.min(PERIOD));
    while bytes.len() < length {
        let more = (length - bytes.len()).min(bytes.len());
        bytes.extend_from_within(..more);
    }
    bytes
}
