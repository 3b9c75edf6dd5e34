// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an unmap, sync or free has to agree with: the private record of what was handed out.
//!
//! Whoever ends a mapping claims the record first, and whoever syncs it shares it. An unmap while another context syncs is
//! refused, and so is a sync while another one unmaps, so a buffer is never written after its unmap has returned. Syncs do
//! not keep each other off.

use crate::allocator::{Kind, NotShared, Place, State, Taken, Use};
use crate::error::UnmapError;
use crate::geometry::UNIT_BYTES;
use crate::platform::Platform;
use crate::pool::Pool;

/// Looks at a place that changes between two looks.
const LOOKUPS: u32 = 8;

/// What the caller says was handed out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Address of the first byte.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
    /// Mapping or shared buffer; the copy-in attribute does not matter.
    pub kind: Kind,
    /// Generation, for a handle; `None` for a bare address.
    pub generation: Option<u64>,
}

/// What was found where the caller says, handed out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Match<'a> {
    pub place: Place<'a>,
    /// The state to claim it in.
    pub seen: State,
    /// Address of the first byte in the pool.
    pub address: u64,
    /// Address of the driver's buffer.
    pub origin: u64,
    /// Length in bytes.
    pub length: u64,
}

impl<'a, P: Platform> Pool<'a, P> {
    /// Compares what the caller says with the record, for somebody who ends it.
    ///
    /// # Errors
    /// The first thing that differs, or that a sync is copying it; nothing has changed.
    #[inline]
    pub(crate) fn find(&self, expected: &Expected) -> Result<Match<'a>, UnmapError> {
        let found = self.find_shared(expected)?;
        if found.seen.is_idle() {
            Ok(found)
        } else {
            Err(UnmapError::Busy)
        }
    }

    /// The same for a sync: others may be copying it.
    ///
    /// # Errors
    /// The first thing that differs; nothing has changed.
    #[inline]
    pub(crate) fn find_shared(&self, expected: &Expected) -> Result<Match<'a>, UnmapError> {
        let found = self.look_up(expected.address, expected.generation)?;
        if found.address != expected.address {
            return Err(UnmapError::UnknownAddress);
        }
        if found.length != expected.length {
            return Err(UnmapError::WrongLength);
        }
        if !found.seen.kind().matches(expected.kind) {
            return Err(UnmapError::WrongDirection);
        }
        Ok(found)
    }

    /// The slot that is handed out as the caller says; `None` for everything else, be it right or wrong.
    #[inline(always)]
    pub(crate) fn find_slot(&self, expected: &Expected) -> Option<Match<'a>> {
        let offset = self.window.offset_of(expected.address)?;
        let (class, slot, record, seen) = self.shared.tables.slot_at(offset)?;
        let origin = record.origin();
        let same = seen.is_live(expected.kind, expected.length)
            && slot.offset + origin.low_bits() == offset
            && expected
                .generation
                .is_none_or(|generation| generation == seen.generation());
        same.then_some(Match {
            place: Place {
                taken: Taken::Slot(class, slot),
                record,
                reservation: 0,
            },
            seen,
            address: expected.address,
            origin: origin.address(),
            length: expected.length,
        })
    }

    /// The same for an extent, by an address in its first unit.
    #[inline(always)]
    pub(crate) fn find_extent(&self, expected: &Expected) -> Option<Match<'a>> {
        let offset = self.window.offset_of(expected.address)?;
        let tables = &self.shared.tables;
        let (extent, reservation, record, seen) = tables.extent_at(offset)?;
        let length = tables.extent_length(extent.first);
        let origin = record.origin();
        let same = seen.is_idle()
            && seen.extra() == 0
            && seen.kind().matches(expected.kind)
            && length == expected.length
            && origin.low_bits() == offset % UNIT_BYTES
            && expected
                .generation
                .is_none_or(|generation| generation == seen.generation());
        same.then_some(Match {
            place: Place {
                taken: Taken::Extent(extent),
                record,
                reservation,
            },
            seen,
            address: expected.address,
            origin: origin.address(),
            length,
        })
    }

    /// What is handed out round an address, which may lie anywhere inside it.
    ///
    /// # Errors
    /// Nothing is, or not any more, or another context is ending it.
    #[inline]
    pub(crate) fn look_up(
        &self,
        address: u64,
        generation: Option<u64>,
    ) -> Result<Match<'a>, UnmapError> {
        let offset = self.window.offset_of(address);
        let offset = offset.ok_or(UnmapError::UnknownAddress)?;
        let tables = &self.shared.tables;
        let mut tries = 0;
        let (place, seen, (begin, length)) = loop {
            let Some(place) = tables.place_at(offset) else {
                return Err(why_nothing(tables.last_here(offset), generation));
            };
            let seen = place.record.state();
            let mapped = tables.mapped(&place, seen);
            if tables.is_current(&place, offset) {
                break (place, seen, mapped);
            }
            // What lies round the address is changing, or a neighbour is that a hint led to.
            tries += 1;
            if tries == LOOKUPS {
                return Err(UnmapError::Busy);
            }
        };
        // A handle is compared by generation before anything else: whatever is handed out here now, an old handle is
        // stale.
        if let Some(generation) = generation
            && generation != seen.generation()
        {
            let given_back_last = seen.generation() == generation.wrapping_add(1);
            return Err(if given_back_last && seen.usage() == Use::Free {
                UnmapError::AlreadyUnmapped
            } else {
                UnmapError::StaleHandle
            });
        }
        match seen.usage() {
            Use::Live(_) => {}
            Use::Claimed => return Err(UnmapError::Busy),
            Use::Free if seen.kind() == Kind::Nothing => return Err(UnmapError::UnknownAddress),
            Use::Free => return Err(UnmapError::AlreadyUnmapped),
        }
        if offset.wrapping_sub(begin) >= length {
            return Err(UnmapError::UnknownAddress);
        }
        Ok(Match {
            place,
            seen,
            address: self.window.base() + begin,
            origin: place.record.origin().address(),
            length,
        })
    }
}

/// Nothing is handed out where the caller says: why it may think so. `last` is the record of the unit, which knows of the
/// slots and extents that began there.
fn why_nothing(last: Option<State>, generation: Option<u64>) -> UnmapError {
    let last = last.filter(|last| last.kind() != Kind::Nothing);
    match (last, generation) {
        (Some(last), Some(generation)) if last.generation() == generation.wrapping_add(1) => {
            UnmapError::AlreadyUnmapped
        }
        (_, Some(_)) => UnmapError::StaleHandle,
        (Some(_), None) => UnmapError::AlreadyUnmapped,
        (None, None) => UnmapError::UnknownAddress,
    }
}

impl Match<'_> {
    /// Makes the caller the only one that may copy or free. The record is compared once more, so what was read is what
    /// is claimed.
    ///
    /// # Errors
    /// [`UnmapError::Busy`] when another context was faster.
    #[inline]
    pub(crate) fn claim(&self) -> Result<(), UnmapError> {
        if self.place.record.claim(self.seen) {
            Ok(())
        } else {
            Err(UnmapError::Busy)
        }
    }

    /// Keeps it from being ended until the caller has copied.
    ///
    /// # Errors
    /// [`UnmapError::Busy`] when another context ends it, [`UnmapError::TooManySyncs`].
    #[inline]
    pub(crate) fn share(&self) -> Result<(), UnmapError> {
        self.place
            .record
            .share(self.seen)
            .map_err(|cause| match cause {
                NotShared::Gone => UnmapError::Busy,
                NotShared::TooMany => UnmapError::TooManySyncs,
            })
    }
}
