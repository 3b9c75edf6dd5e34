// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mapping a buffer: room in the pool, the buffer's bytes in it, and the address for the device.

use core::ptr::NonNull;

use crate::allocator::{
    CacheCounters, ClassIndex, Kind, Origin, Placement, Start, Taken, is_plain,
};
use crate::constraints::{Constraints, CopyIn, Direction};
use crate::error::MapError;
use crate::geometry::{UNIT_BYTES, unit_of};
use crate::platform::Platform;
use crate::pool::Pool;
use crate::reservation::Reservation;

/// A buffer that a device can reach.
///
/// A plain value, as a driver's queue keeps it. Using one again after its unmap is an error that is always detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub(crate) address: u64,
    pub(crate) length: u64,
    pub(crate) generation: u64,
    pub(crate) direction: Direction,
}

impl Mapping {
    /// A handle put together again by a caller that has kept its parts. It proves nothing: unmap and sync compare it
    /// with the private record.
    pub const fn from_parts(
        address: u64,
        length: u64,
        direction: Direction,
        generation: u64,
    ) -> Self {
        Self {
            address,
            length,
            generation,
            direction,
        }
    }

    /// The address to give to the device: a guest physical address in the window, without the C-bit.
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// Length in bytes.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Who writes.
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// How often something had been given back at the same place before: what tells this mapping from others there.
    pub const fn generation(&self) -> u64 {
        self.generation
    }
}

