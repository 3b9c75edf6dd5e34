// SPDX-License-Identifier: MIT OR Apache-2.0
//! The window's memory, as the host and its devices see it.
//!
//! A chunk that is not granted holds a pattern, and a grant checks it: a stray write of the shim into memory that it
//! does not hold is found, if not at once then when the chunk is granted the next time or when the test ends.
//!
//! Beside the memory lies what the model expects in it.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::Mutex;

use guest_shim::{CHUNK_BYTES, Window};

/// Where the test window begins: a chunk boundary, and no larger one.
pub const BASE: u64 = 0x4020_0000;

/// Size of a chunk.
pub const CHUNK: usize = CHUNK_BYTES as usize;

/// What a chunk holds while it is not granted.
pub const NOT_GRANTED: u8 = 0x5a;

/// What a chunk holds when it is granted: left over from somebody else.
pub const GRANTED: u8 = 0x77;

static UNTOUCHED: [u8; CHUNK] = [NOT_GRANTED; CHUNK];

thread_local! {
    /// Memory of an earlier case, none of it granted. Filling a window costs more than the rest of a short case.
    static SPARE: RefCell<Vec<WindowMemory>> = const { RefCell::new(Vec::new()) };
}

/// The memory of a window.
#[derive(Debug)]
pub struct WindowMemory {
    window: Window,
    first: NonNull<u8>,
    layout: Layout,
    expected: Mutex<Vec<u8>>,
}

// SAFETY: The memory is only accessed through raw pointers, as shared memory is.
unsafe impl Send for WindowMemory {}
// SAFETY: As above.
unsafe impl Sync for WindowMemory {}

impl WindowMemory {
    /// Memory of this many chunks, none of them granted.
    ///
    /// # Panics
    /// If there is not that much memory.
    pub fn new(chunks: usize) -> Self {
        let spare = SPARE.with_borrow_mut(|spare| {
            let found = spare
                .iter()
                .position(|memory| memory.window.chunks() == chunks)?;
            Some(spare.swap_remove(found))
        });
        spare.unwrap_or_else(|| {
            let layout = Layout::from_size_align(chunks * CHUNK, CHUNK).expect("a small window");
            // SAFETY: Of a size that is not zero: a window has chunks.
            let Some(first) = NonNull::new(unsafe { alloc(layout) }) else {
                handle_alloc_error(layout)
            };
            // SAFETY: Just allocated with this size.
            unsafe { first.write_bytes(NOT_GRANTED, chunks * CHUNK) };
            let window = Window::new(BASE, (chunks * CHUNK) as u64).expect("whole chunks");
            Self {
                window,
                first,
                layout,
                expected: Mutex::new(vec![NOT_GRANTED; chunks * CHUNK]),
            }
        })
    }

