// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pools of one attachment: which of them serves a device, and whose an address is.
//!
//! A device that reaches all of the first window gets its memory there; any other one from the other window, which an
//! integrator places below 4 GiB for that. Nothing spills over: the low window is small and the only memory of the devices that
//! need it, so a mapping that the first window has no room for fails as it does where there is no other.

use core::ptr::NonNull;

use crate::constraints::{Constraints, CopyIn, Direction};
use crate::error::{MapError, UnmapError};
use crate::maintenance::GivenBack;
use crate::map::Mapping;
use crate::orphans::ListPage;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::shared_buffer::SharedBuffer;

/// One or two pools of the same attachment.
///
/// A driver whose device never changes asks once, by [`Windows::reaching`], and keeps the pool.
#[derive(Debug)]
pub struct Windows<'p, 'a, P: Platform> {
    first: &'p Pool<'a, P>,
    other: Option<&'p Pool<'a, P>>,
}

// Not derived: that asks the same of `P`.
impl<P: Platform> Clone for Windows<'_, '_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Platform> Copy for Windows<'_, '_, P> {}

impl<'p, 'a, P: Platform> Windows<'p, 'a, P> {
    /// The first window alone, or beside the one of [`Pool::attach_beside`].
    pub const fn new(first: &'p Pool<'a, P>, other: Option<&'p Pool<'a, P>>) -> Self {
        Self { first, other }
    }

    /// The pool for a device that reaches no address above `highest_address`: the first if the device reaches all of it, else the
    /// one whose window lies lower. A device that reaches only part of that gets what it reaches, or a named cause.
    #[inline]
    pub fn reaching(&self, highest_address: u64) -> &'p Pool<'a, P> {
        match self.other {
            Some(other) if !self.first.window().ends_at_or_below(highest_address) => {
                if other.window().base() < self.first.window().base() {
                    other
                } else {
                    self.first
                }
            }
            _ => self.first,
        }
    }

    /// The pool in whose window a device address lies.
    #[inline]
    pub fn holding(&self, address: u64) -> Option<&'p Pool<'a, P>> {
        if self.first.contains(address) {
            return Some(self.first);
        }
        self.other.filter(|other| other.contains(address))
    }

    /// Whether a device address lies in one of the windows.
    #[inline]
    pub fn contains(&self, address: u64) -> bool {
        self.holding(address).is_some()
    }

    /// [`Pool::map`], in the window that [`Constraints::highest_address`] chooses.
    ///
    /// # Errors
    /// As [`Pool::map`].
    ///
    /// # Safety
    /// As for [`Pool::map`].
    #[inline]
    pub unsafe fn map(
        &self,
        buffer: NonNull<[u8]>,
        direction: Direction,
        copy_in: CopyIn,
        constraints: &Constraints,
    ) -> Result<Mapping, MapError> {
        let pool = self.reaching(constraints.highest_address);
        // SAFETY: The caller's contract.
        unsafe { pool.map(buffer, direction, copy_in, constraints) }
    }

    /// [`Pool::unmap`] where the mapping lies.
    ///
    /// # Errors
    /// As [`Pool::unmap`].
    #[inline]
    pub fn unmap(&self, mapping: Mapping) -> Result<(), UnmapError> {
        self.at(mapping.address())?.unmap(mapping)
    }

    /// [`Pool::unmap_written`] where the mapping lies.
    ///
    /// # Errors
    /// As [`Pool::unmap_written`].
    #[inline]
    pub fn unmap_written(&self, mapping: Mapping, written: u64) -> Result<(), UnmapError> {
        self.at(mapping.address())?.unmap_written(mapping, written)
    }

    /// [`Pool::unmap_address`] where the mapping lies.
    ///
    /// # Errors
    /// As [`Pool::unmap_address`].
    #[inline]
    pub fn unmap_address(
        &self,
        address: u64,
        length: u64,
        direction: Direction,
    ) -> Result<(), UnmapError> {
        self.at(address)?.unmap_address(address, length, direction)
    }

    /// [`Pool::sync_address_for_device`] where the mapping lies.
    ///
    /// # Errors
    /// As [`Pool::sync_address_for_device`].
    #[inline]
    pub fn sync_address_for_device(&self, address: u64, length: u64) -> Result<(), UnmapError> {
        self.at(address)?.sync_address_for_device(address, length)
    }

    /// [`Pool::sync_address_for_cpu`] where the mapping lies.
    ///
    /// # Errors
    /// As [`Pool::sync_address_for_cpu`].
    #[inline]
    pub fn sync_address_for_cpu(&self, address: u64, length: u64) -> Result<(), UnmapError> {
        self.at(address)?.sync_address_for_cpu(address, length)
    }

    /// [`Pool::alloc_shared_within`], in the window that [`Constraints::highest_address`] chooses.
    ///
    /// # Errors
    /// As [`Pool::alloc_shared_within`].
    pub fn alloc_shared_within(
        &self,
        length: usize,
        constraints: &Constraints,
    ) -> Result<SharedBuffer, MapError> {
        self.reaching(constraints.highest_address)
            .alloc_shared_within(length, constraints)
    }

    /// [`Pool::free_shared`] where the memory lies.
    ///
    /// # Errors
    /// As [`Pool::free_shared`].
    pub fn free_shared(&self, buffer: SharedBuffer) -> Result<(), UnmapError> {
        self.at(buffer.address())?.free_shared(buffer)
    }

    /// [`Pool::release_orphans`], after which either pool may grow, whatever was refused before.
    ///
    /// # Errors
    /// As [`Pool::release_orphans`].
    pub fn release_orphans(&self, page: &impl ListPage) -> Result<GivenBack, MapError> {
        let given = self.first.release_orphans(page)?;
        if let Some(other) = self.other {
            other.may_grow_again();
        }
        Ok(given)
    }

    #[inline]
    fn at(&self, address: u64) -> Result<&'p Pool<'a, P>, UnmapError> {
        self.holding(address).ok_or(UnmapError::UnknownAddress)
    }
}
