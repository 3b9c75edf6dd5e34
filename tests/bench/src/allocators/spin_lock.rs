// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lock of the allocators that are compared with: a flag, without anything a kernel would add.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag. It takes one byte, so several may share a cache line.
#[derive(Debug, Default)]
pub struct SpinLock(AtomicBool);

impl SpinLock {
    /// A free lock.
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Runs something while nobody else runs something under this lock.
    #[inline]
    pub fn with<R>(&self, body: impl FnOnce() -> R) -> R {
        let (taken, free) = (Ordering::Acquire, Ordering::Relaxed);
        while self
            .0
            .compare_exchange_weak(false, true, taken, free)
            .is_err()
        {
            spin_loop();
        }
        let result = body();
        self.0.store(false, Ordering::Release);
        result
    }
}
