// SPDX-License-Identifier: MIT OR Apache-2.0
//! Passing ownership of part of a mapping to and fro without unmapping it.

use crate::allocator::Claim;
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
    /// [`UnmapError::OutOfRange`] for bytes beyond the mapping, else what is wrong with the handle.
    pub fn sync_for_device(
        &self,
        mapping: &Mapping,
        offset: u64,
        length: u64,
    ) -> Result<(), UnmapError> {
        self.sync(
            mapping,
            offset,
            length,
            mapping.direction.device_reads(),
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
        self.sync(
            mapping,
            offset,
            length,
            mapping.direction.device_writes(),
            Self::copy_out,
        )
    }

    fn sync(
        &self,
        mapping: &Mapping,
        offset: u64,
        length: u64,
        copies: bool,
        copy: impl FnOnce(&Self, &Claim, u64, u64),
    ) -> Result<(), UnmapError> {
        let claim = self.with_state(|state| {
            let claim = state.allocator.claim(&mapping.expected())?;
            if offset
                .checked_add(length)
                .is_none_or(|end| end > claim.length)
            {
                state.allocator.unclaim(claim);
                return Err(UnmapError::OutOfRange);
            }
            Ok(claim)
        })?;
        if copies {
            copy(self, &claim, offset, length);
        }
        self.with_state(|state| {
            state.allocator.unclaim(claim);
            state.counters.syncs += 1;
        });
        Ok(())
    }

    /// Copies part of a claimed mapping's buffer into the pool. The caller has checked that the part lies in the mapping.
    fn copy_in(&self, claim: &Claim, offset: u64, bytes: u64) {
        let buffer = core::ptr::with_exposed_provenance::<u8>(to_index(claim.origin + offset));
        let pool = self.pointer(claim.address + offset);
        // SAFETY: The claim keeps the mapping from being unmapped, so by the contract of `map` its buffer is valid for
        // reads. The part lies in the mapping.
        unsafe { self.platform.copy_to_pool(pool, buffer, to_index(bytes)) };
    }
}
