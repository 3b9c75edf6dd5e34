// SPDX-License-Identifier: MIT OR Apache-2.0
//! Passing ownership of part of a mapping to and fro without unmapping it.
//!
//! While a context copies, the mapping cannot be unmapped: that gets [`UnmapError::Busy`]. Other syncs of it go on beside it,
//! those of interrupt handlers in its middle too, since a driver's sync has no way to fail.

use crate::allocator::{CacheCounters, Kind};
use crate::claim::Match;
use crate::constraints::Direction;
use crate::error::UnmapError;
use crate::geometry::to_index;
use crate::map::Mapping;
use crate::platform::Platform;
use crate::pool::Pool;

impl<P: Platform> Pool<'_, P> {
    /// Shows the device what the driver has written to `length` bytes at `offset`. Copies where the device reads; a
    /// mapping that the device only writes needs no copy.
    ///
    /// # Errors
    /// [`UnmapError::OutOfRange`] for bytes beyond the mapping, [`UnmapError::Busy`] while another context unmaps it,
    /// [`UnmapError::TooManySyncs`], else what is wrong with the handle.
    pub fn sync_for_device(
        &self,
        mapping: &Mapping,
        offset: u64,
        length: u64,
    ) -> Result<(), UnmapError> {
        let found = self.find_shared(&mapping.expected())?;
        self.sync(
            &found,
            offset,
            length,
            Direction::device_reads,
            Self::copy_in,
        )
    }

    /// Shows the driver what the device has written to `length` bytes at `offset`. Copies where the device writes.
    ///
    /// # Errors
    /// As [`Pool::sync_for_device`].
    pub fn sync_for_cpu(
        &self,
        mapping: &Mapping,
        offset: u64,
        length: u64,
    ) -> Result<(), UnmapError> {
        let found = self.find_shared(&mapping.expected())?;
        self.sync(
            &found,
            offset,
            length,
            Direction::device_writes,
            Self::copy_out,
        )
    }

    /// [`Pool::sync_for_device`] for a caller that has only a device address. The bytes may lie anywhere inside a mapping.
    ///
    /// # Errors
    /// [`UnmapError::UnknownAddress`] where nothing is mapped, [`UnmapError::OutOfRange`] for bytes beyond the mapping.
    pub fn sync_address_for_device(&self, address: u64, length: u64) -> Result<(), UnmapError> {
        let found = self.mapping_around(address)?;
        self.sync(
            &found,
            address - found.address,
            length,
            Direction::device_reads,
            Self::copy_in,
        )
    }

    /// [`Pool::sync_for_cpu`] for a caller that has only a device address. The bytes may lie anywhere inside a mapping.
    ///
    /// # Errors
    /// As [`Pool::sync_address_for_device`].
    pub fn sync_address_for_cpu(&self, address: u64, length: u64) -> Result<(), UnmapError> {
        let found = self.mapping_around(address)?;
        self.sync(
            &found,
            address - found.address,
            length,
            Direction::device_writes,
            Self::copy_out,
        )
    }

    fn mapping_around(&self, address: u64) -> Result<Match<'_>, UnmapError> {
        let found = self.look_up(address, None)?;
        match found.seen.kind() {
            Kind::Mapping(..) => Ok(found),
            _ => Err(UnmapError::WrongDirection),
        }
    }

    fn sync(
        &self,
        found: &Match<'_>,
        offset: u64,
        length: u64,
        copies: impl FnOnce(Direction) -> bool,
        copy: impl FnOnce(&Self, &Match<'_>, u64, u64),
    ) -> Result<(), UnmapError> {
        if offset
            .checked_add(length)
            .is_none_or(|end| end > found.length)
        {
            return Err(UnmapError::OutOfRange);
        }
        if let Kind::Mapping(direction, _) = found.seen.kind()
            && copies(direction)
            && length > 0
        {
            found.share()?;
            copy(self, found, offset, length);
            found.place.record.unshare();
        }
        self.count(|counters| CacheCounters::add(&counters.syncs, 1));
        Ok(())
    }

    /// Copies part of a shared mapping's buffer into the pool. The caller has checked that the part lies in the mapping.
    fn copy_in(&self, found: &Match<'_>, offset: u64, bytes: u64) {
        let buffer = core::ptr::with_exposed_provenance::<u8>(to_index(found.origin + offset));
        let pool = self.pointer(found.address + offset);
        // SAFETY: The share keeps the mapping from being unmapped, so by the contract of `map` its buffer is valid for
        // reads. The part lies in the mapping.
        unsafe { self.platform.copy_to_pool(pool, buffer, to_index(bytes)) };
    }
}
