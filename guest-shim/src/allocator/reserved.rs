// SPDX-License-Identifier: MIT OR Apache-2.0
//! Extents set aside for later mappings of one shape.
//!
//! The idle extents of a reservation form a list through their own records, last one back first out, so a reservation
//! of any size costs no memory of its own.

use super::ledger::{Contents, Ticket};
use super::placement::Placement;
use super::record::{Kind, Shape};
use super::window::Allocator;

/// Reservations that can exist at a time: the numbers a record has room for.
const RESERVATIONS: usize = 15;

/// Names one reservation, 1 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReservationId(u8);

impl ReservationId {
    /// The number in a record.
    pub const fn number(self) -> u8 {
        self.0
    }

    pub(super) const fn from_number(number: u8) -> Option<Self> {
        if number == 0 {
            None
        } else {
            Some(Self(number))
        }
    }
}

/// One reservation's extents.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    in_use: bool,
    /// Slots of each extent.
    slots: usize,
    /// First idle extent.
    head: Option<usize>,
    idle: usize,
    total: usize,
}

/// All reservations.
#[derive(Debug, Default)]
pub(super) struct Reservations([Entry; RESERVATIONS]);

impl Reservations {
    fn get(&mut self, id: ReservationId) -> Option<&mut Entry> {
        self.0.get_mut(usize::from(id.0).checked_sub(1)?)
    }
}

impl Allocator<'_> {
    /// Begins a reservation of extents of this shape; `None` when all numbers are taken.
    pub fn begin_reservation(&mut self, placement: &Placement) -> Option<ReservationId> {
        let index = self.reservations.0.iter().position(|entry| !entry.in_use)?;
        let entry = self.reservations.0.get_mut(index)?;
        *entry = Entry {
            in_use: true,
            slots: placement.slots,
            ..Entry::default()
        };
        u8::try_from(index + 1)
            .ok()
            .and_then(ReservationId::from_number)
    }

    /// Adds one extent to a reservation, if the granted chunks have one.
    pub fn extend_reservation(&mut self, id: ReservationId, placement: &Placement) -> Option<()> {
        let start = self.take(placement)?;
        if let Some(entry) = self.reservations.get(id) {
            entry.total += 1;
        }
        self.put_back(id, start);
        Some(())
    }

    /// Puts an extent on its reservation's list.
    pub(super) fn put_back(&mut self, id: ReservationId, start: usize) {
        let Some(entry) = self.reservations.get(id) else {
            return;
        };
        let next = entry.head.replace(start);
        entry.idle += 1;
        let shape = Shape::new()
            .with_kind(Kind::Reserved)
            .with_reservation(id.0);
        if let Some(record) = self.record_mut(start) {
            // Slot 0 is a valid one: the list ends at 0 and counts from 1.
            record.fill(next.map_or(0, |slot| slot as u64 + 1), 0, shape);
        }
    }

    fn pop(&mut self, id: ReservationId) -> Option<usize> {
        let start = self.reservations.get(id)?.head?;
        let next = self.record(start)?.origin();
        if let Some(record) = self.record_mut(start) {
            record.set_kind(Kind::Free);
        }
        let entry = self.reservations.get(id)?;
        entry.head = next
            .checked_sub(1)
            .and_then(|slot| usize::try_from(slot).ok());
        entry.idle -= 1;
        Some(start)
    }

    /// Hands out a reserved extent, whose shape the caller has compared with the placement; `None` when none is idle.
    pub fn allocate_reserved(
        &mut self,
        id: ReservationId,
        placement: &Placement,
        contents: &Contents,
    ) -> Option<Ticket> {
        let start = self.pop(id)?;
        self.write_record(start, placement, contents, Some(id))
    }

    /// Extents of a reservation that no mapping uses.
    pub fn idle_in_reservation(&mut self, id: ReservationId) -> usize {
        self.reservations.get(id).map_or(0, |entry| entry.idle)
    }

    /// Makes one idle extent free again; `false` when none is left.
    pub fn shrink_reservation(&mut self, id: ReservationId) -> bool {
        let Some(start) = self.pop(id) else {
            return false;
        };
        let Some(entry) = self.reservations.get(id) else {
            return false;
        };
        entry.total -= 1;
        let slots = entry.slots;
        self.give(start, slots);
        true
    }

    /// Ends a reservation that has no extents any more; `false` while mappings use some.
    pub fn end_reservation(&mut self, id: ReservationId) -> bool {
        match self.reservations.get(id) {
            Some(entry) if entry.total > 0 => false,
            Some(entry) => {
                *entry = Entry::default();
                true
            }
            None => true,
        }
    }
}
