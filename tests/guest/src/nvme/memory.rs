// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the driver needs from the pool.

use guest_shim::SharedBuffer;

use super::NvmeError;

/// Memory that driver and controller share.
pub trait SharedMemory {
    /// The address for the controller, page aligned.
    fn address(&self) -> u64;
    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// [`NvmeError::Memory`] beyond the end.
    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), NvmeError>;
    /// Copies bytes out, each read once.
    ///
    /// # Errors
    /// [`NvmeError::Memory`] beyond the end.
    fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), NvmeError>;
}

impl SharedMemory for SharedBuffer {
    fn address(&self) -> u64 {
        self.address()
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), NvmeError> {
        self.write(offset, bytes).map_err(|_| NvmeError::Memory)
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), NvmeError> {
        self.read(offset, bytes).map_err(|_| NvmeError::Memory)
    }
}

/// Hands shared memory out.
pub trait SharedAllocator {
    /// A piece of it.
    type Memory: SharedMemory;
    /// `bytes` bytes, zeroed, page aligned.
    fn allocate(&self, bytes: usize) -> Option<Self::Memory>;
    /// Takes memory back that the controller uses no more.
    fn free(&self, memory: Self::Memory);
}

/// The data buffers of the requests, by slot.
pub trait DataBuffers {
    /// Makes the first `bytes` bytes of a slot's buffer reachable for the controller, which writes
    /// them; the address has the low 12 bits of the buffer's.
    fn map(&mut self, slot: usize, bytes: u64) -> Option<u64>;
    /// Ends that. `written`: the controller has written all of it, and the bytes go to the buffer.
    fn unmap(&mut self, slot: usize, written: bool) -> bool;
}
