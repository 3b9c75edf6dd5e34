// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lock for what the vCPUs of the guest share: the console, and each other's work.
//!
//! Interrupts are off for ever, so the holder always goes on.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

/// The lock and what it protects.
#[derive(Debug)]
pub struct SpinLock<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: The value is reached by the holder only, one at a time.
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Self {
            held: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Guard<'_, T> {
        loop {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            spin_loop();
        }
    }

    /// Waits for at most `tries` looks: for whoever may have been interrupted with the lock held.
    pub fn lock_within(&self, tries: u32) -> Option<Guard<'_, T>> {
        (0..tries).find_map(|_| {
            spin_loop();
            self.try_lock()
        })
    }

    fn try_lock(&self) -> Option<Guard<'_, T>> {
        let free = !self.held.load(Ordering::Relaxed);
        (free && !self.held.swap(true, Ordering::Acquire)).then_some(Guard { lock: self })
    }
}

/// Access to the value; free again when this is dropped.
#[derive(Debug)]
pub struct Guard<'a, T> {
    lock: &'a SpinLock<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: This is the only guard.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: This is the only guard.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.lock.held.store(false, Ordering::Release);
    }
}
