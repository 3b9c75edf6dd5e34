// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments from C: pointers that may be null or misaligned become errors before anything is read or written.

use crate::error::Error;

/// A structure the caller passes.
///
/// # Safety
/// A pointer that is neither null nor misaligned points to an initialised `T` that nothing changes during the call.
pub(crate) unsafe fn input<'a, T>(pointer: *const T) -> Result<&'a T, Error> {
    if !pointer.is_aligned() {
        return Err(Error::InvalidArgument);
    }
    // SAFETY: Aligned, and either null or valid by the caller's contract.
    unsafe { pointer.as_ref() }.ok_or(Error::InvalidArgument)
}

/// A place for a result. Checked before the work is done, so that no result is lost; written after it has succeeded.
#[derive(Debug)]
pub(crate) struct Output<T>(*mut T);

impl<T> Output<T> {
    /// # Errors
    /// [`Error::InvalidArgument`] for a null or misaligned pointer.
    pub(crate) fn required(pointer: *mut T) -> Result<Self, Error> {
        if pointer.is_null() {
            return Err(Error::InvalidArgument);
        }
        Self::optional(pointer)
    }

    /// The same where null means that the caller does not want the result.
    pub(crate) fn optional(pointer: *mut T) -> Result<Self, Error> {
        if pointer.is_aligned() {
            Ok(Self(pointer))
        } else {
            Err(Error::InvalidArgument)
        }
    }

    /// # Safety
    /// The pointer is null or valid for writes of a `T`.
    pub(crate) unsafe fn set(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: Not null, aligned, and valid for writes by the caller's contract.
            unsafe { self.0.write(value) };
        }
    }
}
