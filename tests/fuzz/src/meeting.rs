// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads of a test that wait for each other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// Where threads wait for each other. One that fails lets the others fail too, instead of waiting for ever.
#[derive(Debug)]
pub struct Meeting {
    threads: usize,
    /// How many have come, and to which meeting; `None` when somebody has failed.
    state: Mutex<Option<(usize, usize)>>,
    change: Condvar,
}

impl Meeting {
    /// Of so many threads.
    pub fn new(threads: usize) -> Self {
        Self {
            threads,
            state: Mutex::new(Some((0, 0))),
            change: Condvar::new(),
        }
    }

    /// Until all have come.
    ///
    /// # Panics
    /// When another thread has failed.
    pub fn wait(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (come, number) = state.expect("another thread has failed");
        if come + 1 == self.threads {
            *state = Some((0, number + 1));
            self.change.notify_all();
        } else {
            *state = Some((come + 1, number));
            while state.is_some_and(|(_, current)| current == number) {
                state = self
                    .change
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            let failed = state.is_none();
            drop(state);
            assert!(!failed, "another thread has failed");
        }
    }
}

/// Tells the others when its thread fails, and ends what runs while the flag is set.
#[derive(Debug)]
pub struct Attendance<'a>(pub &'a Meeting, pub &'a AtomicBool);

impl Drop for Attendance<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            *self.0.state.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.0.change.notify_all();
            self.1.store(false, Ordering::Relaxed);
        }
    }
}
