// SPDX-License-Identifier: MIT OR Apache-2.0
//! Room set aside for later mappings of one shape.
//!
//! A reservation has slabs and extents of its own, whose tags carry its number: what is unmapped there goes back to it
//! and to nobody else. What is idle forms a list through the words of the records, last one back first out, so a
//! reservation of any size costs no memory of its own.

use super::cache::{Extent, Slot};
use super::central::Central;
use super::lookup::Taken;
use super::placement::{Placement, Room};
use crate::geometry::unit_of;

/// Reservations that can exist at a time: the numbers a tag has room for.
const RESERVATIONS: usize = 15;

/// The end of a list.
const END: u64 = u64::MAX;

/// Names one reservation, 1 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReservationId(u8);

impl ReservationId {
    pub(super) const fn number(self) -> u8 {
        self.0
    }

    /// The reservation of a tag; `None` for none.
    pub const fn from_number(number: u8) -> Option<Self> {
        if number == 0 {
            None
        } else {
            Some(Self(number))
        }
    }
}

/// One reservation's room.
#[derive(Clone, Copy, Debug)]
struct Entry {
    room: Room,
    /// The first idle slot, as a word.
    head: u64,
    idle: usize,
    total: usize,
}

/// All reservations.
#[derive(Debug)]
pub(super) struct Reservations([Option<Entry>; RESERVATIONS]);

impl Default for Reservations {
    fn default() -> Self {
        Self([None; RESERVATIONS])
    }
}

impl Reservations {
    fn get(&mut self, id: ReservationId) -> Option<&mut Entry> {
        self.0.get_mut(usize::from(id.0).checked_sub(1)?)?.as_mut()
    }
}

impl Central<'_> {
    /// Begins a reservation of this room; `None` when all numbers are taken.
    pub fn begin_reservation(&mut self, placement: &Placement) -> Option<ReservationId> {
        let index = self.reservations.0.iter().position(Option::is_none)?;
        *self.reservations.0.get_mut(index)? = Some(Entry {
            room: placement.room,
            head: END,
            idle: 0,
            total: 0,
        });
        u8::try_from(index + 1)
            .ok()
            .and_then(ReservationId::from_number)
    }

    /// Adds room for at least one mapping, if there is some. Returns how many bytes that took.
    pub fn extend_reservation(&mut self, id: ReservationId, placement: &Placement) -> Option<u64> {
        match placement.room {
            Room::Slot(class) => {
                let mut head = self.reservations.get(id)?.head;
                let (mut slots, mut bytes) = (0, 0);
                let tables = self.tables;
                let made = self.take_reserved_slab(class, id.number(), |slot| {
                    if let Some(record) = tables.record(slot.record) {
                        record.set_word(head);
                        head = slot.into_word();
                        slots += 1;
                        bytes += tables
                            .slab_at(slot.offset)
                            .map_or(0, |(class, _)| u64::from(class.class().size));
                    }
                });
                let entry = self.reservations.get(id).filter(|_| made)?;
                entry.head = head;
                entry.idle += slots;
                entry.total += slots;
                Some(bytes)
            }
            Room::Extent { .. } => {
                let extent = self.take_extent(placement, id.number())?;
                self.reservations.get(id)?.total += 1;
                let taken = Taken::Extent(extent);
                self.put_back(id, &taken);
                Some(taken.bytes())
            }
        }
    }

    /// Puts room back on its reservation's list.
    pub fn put_back(&mut self, id: ReservationId, taken: &Taken) {
        let record = self.tables.record(taken.record());
        if let (Some(entry), Some(record)) = (self.reservations.get(id), record) {
            let slot = Slot {
                offset: taken.offset(),
                record: taken.record(),
            };
            record.set_word(core::mem::replace(&mut entry.head, slot.into_word()));
            entry.idle += 1;
        }
    }

    /// Hands out what waits in a reservation; `None` when all of it is in use.
    pub fn take_reserved(&mut self, id: ReservationId) -> Option<Taken> {
        let entry = self
            .reservations
            .get(id)
            .filter(|entry| entry.head != END)?;
        let slot = Slot::from_word(entry.head);
        entry.head = self.tables.record(slot.record)?.word();
        entry.idle -= 1;
        let room = entry.room;
        Some(match room {
            // A slot may be of a larger class than was asked for.
            Room::Slot(_) => Taken::Slot(self.tables.slab_at(slot.offset)?.0, slot),
            Room::Extent { units, .. } => Taken::Extent(Extent {
                first: unit_of(slot.offset),
                units,
            }),
        })
    }

    /// What a reservation's room is.
    pub fn reserved_room(&mut self, id: ReservationId) -> Option<Room> {
        self.reservations.get(id).map(|entry| entry.room)
    }

    /// Whether nothing of a reservation is in use.
    pub fn idle_reservation(&mut self, id: ReservationId) -> bool {
        self.reservations
            .get(id)
            .is_some_and(|entry| entry.idle == entry.total)
    }

    /// How many mappings a reservation has room for.
    pub fn reserved_total(&mut self, id: ReservationId) -> usize {
        self.reservations.get(id).map_or(0, |entry| entry.total)
    }

    /// Makes room of a reservation that nobody uses any more free; returns how many bytes, `None` when none is left.
    pub fn shrink_reservation(&mut self, id: ReservationId) -> Option<u64> {
        let taken = self.take_reserved(id)?;
        self.reservations.get(id)?.total -= 1;
        match taken {
            // No list has the slab: it is dissolved with its last slot.
            Taken::Slot(_, slot) => self.put_slot_of_slab(slot, false),
            Taken::Extent(extent) => self.put_extent(extent),
        }
        Some(taken.bytes())
    }

    /// Ends a reservation that has no room any more.
    pub fn end_reservation(&mut self, id: ReservationId) {
        if let Some(index) = usize::from(id.0).checked_sub(1)
            && let Some(entry) = self.reservations.0.get_mut(index)
        {
            *entry = None;
        }
    }
}
