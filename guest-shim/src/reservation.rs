// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory set aside in advance, for callers that cannot be told "no" later.

use crate::allocator::{CacheCounters, Placement, ReservationId};
use crate::constraints::Constraints;
use crate::error::MapError;
use crate::platform::Platform;
use crate::pool::Pool;

/// The largest alignment of a reservation: 32 MiB.
const MOST_ALIGNMENT: u64 = 32 << 20;

/// Room for `count` mappings at a time, each of at most `max_length` bytes.
///
/// While it exists, [`Pool::map_reserved`] cannot fail for a request of its shape as long as fewer than `count` such
/// mappings are in use. Unmapping puts an extent back. Ended by [`Pool::cancel_reservation`]; one that is dropped keeps
/// its memory for ever.
#[derive(Debug)]
#[must_use = "a reservation that is dropped keeps its memory for ever"]
pub struct Reservation {
    pub(crate) id: ReservationId,
    /// Base of the pool's window and epoch of its attachment, so that another pool's reservation is refused.
    owner: (u64, u32),
    count: usize,
    max_length: usize,
    pub(crate) alignment: u64,
}

impl Reservation {
    /// Mappings it holds room for.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Longest mapping it serves.
    pub const fn max_length(&self) -> usize {
        self.max_length
    }

    /// Whether a request has the reserved shape.
    pub(crate) fn serves<P: Platform>(
        &self,
        pool: &Pool<'_, P>,
        length: usize,
        constraints: &Constraints,
    ) -> bool {
        // The extents lie anywhere in the window, so the device must reach all of it, and have no boundary in it.
        let last = pool.window.base() + pool.window.bytes() - 1;
        self.owner == owner(pool)
            && length <= self.max_length
            && constraints.alignment <= self.alignment
            && constraints.min_align_mask < self.alignment
            && constraints.highest_address >= last
            && pool.window.lies_within(constraints.boundary)
    }
}

impl<P: Platform> Pool<'_, P> {
    /// Sets memory aside, growing the pool as needed. `align` is a power of two: the largest alignment, and one more
    /// than the largest `min_align_mask`, that later requests may have.
    ///
    /// # Errors
    /// A named cause; nothing is reserved then, though the pool may have grown. More than 15 reservations at a time are
    /// [`MapError::RecordsExhausted`].
    pub fn reserve(
        &self,
        count: usize,
        max_length: usize,
        align: u64,
    ) -> Result<Reservation, MapError> {
        if count == 0 || max_length == 0 || !align.is_power_of_two() {
            return Err(MapError::InvalidRequest);
        }
        // A record has room for an offset of 14 bits, in units.
        if align > MOST_ALIGNMENT {
            return Err(MapError::OutOfReach);
        }
        // Room for the low bits of any buffer address.
        let slack = Placement::slack(align);
        let length = max_length.saturating_add(slack);
        let placement = Placement::new(&self.window, 0, length, &Constraints::aligned(align))?;
        let bytes = placement.room.bytes().saturating_mul(count as u64);
        if bytes > self.window.bytes() {
            return Err(MapError::TooLarge);
        }
        let id = self
            .with_state(|state| state.central.begin_reservation(&placement))
            .ok_or(MapError::RecordsExhausted)?;
        let reservation = Reservation {
            id,
            owner: owner(self),
            count,
            max_length,
            alignment: align,
        };
        while self.with_state(|state| state.central.reserved_total(id)) < count {
            let extended = self.obtain_with(&placement, |state| {
                state.central.extend_reservation(id, &placement)
            });
            match extended {
                Ok(bytes) => self.count(|counters| CacheCounters::add(&counters.used, bytes)),
                Err(cause) => {
                    self.drain(id);
                    return Err(cause);
                }
            }
        }
        Ok(reservation)
    }

    /// Ends a reservation.
    ///
    /// # Errors
    /// The reservation itself, unchanged, while mappings use its extents or it belongs to another pool.
    pub fn cancel_reservation(&self, reservation: Reservation) -> Result<(), Reservation> {
        let all_idle = reservation.owner == owner(self)
            && self.with_state(|state| state.central.idle_reservation(reservation.id));
        if !all_idle {
            return Err(reservation);
        }
        // Nobody can map from it any more: that takes a reference, and we own it.
        self.drain(reservation.id);
        Ok(())
    }

    /// One extent per lock, so that a large reservation does not keep interrupts off.
    fn drain(&self, id: ReservationId) {
        while let Some(bytes) = self.with_state(|state| state.central.shrink_reservation(id)) {
            self.count(|counters| CacheCounters::add(&counters.used, bytes.wrapping_neg()));
        }
        self.with_state(|state| state.note_blocks(&self.shared));
        self.with_state(|state| state.central.end_reservation(id));
    }
}

fn owner<P: Platform>(pool: &Pool<'_, P>) -> (u64, u32) {
    (pool.window.base(), pool.attachment.epoch)
}
