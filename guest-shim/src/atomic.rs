// SPDX-License-Identifier: MIT OR Apache-2.0
//! The atomics that private state is made of.
//!
//! `core`'s, but for two kinds of test. Under `cfg(loom)` they are loom's, which explores every order of accesses that
//! the memory model allows. In unit tests they are `core`'s with a hook in front of each access, so that a test can
//! interrupt an operation at every one of its atomic steps (`tests/interrupted.rs`).

#[cfg(not(any(loom, test)))]
pub(crate) use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};
#[cfg(all(test, not(loom)))]
pub(crate) use stepped::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

pub(crate) use core::sync::atomic::Ordering;

/// A cell that a protocol of atomics protects.
#[derive(Debug)]
pub(crate) struct ProtectedCell<T>(
    #[cfg(not(loom))] core::cell::UnsafeCell<T>,
    #[cfg(loom)] loom::cell::UnsafeCell<T>,
);

impl<T> ProtectedCell<T> {
    /// A cell with this value.
    pub fn new(value: T) -> Self {
        #[cfg(not(loom))]
        return Self(core::cell::UnsafeCell::new(value));
        #[cfg(loom)]
        return Self(loom::cell::UnsafeCell::new(value));
    }

    /// Gives access to the value; loom checks that nobody else has access at the same time.
    pub fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        #[cfg(not(loom))]
        return access(self.0.get());
        #[cfg(loom)]
        return self.0.with_mut(access);
    }
}

/// Says to the processor, and to loom's scheduler, that a spin waits for somebody else.
pub(crate) fn spin_hint() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    core::hint::spin_loop();
}

/// Atomics that tell a hook before each access.
#[cfg(all(test, not(loom)))]
pub(crate) mod stepped {
    use core::cell::Cell;
    use core::sync::atomic::{self, Ordering};

    std::thread_local! {
        static HOOK: Cell<Option<fn()>> = const { Cell::new(None) };
    }

    /// Calls `hook` before every access of this thread from now on.
    pub fn set_hook(hook: Option<fn()>) {
        HOOK.set(hook);
    }

    fn step() {
        if let Some(hook) = HOOK.get() {
            hook();
        }
    }

    macro_rules! stepped {
        ($name:ident, $value:ty) => {
            #[derive(
                Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout,
            )]
            #[repr(transparent)]
            pub struct $name(atomic::$name);

            #[expect(dead_code, reason = "not every width needs every access")]
            impl $name {
                pub const fn new(value: $value) -> Self {
                    Self(atomic::$name::new(value))
                }

                pub fn load(&self, order: Ordering) -> $value {
                    step();
                    self.0.load(order)
                }

                pub fn store(&self, value: $value, order: Ordering) {
                    step();
                    self.0.store(value, order);
                }

                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    step();
                    self.0.swap(value, order)
                }

                pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                    step();
                    self.0.fetch_add(value, order)
                }

                pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                    step();
                    self.0.fetch_sub(value, order)
                }

                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    step();
                    self.0.compare_exchange(current, new, success, failure)
                }
            }
        };
    }

    stepped!(AtomicU8, u8);
    stepped!(AtomicU16, u16);
    stepped!(AtomicU32, u32);
    stepped!(AtomicU64, u64);
}
