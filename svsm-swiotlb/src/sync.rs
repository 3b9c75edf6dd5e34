// SPDX-License-Identifier: MIT OR Apache-2.0
//! The atomics of chunk records, page states, accounts, session and trace, which the model checker replaces (`make test-loom`).

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
