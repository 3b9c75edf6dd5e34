// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lock of the central store.
//!
//! Taken with interrupts off, so that a map from an interrupt handler never waits for the map it interrupted. Never held
//! across an SVSM call or a copy: a closure that returns is all there is between lock and unlock. Tickets make the wait
//! bounded: a CPU waits for those that came before it and for nobody else.
//!
//! The caches of the CPUs have no such lock; see [`crate::allocator`].

use core::fmt;

use crate::atomic::{AtomicU32, Ordering, ProtectedCell, spin_hint};
use crate::platform::Platform;

/// A fair spin lock that keeps interrupts off while it is held. On cache lines of its own: what lies beside it is read by
/// every map.
#[repr(align(128))]
pub(crate) struct InterruptLock<T> {
    next: AtomicU32,
    serving: AtomicU32,
    value: ProtectedCell<T>,
}

// SAFETY: The ticket protocol lets one context at a time reach the value.
unsafe impl<T: Send> Sync for InterruptLock<T> {}

impl<T> InterruptLock<T> {
    /// An open lock.
    pub fn new(value: T) -> Self {
        Self {
            next: AtomicU32::new(0),
            serving: AtomicU32::new(0),
            value: ProtectedCell::new(value),
        }
    }

    /// Runs `body` with the lock held. `body` must not take the lock again.
    pub fn with<P: Platform, R>(&self, platform: &P, body: impl FnOnce(&mut T) -> R) -> R {
        let saved = platform.interrupts_save();
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        // Acquire: what the holder before wrote is seen.
        while self.serving.load(Ordering::Acquire) != ticket {
            spin_hint();
        }
        let result = self.value.with_mut(|value| {
            // SAFETY: Only the context whose ticket is served comes here, and no other ticket is served until the store
            // below. No interrupt handler can come in between on this CPU, by the platform's contract.
            body(unsafe { &mut *value })
        });
        self.serving
            .store(ticket.wrapping_add(1), Ordering::Release);
        platform.interrupts_restore(saved);
        result
    }
}

impl<T> fmt::Debug for InterruptLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InterruptLock").finish_non_exhaustive()
    }
}
