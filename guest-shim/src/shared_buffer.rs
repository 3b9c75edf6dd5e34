// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that is built and read in place, in the pool: queues, descriptor tables, and data that needs no second copy.

use core::ptr::NonNull;

use crate::allocator::{CacheCounters, Kind, Placement};
use crate::claim::Expected;
use crate::constraints::Constraints;
use crate::error::{MapError, UnmapError};
use crate::platform::Platform;
use crate::pool::Pool;
use crate::room::Ended;
use crate::shared_memory;

/// What is copied over the old contents of shared memory before it is handed out.
static ZEROES: [u8; 4096] = [0; 4096];

/// Shared memory without an original. The host and its devices may change every byte at any time.
#[derive(Debug)]
#[must_use = "shared memory that is dropped is never free again"]
pub struct SharedBuffer {
    address: u64,
    generation: u64,
    pointer: NonNull<u8>,
    length: usize,
}

// SAFETY: The buffer is one extent of the pool that nobody else was handed; the pointer is valid on every CPU by the
// platform contract.
unsafe impl Send for SharedBuffer {}
// SAFETY: `&self` only reads, by volatile accesses.
unsafe impl Sync for SharedBuffer {}

impl SharedBuffer {
    /// The address to give to the device.
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// How often something had been given back at the same place before: what tells this buffer from others there.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Length in bytes.
    pub const fn length(&self) -> usize {
        self.length
    }

    /// The guest's pointer to it. For raw and volatile accesses only: a reference to this memory is undefined behaviour,
    /// because the host may write to it.
    pub const fn as_ptr(&self) -> NonNull<u8> {
        self.pointer
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// [`UnmapError::OutOfRange`] beyond the buffer; nothing is copied then.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), UnmapError> {
        let pool = self.part(offset, bytes.len())?;
        // SAFETY: The part lies in the buffer, which is ours; `bytes` is private memory.
        unsafe { shared_memory::copy_to_pool(pool, bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies what is at `offset` to `bytes`. Attacker data: check the copy, not the buffer.
    ///
    /// # Errors
    /// [`UnmapError::OutOfRange`] beyond the buffer; nothing is copied then.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), UnmapError> {
        let pool = self.part(offset, bytes.len())?;
        // SAFETY: As in `write`.
        unsafe { shared_memory::copy_from_pool(bytes.as_mut_ptr(), pool, bytes.len()) };
        Ok(())
    }

    fn part(&self, offset: usize, length: usize) -> Result<NonNull<u8>, UnmapError> {
        if offset
            .checked_add(length)
            .is_none_or(|end| end > self.length)
        {
            return Err(UnmapError::OutOfRange);
        }
        // SAFETY: `offset` is at most the buffer's length.
        Ok(unsafe { self.pointer.add(offset) })
    }
}

impl<P: Platform> Pool<'_, P> {
    /// Hands out `length` bytes of zeroed shared memory at a multiple of `align`, a power of two.
    ///
    /// # Errors
    /// A named cause, see [`MapError`].
    pub fn alloc_shared(&self, length: usize, align: u64) -> Result<SharedBuffer, MapError> {
        self.alloc_shared_within(length, &Constraints::aligned(align))
    }

    /// The same where a device reaches it: at a multiple of [`Constraints::alignment`], and of one more than
    /// [`Constraints::min_align_mask`].
    ///
    /// # Errors
    /// A named cause, see [`MapError`].
    pub fn alloc_shared_within(
        &self,
        length: usize,
        constraints: &Constraints,
    ) -> Result<SharedBuffer, MapError> {
        let taken = Placement::new(&self.window, 0, length, constraints).and_then(|placement| {
            let taken = self.take_room(&placement, |counters, taken| {
                CacheCounters::add(&counters.shared_buffers, 1);
                CacheCounters::add(&counters.used, taken.bytes());
            })?;
            Ok((placement, taken))
        });
        let (placement, taken) = match taken {
            Ok(taken) => taken,
            Err(cause) => return Err(self.note_failure(cause)),
        };
        let (address, generation) = self.publish(&placement, &taken, 0, Kind::SharedBuffer);
        let pointer = self.pointer(address);
        for offset in (0..length).step_by(ZEROES.len()) {
            let bytes = ZEROES.len().min(length - offset);
            // SAFETY: `length` bytes from the address on were taken for this buffer.
            unsafe {
                self.platform
                    .copy_to_pool(pointer.add(offset), ZEROES.as_ptr(), bytes);
            }
        }
        Ok(SharedBuffer {
            address,
            generation,
            pointer,
            length,
        })
    }

    /// Ends the use of shared memory. The caller has made sure that no device uses it any more.
    ///
    /// # Errors
    /// [`UnmapError`] for a buffer of another pool.
    pub fn free_shared(&self, buffer: SharedBuffer) -> Result<(), UnmapError> {
        let SharedBuffer {
            address,
            generation,
            length,
            ..
        } = buffer;
        self.free_expected(&expected(address, length, Some(generation)))
    }

    /// The same for callers that keep the parts of a buffer and not the buffer.
    ///
    /// # Errors
    /// What is wrong with them; nothing has changed then.
    ///
    /// # Safety
    /// No [`SharedBuffer`] object of this memory is used any more.
    pub unsafe fn free_shared_parts(
        &self,
        address: u64,
        length: usize,
        generation: u64,
    ) -> Result<(), UnmapError> {
        self.free_expected(&expected(address, length, Some(generation)))
    }

    /// The same for callers that keep only the address and the length.
    ///
    /// # Errors
    /// What is wrong with them; nothing has changed then.
    ///
    /// # Safety
    /// No [`SharedBuffer`] object of this memory is used any more.
    pub unsafe fn free_shared_address(
        &self,
        address: u64,
        length: usize,
    ) -> Result<(), UnmapError> {
        self.free_expected(&expected(address, length, None))
    }

    fn free_expected(&self, expected: &Expected) -> Result<(), UnmapError> {
        let found = self.find(expected)?;
        if !found.place.record.claim_and_retire(found.seen) {
            return Err(UnmapError::Busy);
        }
        let taken = found.place.taken;
        self.put_room(taken, found.place.reservation, Ended::SharedBuffer);
        Ok(())
    }

    /// Whether an address lies in granted or grantable pool memory: one compare.
    pub const fn contains(&self, address: u64) -> bool {
        self.window.offset_of(address).is_some()
    }
}

const fn expected(address: u64, length: usize, generation: Option<u64>) -> Expected {
    Expected {
        address,
        length: length as u64,
        kind: Kind::SharedBuffer,
        generation,
    }
}
