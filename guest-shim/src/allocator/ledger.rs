// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was handed out: written at map, claimed and retired at unmap.
//!
//! Whoever copies out of a mapping or frees it claims the record first. A second context that names the same mapping
//! meanwhile is refused, so a buffer is never written after its unmap has returned.

use super::placement::Placement;
use super::record::{Kind, Record, Shape};
use super::reserved::ReservationId;
use super::window::Allocator;
use crate::constraints::Direction;
use crate::error::UnmapError;
use crate::geometry::{CHUNK_SLOT_SHIFT, SLOT_BYTES, SLOT_SHIFT, SLOTS_PER_CHUNK, to_index};

/// What an extent is handed out for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contents {
    /// [`Kind::Mapping`] or [`Kind::SharedBuffer`].
    pub kind: Kind,
    /// Address of the driver's buffer; 0 for a shared buffer.
    pub origin: u64,
    /// Meaningful for mappings.
    pub direction: Direction,
    /// Nothing is copied in, and nothing is copied out without a length.
    pub device_written: bool,
}

impl Contents {
    /// A buffer without an original.
    pub const SHARED: Self = Self {
        kind: Kind::SharedBuffer,
        origin: 0,
        direction: Direction::Bidirectional,
        device_written: false,
    };
}

/// Proof of what was handed out: where, and which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Address of the first byte.
    pub address: u64,
    /// How often something had been given back at its slot before.
    pub generation: u32,
}

/// What the caller says was handed out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Address of the first byte.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
    /// Mapping or shared buffer.
    pub kind: Kind,
    /// Direction of a mapping.
    pub direction: Direction,
    /// Generation, for a handle; `None` for a bare address.
    pub generation: Option<u32>,
}

/// A mapping that only this context may copy or free, until it is released or retired.
#[derive(Debug)]
#[must_use = "a claim that is dropped blocks its mapping for ever"]
pub(crate) struct Claim {
    slot: usize,
    kind: Kind,
    /// Address of the first byte in the pool.
    pub address: u64,
    /// Address of the driver's buffer.
    pub origin: u64,
    /// Length in bytes.
    pub length: u64,
    /// Nothing is copied out without a length.
    pub device_written: bool,
}

impl Allocator<'_> {
    /// Records an extent as handed out. `None` only if the extent has no records, which `take` excludes.
    pub(super) fn write_record(
        &mut self,
        start: usize,
        placement: &Placement,
        contents: &Contents,
        reservation: Option<ReservationId>,
    ) -> Option<Ticket> {
        let address = self.window.slot_address(start) + placement.offset;
        let shape = Shape::new()
            .with_offset((address % SLOT_BYTES) as u16)
            .with_granule_shift(placement.granule_shift)
            .with_direction(contents.direction)
            .with_kind(contents.kind)
            .with_reservation(reservation.map_or(0, ReservationId::number))
            .with_device_written(contents.device_written);
        let record = self.record_mut(self.window.slot_of(address)?)?;
        record.fill(contents.origin, placement.length, shape);
        Some(Ticket {
            address,
            generation: record.generation,
        })
    }

    /// Compares what the caller says with the record, and claims the mapping for this context.
    ///
    /// # Errors
    /// The first thing that differs; nothing has changed then.
    pub fn claim(&mut self, expected: &Expected) -> Result<Claim, UnmapError> {
        let slot = self
            .window
            .slot_of(expected.address)
            .ok_or(UnmapError::UnknownAddress)?;
        let record = self.record_mut(slot).ok_or(UnmapError::UnknownAddress)?;
        compare(record, expected)?;
        let claim = Claim {
            slot,
            kind: record.kind(),
            address: expected.address,
            origin: record.origin(),
            length: record.length(),
            device_written: record.shape().device_written(),
        };
        record.set_kind(Kind::Claimed);
        Ok(claim)
    }

    /// Ends a claim; the mapping stays.
    pub fn unclaim(&mut self, claim: Claim) {
        if let Some(record) = self.record_mut(claim.slot) {
            record.set_kind(claim.kind);
        }
    }

    /// Ends a claim and the mapping: its slots are free, or back in their reservation.
    pub fn retire(&mut self, claim: Claim) {
        let Some(record) = self.record_mut(claim.slot) else {
            return;
        };
        record.retire();
        let shape = record.shape();
        let granule = SLOT_BYTES << shape.granule_shift();
        let first = claim.address & !(granule - 1);
        let Some(start) = self.window.slot_of(first) else {
            return;
        };
        if let Some(id) = ReservationId::from_number(shape.reservation()) {
            self.put_back(id, start);
        } else {
            let end = (claim.address + claim.length).next_multiple_of(granule);
            self.give(start, to_index((end - first) >> SLOT_SHIFT));
        }
    }

    pub(super) fn record_mut(&mut self, slot: usize) -> Option<&mut Record> {
        self.chunk_mut(slot >> CHUNK_SLOT_SHIFT)?
            .record_mut(slot % SLOTS_PER_CHUNK)
    }

    pub(super) fn record(&self, slot: usize) -> Option<&Record> {
        self.chunk(slot >> CHUNK_SLOT_SHIFT)?
            .record(slot % SLOTS_PER_CHUNK)
    }
}

/// A handle is checked by generation before anything else: whatever the slot stands for now, an old handle is stale.
fn compare(record: &Record, expected: &Expected) -> Result<(), UnmapError> {
    let shape = record.shape();
    let offset = expected.address % SLOT_BYTES;
    if let Some(generation) = expected.generation
        && generation != record.generation
    {
        let given_back_once = record.generation == generation.wrapping_add(1);
        let nothing_since = matches!(shape.kind(), Kind::Free | Kind::Reserved);
        return Err(if given_back_once && nothing_since {
            UnmapError::AlreadyUnmapped
        } else {
            UnmapError::StaleHandle
        });
    }
    match shape.kind() {
        Kind::Free | Kind::Reserved
            if record.generation > 0 && u64::from(shape.offset()) == offset =>
        {
            return Err(UnmapError::AlreadyUnmapped);
        }
        Kind::Free | Kind::Reserved => return Err(UnmapError::UnknownAddress),
        _ if u64::from(shape.offset()) != offset => return Err(UnmapError::UnknownAddress),
        Kind::Claimed => return Err(UnmapError::Busy),
        Kind::Mapping | Kind::SharedBuffer => {}
    }
    if record.length() != expected.length {
        return Err(UnmapError::WrongLength);
    }
    if shape.kind() != expected.kind || shape.direction() != expected.direction {
        return Err(UnmapError::WrongDirection);
    }
    Ok(())
}
