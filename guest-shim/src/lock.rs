// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lock of the pool's private state.
//!
//! Taken with interrupts off, so that a map from an interrupt handler never waits for the map it interrupted. Never held
//! across an SVSM call or a copy: a closure that returns is all there is between lock and unlock.

use spin::mutex::SpinMutex;

use crate::platform::Platform;

/// A spin lock that keeps interrupts off while it is held.
#[derive(Debug)]
pub(crate) struct InterruptLock<T>(SpinMutex<T>);

impl<T> InterruptLock<T> {
    pub const fn new(value: T) -> Self {
        Self(SpinMutex::new(value))
    }

    /// Runs `body` with the lock held.
    pub fn with<P: Platform, R>(&self, platform: &P, body: impl FnOnce(&mut T) -> R) -> R {
        let saved = platform.interrupts_save();
        let result = body(&mut self.0.lock());
        platform.interrupts_restore(saved);
        result
    }
}
