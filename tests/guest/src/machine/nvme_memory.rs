// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pool as the NVMe driver sees it.

use core::ptr::NonNull;

use guest_shim::virtio::GlobalPool;
use guest_shim::{Constraints, CopyIn, Direction, Mapping, SharedBuffer};
use test_guest::nvme::PAGE_BYTES;
use test_guest::nvme::memory::{DataBuffers, SharedAllocator};
use test_guest::request_plan::MAX_DEPTH;

use super::calling::{BLOCKS, GuestPool};
use super::memory::Buffers;

/// An NVMe controller reads addresses page by page: the low bits of a mapping are its buffer's.
const CONSTRAINTS: Constraints = Constraints {
    min_align_mask: PAGE_BYTES as u64 - 1,
    ..Constraints::NONE
};

/// Queues and lists.
#[derive(Debug, Clone, Copy)]
pub struct PoolMemory;

impl SharedAllocator for PoolMemory {
    type Memory = SharedBuffer;

    fn allocate(&self, bytes: usize) -> Option<SharedBuffer> {
        GuestPool::pool()
            .alloc_shared(bytes, PAGE_BYTES as u64)
            .ok()
    }

    fn free(&self, memory: SharedBuffer) {
        // A buffer of this pool, so the pool takes it.
        let _ = GuestPool::pool().free_shared(memory);
    }
}

/// Data of the requests in flight.
#[derive(Debug)]
pub struct Bounced {
    buffers: Buffers,
    mappings: [Option<Mapping>; MAX_DEPTH],
}

impl Bounced {
    /// Over these buffers.
    pub const fn new(buffers: Buffers) -> Self {
        Self {
            buffers,
            mappings: [None; MAX_DEPTH],
        }
    }
}

impl DataBuffers for Bounced {
    fn map(&mut self, slot: usize, bytes: u64) -> Option<u64> {
        let bytes = usize::try_from(bytes).ok()?;
        let place = self.mappings.get_mut(slot)?;
        let (direction, copy_in) = (Direction::FromDevice, CopyIn::DeviceWritten);
        // SAFETY: The slot has no mapping while a pass starts a request on it, and its buffer is
        // not touched until `unmap`.
        let mapping = unsafe {
            let buffer = NonNull::from(self.buffers.slot(slot, bytes));
            let pool = GuestPool::pool();
            match BLOCKS.get() {
                Some(blocks) => pool.map_reserved(blocks, buffer, direction, copy_in, &CONSTRAINTS),
                None => pool.map(buffer, direction, copy_in, &CONSTRAINTS),
            }
        };
        let mapping = mapping.ok()?;
        *place = Some(mapping);
        Some(mapping.address())
    }

    fn unmap(&mut self, slot: usize, written: bool) -> bool {
        let Some(mapping) = self.mappings.get_mut(slot).and_then(Option::take) else {
            return false;
        };
        let bytes = if written { mapping.length() } else { 0 };
        GuestPool::pool().unmap_written(mapping, bytes).is_ok()
    }
}
