// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unmapping: the bytes the device wrote go to the buffer, the extent is free again.
//!
//! Only private records decide where bytes go and how many (invariant S2). A handle that is wrong in any way is always
//! detected; a bare address is too, unless its slot has been handed out again with equal length and direction.

use crate::allocator::Kind;
use crate::claim::{Expected, Match};
use crate::constraints::{CopyIn, Direction};
use crate::error::UnmapError;
use crate::geometry::{to_index, unit_of};
use crate::map::Mapping;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::room::Ended;

/// How much comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CopyOut {
    /// All of it, or nothing if nothing was copied in.
    Default,
    /// What the driver says the device has written.
    Written(u64),
}

impl<P: Platform> Pool<'_, P> {
    /// Ends a mapping. Where the device writes, all of it is copied to the buffer; a mapping made with
    /// [`CopyIn::DeviceWritten`](crate::CopyIn) copies nothing, because which bytes the device has written is not known.
    ///
    /// # Errors
    /// What is wrong with the handle; nothing has changed then.
    pub fn unmap(&self, mapping: Mapping) -> Result<(), UnmapError> {
        self.end(mapping.expected(), CopyOut::Default)
    }

    /// Ends a mapping of which the device has written the first `written` bytes; only those are copied to the buffer.
    ///
    /// # Errors
    /// [`UnmapError::OutOfRange`] if `written` exceeds the mapping, else as [`Pool::unmap`].
    pub fn unmap_written(&self, mapping: Mapping, written: u64) -> Result<(), UnmapError> {
        self.end(mapping.expected(), CopyOut::Written(written))
    }

    /// Ends the mapping that begins at a device address, for callers that keep nothing else.
    ///
    /// # Errors
    /// As [`Pool::unmap`].
    pub fn unmap_address(
        &self,
        address: u64,
        length: u64,
        direction: Direction,
    ) -> Result<(), UnmapError> {
        self.end(at_address(address, length, direction), CopyOut::Default)
    }

    /// [`Pool::unmap_written`] by device address.
    ///
    /// # Errors
    /// As [`Pool::unmap_written`].
    pub fn unmap_address_written(
        &self,
        address: u64,
        length: u64,
        direction: Direction,
        written: u64,
    ) -> Result<(), UnmapError> {
        self.end(
            at_address(address, length, direction),
            CopyOut::Written(written),
        )
    }

    /// What is rarely needed goes to functions by value: only what nobody points to stays in registers here.
    #[inline(always)]
    fn end(&self, expected: Expected, copy_out: CopyOut) -> Result<(), UnmapError> {
        if let Some(found) = self.find_slot(&expected) {
            return self.finish(&found, copy_out);
        }
        if let Some(found) = self.find_extent(&expected) {
            return self.finish(&found, copy_out);
        }
        self.end_any(expected, copy_out)
    }

    /// The same for what is neither, or not what the caller says.
    #[inline(never)]
    fn end_any(&self, expected: Expected, copy_out: CopyOut) -> Result<(), UnmapError> {
        let found = self.find(&expected)?;
        self.finish(&found, copy_out)
    }

    #[inline(always)]
    fn finish(&self, found: &Match<'_>, copy_out: CopyOut) -> Result<(), UnmapError> {
        let bytes = match (copy_out, found.seen.kind()) {
            (CopyOut::Written(written), _) if written > found.length => {
                return Err(UnmapError::OutOfRange);
            }
            (CopyOut::Written(written), Kind::Mapping(direction, _))
                if direction.device_writes() =>
            {
                written
            }
            (CopyOut::Default, Kind::Mapping(direction, CopyIn::Keep))
                if direction.device_writes() =>
            {
                found.length
            }
            _ => 0,
        };
        let record = found.place.record;
        if bytes == 0 {
            if !record.claim_and_retire(found.seen) {
                return Err(UnmapError::Busy);
            }
        } else {
            found.claim()?;
            self.copy_out(found, 0, bytes);
            record.retire(found.seen);
        }
        let taken = found.place.taken;
        let begins_in = unit_of(found.address - self.window.base());
        if begins_in != unit_of(taken.offset()) && !taken.is_small() {
            self.shared.tables.keep_generation(taken, begins_in);
        }
        self.put_room(taken, found.place.reservation, Ended::Mapping(bytes));
        Ok(())
    }

    /// Copies part of a claimed or shared mapping to its buffer. The caller has checked that the part lies in the mapping.
    pub(crate) fn copy_out(&self, found: &Match<'_>, offset: u64, bytes: u64) {
        let buffer = core::ptr::with_exposed_provenance_mut::<u8>(to_index(found.origin + offset));
        let pool = self.pointer(found.address + offset);
        // SAFETY: The claim or the share keeps the mapping from being unmapped, so by the contract of `map` its buffer is
        // valid for writes, and no other context writes these bytes of it. The part lies in the mapping.
        unsafe { self.platform.copy_from_pool(buffer, pool, to_index(bytes)) };
    }
}

impl Mapping {
    pub(crate) const fn expected(&self) -> Expected {
        Expected {
            address: self.address,
            length: self.length,
            kind: Kind::Mapping(self.direction, CopyIn::Keep),
            generation: Some(self.generation),
        }
    }
}

const fn at_address(address: u64, length: u64, direction: Direction) -> Expected {
    Expected {
        address,
        length,
        kind: Kind::Mapping(direction, CopyIn::Keep),
        generation: None,
    }
}