    /// Keeps the memory for the next case of this thread. Nothing of it is granted any more.
    pub fn recycle(self) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < 8 {
                spare.push(self);
            }
        });
    }

    /// The range of guest physical addresses.
    pub const fn window(&self) -> Window {
        self.window
    }

    /// The pointer to a range, if all of it lies in the window.
    pub fn at(&self, address: u64, bytes: u64) -> Option<NonNull<u8>> {
        let offset = self.window.offset_of(address)?;
        // SAFETY: The offset lies in the memory.
        (bytes <= self.window.bytes() - offset).then(|| unsafe { self.first.add(offset as usize) })
    }

    /// The address in the window that a pointer stands for.
    pub fn address_of(&self, pointer: NonNull<u8>) -> Option<u64> {
        let offset = pointer.addr().get().checked_sub(self.first.addr().get())? as u64;
        (offset < self.window.bytes()).then_some(BASE + offset)
    }

    /// Whether a range holds these bytes.
    ///
    /// # Panics
    /// If the range does not lie in the window.
    pub fn holds(&self, address: u64, bytes: &[u8]) -> bool {
        let at = self.at(address, bytes.len() as u64).expect("in the window");
        // SAFETY: In the memory by `at`; no other thread writes to it while a test compares it.
        unsafe { std::slice::from_raw_parts(at.as_ptr(), bytes.len()) == bytes }
    }

    /// What a device reads.
    ///
    /// # Panics
    /// If the range does not lie in the window.
    pub fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let at = self.at(address, length as u64).expect("in the window");
        let mut bytes = Vec::with_capacity(length);
        // SAFETY: In the memory by `at`, and room for it was made.
        unsafe {
            at.as_ptr()
                .copy_to_nonoverlapping(bytes.as_mut_ptr(), length);
            bytes.set_len(length);
        }
        bytes
    }

    /// What the model says a device reads.
    ///
    /// # Panics
    /// If the range does not lie in the window.
    pub fn expected(&self, address: u64, length: usize) -> Vec<u8> {
        let from = (address - BASE) as usize;
        self.expectations()[from..from + length].to_vec()
    }

    /// From now on these bytes are expected: somebody who may has written them.
    ///
    /// # Panics
    /// If the range does not lie in the window.
    pub fn expect(&self, address: u64, bytes: &[u8]) {
        let from = (address - BASE) as usize;
        self.expectations()[from..from + bytes.len()].copy_from_slice(bytes);
    }

    /// Whether a range holds what is expected.
    ///
    /// # Panics
    /// If the range does not lie in the window.
    pub fn is_as_expected(&self, address: u64, length: usize) -> bool {
        let from = (address - BASE) as usize;
        self.holds(address, &self.expectations()[from..from + length])
    }

    fn expectations(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.expected.lock().expect("no other thread has failed")
    }

    /// A device writes, and the model knows of it.
    ///
    /// # Panics
    /// If the range does not lie in the window.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.store(address, bytes);
        self.expect(address, bytes);
    }

    /// A device writes where no model looks.
    ///
    /// # Panics
    /// If the range does not lie in the window.
    pub fn store(&self, address: u64, bytes: &[u8]) {
        let at = self.at(address, bytes.len() as u64).expect("in the window");
        // SAFETY: In the memory by `at`.
        unsafe {
            at.as_ptr()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    /// A device writes at the same time as anybody else: byte by byte, volatile.
    ///
    /// # Panics
    /// If the range does not lie in the window.
    pub fn write_racing(&self, address: u64, bytes: &[u8]) {
        let at = self.at(address, bytes.len() as u64).expect("in the window");
        for (offset, byte) in bytes.iter().enumerate() {
            // SAFETY: In the memory by `at`. This is what hardware does; the shim's accesses are volatile too.
            unsafe { at.add(offset).write_volatile(*byte) };
        }
    }

    /// Whether nobody has written to a chunk since it was filled as not granted.
    pub fn chunk_is_untouched(&self, chunk: usize) -> bool {
        self.holds(chunk_address(chunk), &UNTOUCHED)
    }

    /// Fills a chunk with one byte.
    ///
    /// # Panics
    /// If the window has no such chunk.
    pub fn fill_chunk(&self, chunk: usize, byte: u8) {
        let at = self
            .at(chunk_address(chunk), CHUNK_BYTES)
            .expect("in the window");
        // SAFETY: In the memory by `at`, and nobody else uses it.
        unsafe { at.write_bytes(byte, CHUNK) };
        let from = chunk * CHUNK;
        self.expectations()[from..from + CHUNK].fill(byte);
    }
}

impl Drop for WindowMemory {
    fn drop(&mut self) {
        // SAFETY: Allocated in `new` with this layout; machines borrow it, so no pool over it is left.
        unsafe { dealloc(self.first.as_ptr(), self.layout) };
    }
}

/// First address of a chunk of the test window.
pub const fn chunk_address(chunk: usize) -> u64 {
    BASE + (chunk * CHUNK) as u64
}

/// The chunk of the test window in which an address lies.
pub const fn chunk_of(address: u64) -> usize {
    ((address - BASE) / CHUNK_BYTES) as usize
}
