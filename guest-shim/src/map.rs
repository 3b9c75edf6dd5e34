// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mapping a buffer: an extent of the pool, the buffer's bytes in it, and the address for the device.

use core::ptr::NonNull;

use crate::allocator::{Contents, Kind, Placement, Ticket};
use crate::constraints::{Constraints, CopyIn, Direction};
use crate::error::MapError;
use crate::platform::Platform;
use crate::pool::{Pool, State};
use crate::reservation::Reservation;

/// A buffer that a device can reach.
///
/// A plain value, as a driver's queue keeps it. Using one again after its unmap is an error that is always detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub(crate) ticket: Ticket,
    pub(crate) length: u64,
    pub(crate) direction: Direction,
}

impl Mapping {
    /// The address to give to the device: a guest physical address in the window, without the C-bit.
    pub const fn address(&self) -> u64 {
        self.ticket.address
    }

    /// Length in bytes.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Who writes.
    pub const fn direction(&self) -> Direction {
        self.direction
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
    /// [`Direction::ToDevice`]. Nothing else writes to it while this function, a sync or an unmap of the mapping runs.
    pub unsafe fn map(
        &self,
        buffer: NonNull<[u8]>,
        direction: Direction,
        copy_in: CopyIn,
        constraints: &Constraints,
    ) -> Result<Mapping, MapError> {
        let placement = self.place(buffer, direction, copy_in, constraints);
        let contents = Contents::of(buffer, direction, copy_in);
        let ticket = placement
            .and_then(|place| {
                self.obtain(&place, |state| {
                    let ticket = state.allocator.allocate(&place, &contents)?;
                    state.count_map(&place, &contents);
                    Some(ticket)
                })
            })
            .inspect_err(|cause| self.with_state(|state| state.counters.map_failed(*cause)))?;
        // SAFETY: The caller's contract.
        Ok(unsafe { self.finish_map(buffer, ticket, &contents) })
    }

    /// The same out of a reservation. Cannot fail while the reservation has an idle extent and the request has its
    /// shape; without one it falls back to [`Pool::map`].
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
        let aligned = Constraints {
            alignment: reservation.alignment,
            ..*constraints
        };
        let placement = self.place(buffer, direction, copy_in, &aligned)?;
        let contents = Contents::of(buffer, direction, copy_in);
        let ticket = self.with_state(|state| {
            let id = reservation.id;
            let ticket = state
                .allocator
                .allocate_reserved(id, &placement, &contents)?;
            state.count_map(&placement, &contents);
            Some(ticket)
        });
        match ticket {
            // SAFETY: The caller's contract.
            Some(ticket) => Ok(unsafe { self.finish_map(buffer, ticket, &contents) }),
            // SAFETY: The caller's contract.
            None => unsafe { self.map(buffer, direction, copy_in, constraints) },
        }
    }

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
    /// As for [`Pool::map`]; `ticket` has just been handed out for `contents`.
    unsafe fn finish_map(
        &self,
        buffer: NonNull<[u8]>,
        ticket: Ticket,
        contents: &Contents,
    ) -> Mapping {
        let length = buffer.len();
        if !contents.device_written {
            let pool = self.pointer(ticket.address);
            // SAFETY: The buffer is valid for reads by the caller's contract; the extent has `length` bytes at the
            // ticket's address.
            unsafe {
                self.platform
                    .copy_to_pool(pool, buffer.as_ptr().cast(), length);
            }
        }
        Mapping {
            ticket,
            length: length as u64,
            direction: contents.direction,
        }
    }
}

impl State<'_> {
    fn count_map(&mut self, placement: &Placement, contents: &Contents) {
        let copied = if contents.device_written {
            0
        } else {
            placement.length
        };
        self.counters
            .mapped(self.allocator.occupancy().used_slots, copied);
    }
}

impl Contents {
    fn of(buffer: NonNull<[u8]>, direction: Direction, copy_in: CopyIn) -> Self {
        Self {
            kind: Kind::Mapping,
            origin: origin_of(buffer),
            direction,
            device_written: copy_in == CopyIn::DeviceWritten,
        }
    }
}

/// The buffer's address. A record keeps it as a number, so its provenance is exposed for the unmap.
fn origin_of(buffer: NonNull<[u8]>) -> u64 {
    buffer.as_ptr().cast::<u8>().expose_provenance() as u64
}