impl<P: Platform> Pool<'_, P> {
    /// Makes a buffer reachable for a device. Copies exactly the buffer's bytes into the pool where the direction or
    /// `copy_in` asks for it.
    ///
    /// Calls the service only to grow.
    ///
    /// # Errors
    /// A named cause, see [`MapError`]; nothing is mapped then, though the pool may have grown.
    ///
    /// # Safety
    /// Until the mapping is unmapped the buffer stays valid: for reads, and for writes too unless the direction is
    /// [`Direction::ToDevice`]. Nothing else writes to it while this function, a sync or an unmap of the mapping runs. Syncs
    /// of the mapping may run at the same time; those that copy to the buffer name bytes that do not overlap then.
    #[inline(always)]
    pub unsafe fn map(
        &self,
        buffer: NonNull<[u8]>,
        direction: Direction,
        copy_in: CopyIn,
        constraints: &Constraints,
    ) -> Result<Mapping, MapError> {
        let kind = Kind::Mapping(direction, copy_in);
        let valid = copy_in == CopyIn::Keep || !direction.device_reads();
        // What nearly every request is: no constraints, and a slot that this CPU has freed before.
        if valid
            && is_plain(&self.window, constraints)
            && let Some((offset, generation)) = self.map_hot(buffer, kind)
        {
            let address = self.window.base() + offset;
            // SAFETY: The caller's contract.
            unsafe { self.fill(buffer, address, copy_in) };
            return Ok(Mapping {
                address,
                length: buffer.len() as u64,
                generation,
                direction,
            });
        }
        // SAFETY: The caller's contract.
        unsafe { self.map_placed(buffer, direction, copy_in, constraints) }
    }

    /// A mapping out of this CPU's cache, without its bytes: offset in the window and generation.
    #[inline(always)]
    fn map_hot(&self, buffer: NonNull<[u8]>, kind: Kind) -> Option<(u64, u64)> {
        let length = buffer.len() as u64;
        let tables = &self.shared.tables;
        let origin = Origin::of(origin_of(buffer), 0);
        if let Some(class) = ClassIndex::for_length(length) {
            let held = self.shared.hold(self.platform.cpu())?;
            let (class, slot) = match held.pop(class) {
                Some(slot) => (class, slot),
                None if self.shared.is_exhausted(class) => {
                    let larger = class.whole()?;
                    (larger, held.pop(larger)?)
                }
                None => return None,
            };
            count_map(
                held.counters(),
                u64::from(class.class().size),
                kind.bytes_in(length),
            );
            drop(held);
            // Below 2^14, as no slot is longer.
            let extra = u16::try_from(length - 1).unwrap_or(0);
            let generation = tables.record(slot.record)?.publish(origin, kind, extra);
            Some((slot.offset, generation))
        } else {
            let units = length.div_ceil(UNIT_BYTES);
            let units = u32::try_from(units).ok().filter(|units| *units > 0)?;
            let held = self.shared.hold(self.platform.cpu())?;
            let extent = held.pop_extent(units, Start::ANY)?;
            let taken = Taken::Extent(extent);
            count_map(held.counters(), taken.bytes(), kind.bytes_in(length));
            drop(held);
            tables.set_extent_length(extent, length);
            let generation = tables.record(taken.record())?.publish(origin, kind, 0);
            Some((taken.offset(), generation))
        }
    }

    /// The same for every other request.
    ///
    /// # Safety
    /// As for [`Pool::map`].
    #[inline(never)]
    unsafe fn map_placed(
        &self,
        buffer: NonNull<[u8]>,
        direction: Direction,
        copy_in: CopyIn,
        constraints: &Constraints,
    ) -> Result<Mapping, MapError> {
        let kind = Kind::Mapping(direction, copy_in);
        let copied = kind.bytes_in(buffer.len() as u64);
        let taken = self
            .place(buffer, direction, copy_in, constraints)
            .and_then(|placement| {
                let taken = self.take_room(&placement, |counters, taken| {
                    count_map(counters, taken.bytes(), copied);
                })?;
                Ok((placement, taken))
            });
        match taken {
            Ok((placement, taken)) => {
                // SAFETY: The caller's contract.
                Ok(unsafe { self.finish_map(buffer, &placement, &taken, direction, copy_in) })
            }
            Err(cause) => Err(self.note_failure(cause)),
        }
    }

    /// The same out of a reservation. Cannot fail while the reservation has idle room and the request has its shape;
    /// without idle room it falls back to [`Pool::map`].
    ///
    /// # Errors
    /// [`MapError::InvalidRequest`] for another shape or another pool's reservation, else as [`Pool::map`].
    ///
    /// # Safety
    /// As for [`Pool::map`].
    pub unsafe fn map_reserved(
        &self,
        reservation: &Reservation,
        buffer: NonNull<[u8]>,
        direction: Direction,
        copy_in: CopyIn,
        constraints: &Constraints,
    ) -> Result<Mapping, MapError> {
        if !reservation.serves(self, buffer.len(), constraints) {
            return Err(MapError::InvalidRequest);
        }
        let placement = self.place(buffer, direction, copy_in, constraints)?;
        let id = reservation.id;
        let found = self.with_state(|state| {
            let room = state.central.reserved_room(id)?;
            Some((room, state.central.take_reserved(id)?))
        });
        let Some((room, taken)) = found else {
            // SAFETY: The caller's contract.
            return unsafe { self.map(buffer, direction, copy_in, constraints) };
        };
        let mask = constraints.min_align_mask;
        let placement = placement.reserved(room, origin_of(buffer), mask);
        let copied = Kind::Mapping(direction, copy_in).bytes_in(buffer.len() as u64);
        // Reserved room counts as used whether it is mapped or not.
        self.count(|counters| {
            CacheCounters::add(&counters.maps, 1);
            CacheCounters::add(&counters.bytes_in, copied);
        });
        // SAFETY: The caller's contract.
        Ok(unsafe { self.finish_map(buffer, &placement, &taken, direction, copy_in) })
    }

    #[inline]
    fn place(
        &self,
        buffer: NonNull<[u8]>,
        direction: Direction,
        copy_in: CopyIn,
        constraints: &Constraints,
    ) -> Result<Placement, MapError> {
        // Where the device reads, old pool contents would be sent in place of the driver's.
        if copy_in == CopyIn::DeviceWritten && direction.device_reads() {
            return Err(MapError::InvalidRequest);
        }
        Placement::new(&self.window, origin_of(buffer), buffer.len(), constraints)
    }

    /// # Safety
    /// As for [`Pool::map`]; `taken` has just been taken for `placement`.
    #[inline]
    unsafe fn finish_map(
        &self,
        buffer: NonNull<[u8]>,
        placement: &Placement,
        taken: &Taken,
        direction: Direction,
        copy_in: CopyIn,
    ) -> Mapping {
        let kind = Kind::Mapping(direction, copy_in);
        let (address, generation) = self.publish(placement, taken, origin_of(buffer), kind);
        // SAFETY: The caller's contract.
        unsafe { self.fill(buffer, address, copy_in) };
        Mapping {
            address,
            length: buffer.len() as u64,
            generation,
            direction,
        }
    }

    /// Copies the buffer into the pool, if it is to be copied.
    ///
    /// # Safety
    /// The buffer is valid for reads; as many bytes from `address` on were taken for it.
    #[inline]
    unsafe fn fill(&self, buffer: NonNull<[u8]>, address: u64, copy_in: CopyIn) {
        if copy_in == CopyIn::Keep {
            let pool = self.pointer(address);
            // SAFETY: The caller's contract.
            unsafe {
                self.platform
                    .copy_to_pool(pool, buffer.as_ptr().cast(), buffer.len());
            }
        }
    }

    /// Enters what was taken into its record. Returns the address of the first byte, and the generation.
    #[inline]
    pub(crate) fn publish(
        &self,
        placement: &Placement,
        taken: &Taken,
        origin: u64,
        kind: Kind,
    ) -> (u64, u64) {
        let tables = &self.shared.tables;
        let first = unit_of(taken.offset());
        let begins_in = unit_of(taken.offset() + placement.offset);
        if begins_in != first && !taken.is_small() {
            tables.renew(taken, begins_in);
        }
        let extra = match taken {
            Taken::Slot(..) => placement.length - 1,
            Taken::Extent(extent) => {
                tables.set_extent_length(*extent, placement.length);
                placement.offset / UNIT_BYTES
            }
        };
        // Below 2^14 by the limits of slots and of `Placement`.
        let extra = u16::try_from(extra).unwrap_or(0);
        let origin = Origin::of(origin, placement.shift);
        let generation = tables
            .record(taken.record())
            .map_or(0, |record| record.publish(origin, kind, extra));
        let address = self.window.base() + taken.offset() + placement.offset;
        (address, generation)
    }
}

#[inline]
fn count_map(counters: &CacheCounters, taken: u64, copied: u64) {
    CacheCounters::add(&counters.maps, 1);
    CacheCounters::add(&counters.bytes_in, copied);
    CacheCounters::add(&counters.used, taken);
}

impl Kind {
    /// Bytes that making it copies into the pool.
    const fn bytes_in(self, length: u64) -> u64 {
        match self {
            Self::Mapping(_, CopyIn::Keep) => length,
            _ => 0,
        }
    }
}

/// The buffer's address. A record keeps it as a number, so its provenance is exposed for the unmap.
fn origin_of(buffer: NonNull<[u8]>) -> u64 {
    buffer.as_ptr().cast::<u8>().expose_provenance() as u64
}
