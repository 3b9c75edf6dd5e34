// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one lock: which CPU handles an exit.
//!
//! Whoever sees it open takes it. A queue would be fair, and slow where QEMU's threads share few
//! processors: the lock would wait for a CPU whose thread does not run. No CPU starves, because
//! each one runs its guest between two exits.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

/// Looks at the lock before each PAUSE: QEMU leaves its execution loop for PAUSE, which takes
/// longer than most exits, but lets its other processors run where one thread serves all.
const LOOKS: u32 = 256;

/// A value that one CPU uses at a time.
#[derive(Debug)]
pub struct Lock<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a guard only, and there is one guard at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// An open lock.
    pub const fn new(value: T) -> Self {
        Self {
            taken: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits for this CPU's turn.
    pub fn lock(&self) -> Guard<'_, T> {
        while self.taken.swap(true, Ordering::SeqCst) {
            if !(0..LOOKS).any(|_| !self.taken.load(Ordering::Relaxed)) {
                spin_loop();
            }
        }
        Guard(self)
    }
}

/// The CPU's turn; ends when dropped.
#[derive(Debug)]
pub struct Guard<'a, T>(&'a Lock<T>);

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one, and it is borrowed exclusively.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::SeqCst);
    }
}
