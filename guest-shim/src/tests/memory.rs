// SPDX-License-Identifier: MIT OR Apache-2.0
//! The window's memory, as a device and the host see it.

use core::ptr::NonNull;
use std::boxed::Box;

use crate::{CHUNK_BYTES, Window};

/// Where the test window begins: a chunk boundary, and no larger one.
pub const BASE: u64 = 0x4020_0000;

const CHUNK: usize = CHUNK_BYTES as usize;
/// What a chunk holds while it is not granted.
pub const NOT_GRANTED: u8 = 0x5a;
/// What a chunk holds when it is granted: left over from somebody else.
pub const GRANTED: u8 = 0x77;

/// The memory of a window.
#[derive(Debug)]
pub struct WindowMemory {
    window: Window,
    /// First byte of the window in `area`, aligned as its guest addresses are.
    first: NonNull<u8>,
    area: NonNull<[u8]>,
}

// SAFETY: The area is only accessed through raw pointers, as shared memory is.
unsafe impl Send for WindowMemory {}
// SAFETY: As above.
unsafe impl Sync for WindowMemory {}

impl WindowMemory {
    /// Memory of which nothing is granted.
    pub fn new(chunks: usize) -> Self {
        let area = std::vec![NOT_GRANTED; (chunks + 1) * CHUNK].into_boxed_slice();
        let area = NonNull::from(Box::leak(area));
        let start = area.as_ptr().cast::<u8>();
        let first = start.wrapping_add(start.align_offset(CHUNK));
        Self {
            window: Window::new(BASE, chunks as u64 * CHUNK_BYTES).unwrap(),
            first: NonNull::new(first).unwrap(),
            area,
        }
    }

    /// The range of guest physical addresses.
    pub const fn window(&self) -> Window {
        self.window
    }

    /// The pointer to a range, if all of it lies in the window.
    pub fn at(&self, address: u64, bytes: u64) -> Option<NonNull<u8>> {
        let offset = self.window.offset_of(address)?;
        // SAFETY: The offset lies in the area.
        (bytes <= self.window.bytes() - offset).then(|| unsafe { self.first.add(offset as usize) })
    }

    /// Whether nobody has written to a chunk since it was filled as not granted.
    pub fn chunk_is_untouched(&self, chunk: usize) -> bool {
        // SAFETY: In the window. Nobody writes to a chunk that is not granted; if somebody does, the test fails here.
        let bytes =
            unsafe { core::slice::from_raw_parts(self.first.add(chunk * CHUNK).as_ptr(), CHUNK) };
        bytes.chunks(4096).all(|page| *page == [NOT_GRANTED; 4096])
    }

    /// Fills a chunk that is not granted.
    pub fn fill_chunk(&self, chunk: usize, byte: u8) {
        // SAFETY: In the window, and nobody else uses it.
        unsafe { self.first.add(chunk * CHUNK).write_bytes(byte, CHUNK) };
    }
}

impl Drop for WindowMemory {
    fn drop(&mut self) {
        // SAFETY: Leaked in `new`; pools over the machine borrow it, so none is left.
        drop(unsafe { Box::from_raw(self.area.as_ptr()) });
    }
}
