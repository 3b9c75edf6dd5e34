// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reservations: what is paid for in advance cannot be refused.

use guest_shim::{MapError, Statistics};

use super::run::{Engine, Reserved};
use crate::driver_buffer::DriverBuffer;
use crate::driver_buffer::pattern;
use crate::machine::take_copies;
use crate::operation::Shape;

/// Reservations that can exist at a time.
const MOST: usize = 15;

impl Engine<'_> {
    pub(super) fn reserve(&mut self, count: usize, length: usize, align: u32) {
        let used = self.pool.statistics().used_bytes;
        let result = self.pool.reserve(count, length, 1 << align);
        assert_eq!(take_copies(), [], "copies of a reservation");
        match result {
            Ok(reservation) => {
                assert_eq!(
                    (reservation.count(), reservation.max_length()),
                    (count, length)
                );
                let number = self.draw();
                self.reserved.push(Reserved {
                    number,
                    reservation,
                    align: 1 << align,
                    in_use: 0,
                });
                assert!(self.reserved.len() <= MOST);
            }
            Err(cause) => {
                assert_eq!(
                    self.pool.statistics().used_bytes,
                    used,
                    "of a refused reservation"
                );
                assert_ne!(cause, MapError::InvalidRequest);
                self.standing.refused = true;
                if self.reserved.len() >= MOST {
                    assert_eq!(cause, MapError::RecordsExhausted);
                }
            }
        }
    }

    pub(super) fn map_reserved(&mut self, which: usize, length: usize, shape: Shape) {
        if self.reserved.is_empty() {
            return;
        }
        let index = which % self.reserved.len();
        let Reserved {
            number,
            reservation,
            align,
            in_use,
        } = &self.reserved[index];
        let (number, idle) = (*number, reservation.count().saturating_sub(*in_use));
        let length = 1 + (length - 1) % reservation.max_length();
        let log2 = align.trailing_zeros();
        let shape = Shape {
            mask: shape.mask % (log2 + 1),
            align: shape.align % (log2 + 1),
            reach: 0,
            boundary: 0,
            ..shape.affordable(length)
        };
        let seed = self.drawn + 1;
        let contents = pattern(length, seed);
        let buffer = DriverBuffer::new(&contents, (1 << shape.mask) - 1, shape.phase);
        let before = self.pool.statistics();
        let result = buffer.map_reserved(
            &self.pool,
            reservation,
            shape.direction,
            shape.copy_in,
            &shape.constraints(length),
        );
        self.drawn = seed;
        let after = self.pool.statistics();
        match result {
            Ok(mapping) => {
                let unchanged = |it: &Statistics| (it.calls, it.used_bytes, it.granted_bytes);
                // A reservation may turn out to hold more than it was asked for; what it does not hold comes from the
                // pool at large.
                let paid = unchanged(&after) == unchanged(&before);
                assert!(paid || idle == 0, "paid in advance: {before:?}, {after:?}");
                let grown = after.used_bytes >= before.used_bytes + length as u64;
                assert!(paid || grown, "neither reserved nor taken");
                if paid {
                    self.reserved[index].in_use += 1;
                }
                self.mapped(mapping, buffer, shape, paid.then_some(number));
            }
            Err(cause) => {
                assert_eq!(idle, 0, "{cause} with {idle} extents idle in a reservation");
                assert_eq!(after.used_bytes, before.used_bytes);
                self.standing.refused = true;
            }
        }
    }

    pub(super) fn cancel(&mut self, which: usize) {
        if self.reserved.is_empty() {
            return;
        }
        let index = which % self.reserved.len();
        let Reserved {
            number,
            reservation,
            align,
            in_use,
        } = self.reserved.swap_remove(index);
        match self.pool.cancel_reservation(reservation) {
            Ok(()) => assert_eq!(in_use, 0, "cancelled while in use"),
            Err(reservation) => {
                assert_ne!(in_use, 0, "not cancelled, though nothing uses it");
                self.reserved.push(Reserved {
                    number,
                    reservation,
                    align,
                    in_use,
                });
            }
        }
    }
}
