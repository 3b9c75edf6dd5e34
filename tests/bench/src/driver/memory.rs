// SPDX-License-Identifier: MIT OR Apache-2.0
//! Address space of the modelled guest: the pool, the pages above it for growth, the drivers' private buffers.

use std::ptr::{self, NonNull};

/// Bytes of guest pages for growth, right above the pool.
pub const ARENA_BYTES: usize = 3 << 30;

/// What the pool begins at a multiple of.
const POOL_ALIGN: usize = 4 << 20;

/// Anonymous memory, zero until it is touched.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: Nothing but an address range; who reads and writes it is the users' business.
unsafe impl Send for Region {}
// SAFETY: As above.
unsafe impl Sync for Region {}

impl Region {
    /// Reserves address space without committing memory.
    ///
    /// # Panics
    /// If the kernel has no such range.
    pub fn reserve(bytes: usize) -> Self {
        // SAFETY: A new private mapping, placed by the kernel.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert!(
            base != libc::MAP_FAILED,
            "no {bytes} bytes of address space: raise the limit (ulimit -v)"
        );
        let base = NonNull::new(base.cast()).expect("address 0 is never mapped");
        Self { base, bytes }
    }

    /// The first byte.
    pub const fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: The range that `reserve` got, which nobody can name any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// A pool with room to grow.
#[derive(Debug)]
pub struct PoolMemory {
    region: Region,
    bytes: usize,
}

impl PoolMemory {
    /// Address space for a pool of so many bytes, a multiple of 4 MiB. `touched`: with memory behind the pool, in large
    /// pages, so that no page fault is measured.
    pub fn new(bytes: usize, touched: bool) -> Self {
        let region = Region::reserve(bytes + ARENA_BYTES + 2 * POOL_ALIGN);
        let memory = Self { region, bytes };
        if touched {
            let pool = memory.pool();
            // SAFETY: Part of the region, which only this function knows so far.
            unsafe {
                libc::madvise(pool.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
                pool.write_bytes(1, bytes);
            }
        }
        memory
    }

    /// The pool's first byte.
    pub fn pool(&self) -> NonNull<u8> {
        let base = self.region.base();
        let gap = base.align_offset(POOL_ALIGN);
        // SAFETY: `new` reserves more than the alignment.
        unsafe { base.add(gap) }
    }

    /// The pool's size in bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first page for growth.
    pub fn arena(&self) -> NonNull<u8> {
        // SAFETY: `new` reserves the pool, the arena and two alignments.
        unsafe { self.pool().add(self.bytes.next_multiple_of(POOL_ALIGN)) }
    }
}
