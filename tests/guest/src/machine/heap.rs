// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory for the block driver's descriptor lists: the only allocations there are.
//!
//! Each request in flight has one list of three descriptors, 48 bytes. A few fixed slots serve them,
//! to all vCPUs; anything else is refused.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

/// Slots, one bit each.
const SLOTS: usize = 64;
/// Bytes of a slot: twice what a list needs.
const SLOT_BYTES: usize = 96;

#[repr(C, align(16))]
struct Slots {
    memory: UnsafeCell<[[u8; SLOT_BYTES]; SLOTS]>,
    used: AtomicU64,
}

// SAFETY: A slot is only handed to whoever set its bit.
unsafe impl Sync for Slots {}

#[global_allocator]
static HEAP: Slots = Slots {
    memory: UnsafeCell::new([[0; SLOT_BYTES]; SLOTS]),
    used: AtomicU64::new(0),
};

// SAFETY: Each slot is handed out once until it is given back; slots are 16-byte aligned, since
// their size is a multiple of 16, and larger requests are refused.
unsafe impl GlobalAlloc for Slots {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > SLOT_BYTES || layout.align() > 16 {
            return core::ptr::null_mut();
        }
        let taken = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                (used != u64::MAX).then(|| used | 1 << used.trailing_ones())
            });
        match taken {
            // SAFETY: `trailing_ones` of a word that is not all ones is below 64.
            Ok(used) => unsafe {
                self.memory
                    .get()
                    .cast::<[u8; SLOT_BYTES]>()
                    .add(used.trailing_ones() as usize)
                    .cast()
            },
            Err(_) => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, _layout: Layout) {
        let offset = (pointer as usize).wrapping_sub(self.memory.get() as usize);
        self.used
            .fetch_and(!(1 << (offset / SLOT_BYTES % SLOTS)), Ordering::AcqRel);
    }
}

const _: () = assert!(SLOT_BYTES.is_multiple_of(16));
