// SPDX-License-Identifier: MIT OR Apache-2.0
//! The central store: the free units of the granted chunks, handed out as extents and slabs. One lock is round it.
//!
//! Taking and putting cost the same whatever the pool's size, its fill and the length asked for. What does not is said
//! where it is: what comes from the service and goes back to it is linear in its chunks, and a device that reaches only
//! part of the window, or has a boundary in it, is served by a walk.

use core::ops::Range;

use super::cache::Extent;
use super::chunk::{Chunk, ChunkState, Run};
use super::free_blocks::{FreeBlocks, length_of};
use super::placement::{Placement, Room};
use super::reserved::Reservations;
use super::slab_header::RecordBlocks;
use super::slabs::Slabs;
use super::start::{Side, Start};
use super::tables::{Metadata, Tables};
use super::tag::{Tag, UnitKind};
use crate::error::MapError;
use crate::geometry::{CHUNK_BYTES, UNIT_BYTES, UNITS_PER_CHUNK, to_index, unit_of, unit_offset};

/// Slots of this size and its multiples lie at multiples of it.
const PAGE_BYTES: u64 = 4096;
/// Blocks of at least a chunk that a withdrawal looks at.
const WITHDRAWAL_STEPS: usize = 64;
/// Blocks looked at for a device that reaches only part of the window.
const REACH_STEPS: usize = 4096;
/// The same for one that reaches all of it and has a boundary in it: the lists were searched before.
const BOUNDARY_STEPS: usize = 1024;

/// How full the granted chunks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Occupancy {
    /// Chunks held.
    pub granted_chunks: usize,
    /// Chunks lost to answers that leave their owner open.
    pub lost_chunks: usize,
    /// The most units outside the central store since [`Central::restart_peak`].
    pub peak_units: u32,
    /// The most ever.
    pub highest_units: u32,
}

/// Everything the lock protects but policy and counters.
#[derive(Debug)]
pub(crate) struct Central<'a> {
    pub(super) tables: Tables<'a>,
    pub(super) free: FreeBlocks<'a>,
    pub(super) slabs: Slabs,
    pub(super) blocks: RecordBlocks,
    pub(super) reservations: Reservations,
    chunks: &'a mut [Chunk],
    occupancy: Occupancy,
    walk_from: u32,
}

impl<'a> Central<'a> {
    /// A store of which nothing is granted.
    pub fn new(metadata: Metadata<'a>) -> Self {
        let Metadata {
            tables,
            chunks,
            heads,
            ..
        } = metadata;
        Self {
            tables,
            free: FreeBlocks::new(heads),
            slabs: Slabs::new(),
            blocks: RecordBlocks::new(&tables),
            reservations: Reservations::default(),
            chunks,
            occupancy: Occupancy::default(),
            walk_from: 0,
        }
    }

    /// Whether no slab of small slots can be made for want of records.
    pub const fn is_out_of_blocks(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Takes an extent of this many units.
    pub fn take_extent(&mut self, placement: &Placement, reservation: u8) -> Option<Extent> {
        let Room::Extent { units, start } = placement.room else {
            return None;
        };
        let anywhere = placement.end_limit.is_none();
        let found = anywhere
            .then(|| self.free.take(&self.tables, units, start, Side::Low))
            .flatten();
        let first = match found {
            None if !anywhere || start.has_boundary() => {
                self.take_in_reach(placement, units, |block, length| {
                    start.fit(block, length, units, Side::Low)
                })
            }
            found => found,
        }?;
        self.mark_extent(first, units, reservation);
        Some(Extent { first, units })
    }

    /// Takes units anywhere for a request that a slot would serve, if it does not need a slot's alignment.
    pub fn take_any_units(&mut self, placement: &Placement) -> Option<Extent> {
        let Room::Slot(class) = placement.room else {
            return None;
        };
        let page = PAGE_BYTES.trailing_zeros();
        if u32::from(placement.slot_alignment) >= page || placement.end_limit.is_some() {
            return None;
        }
        // Two at least: the word of the second keeps the length.
        let units = unit_of(u64::from(class.class().size).next_multiple_of(UNIT_BYTES)).max(2);
        let first = self.free.take(&self.tables, units, Start::ANY, Side::Low)?;
        self.mark_extent(first, units, 0);
        Some(Extent { first, units })
    }

    /// Whether the service could grant a chunk that begins before this offset. Linear in the chunks there.
    pub fn has_grantable_below(&self, limit: u64) -> bool {
        let chunks = limit.div_ceil(CHUNK_BYTES);
        self.chunks
            .iter()
            .take(to_index(chunks))
            .any(|chunk| chunk.state() == ChunkState::NotGranted)
    }

    /// Finds free room in reach of a device that does not reach the whole window, or for one with a boundary in it that the
    /// lists had none for, from the lowest block on.
    ///
    /// Linear in the blocks and slabs that lie in reach, at most [`REACH_STEPS`] or [`BOUNDARY_STEPS`] of them at a time; the
    /// next request goes on where this one stopped, or lower if something was freed there.
    pub(super) fn take_in_reach(
        &mut self,
        placement: &Placement,
        units: u32,
        place: impl Fn(u32, u32) -> Option<u32>,
    ) -> Option<u32> {
        let covered = u32::try_from(self.chunks.len()).ok()? * UNITS_PER_CHUNK;
        let began = self.walk_from;
        let mut unit = began;
        let mut wrapped = began == 0;
        let steps = placement.end_limit.map_or(BOUNDARY_STEPS, |_| REACH_STEPS);
        for _ in 0..steps {
            if unit >= covered || !placement.reaches(unit_offset(unit)) {
                if wrapped {
                    break;
                }
                (unit, wrapped) = (0, true);
                continue;
            }
            if wrapped && began != 0 && unit >= began {
                break;
            }
            let tag = self.tables.tag(unit);
            let step = match tag.kind() {
                UnitKind::FreeHead | UnitKind::FreeSingle => {
                    let length = length_of(&self.tables, unit);
                    if let Some(first) = place(unit, length)
                        && placement.reaches(unit_offset(first))
                    {
                        self.free.cut(&self.tables, unit, length, first, units);
                        self.walk_from = unit;
                        return Some(first);
                    }
                    length
                }
                UnitKind::Slab(class) => class.class().units.saturating_sub(tag.distance()),
                UnitKind::ExtentHead => self.tables.extent_units(unit),
                // Not granted, or lost.
                UnitKind::Body | UnitKind::FreeTail => UNITS_PER_CHUNK - unit % UNITS_PER_CHUNK,
            };
            unit += step.max(1);
        }
        self.walk_from = unit;
        None
    }

    /// Marks a run as an extent.
    fn mark_extent(&mut self, first: u32, units: u32, reservation: u8) {
        self.tables.mark_extent(first, units);
        let tag = Tag::of(UnitKind::ExtentHead).with_reservation(reservation);
        self.tables.set_tag(first, tag);
        self.note_peak();
    }

    /// Takes an extent back.
    pub fn put_extent(&mut self, extent: Extent) {
        self.tables.set_tag(extent.first, Tag::BODY);
        self.put_units(extent.first, extent.units);
    }

    /// Makes units free.
    pub(super) fn put_units(&mut self, first: u32, units: u32) {
        let block = self.free.put(&self.tables, first, units);
        self.walk_from = self.walk_from.min(block);
    }

    /// Bytes in the store, free for extents and slabs.
    pub fn free_bytes(&self) -> u64 {
        unit_offset(self.free.units())
    }

    /// Bytes of the longest run in the store.
    pub fn longest_run_bytes(&self) -> u64 {
        unit_offset(self.free.longest(&self.tables))
    }

    /// Units of granted chunks.
    fn granted_units(&self) -> u32 {
        u32::try_from(self.occupancy.granted_chunks)
            .map_or(u32::MAX, |chunks| chunks * UNITS_PER_CHUNK)
    }

    /// Whether less than 1/16 of what is held is free: caches then take no more than they need.
    pub(super) fn is_tight(&self) -> bool {
        self.free.units() < self.granted_units() / 16
    }

    pub(super) fn note_peak(&mut self) {
        let outside = self.granted_units().saturating_sub(self.free.units());
        self.occupancy.peak_units = self.occupancy.peak_units.max(outside);
        self.occupancy.highest_units = self.occupancy.highest_units.max(outside);
    }

    /// Bytes that the service would have to grant from the lowest chunk it may, which is where it grants from, for a long
    /// run to be complete with the free units round the gap it fills. `None` if the gap is too short for that. Linear in
    /// the chunks up to the end of the gap; asked before a call to the service.
    pub fn missing_bytes(&self, room: Room) -> Option<u64> {
        let Room::Extent { units, start } = room else {
            return None;
        };
        let grantable = |chunk: &Chunk| chunk.state() == ChunkState::NotGranted;
        let first = self.chunks.iter().position(grantable)?;
        let chunks = self
            .chunks
            .iter()
            .skip(first)
            .take_while(|chunk| grantable(chunk));
        let gap = Run {
            chunks: first..first + chunks.count(),
            grant: 0,
        };
        let (begin, length) = gap.units();
        let (before, behind) = self.free.beside(&self.tables, begin, begin + length);
        let block = begin - before;
        let run = start.fit(block, before + length + behind, units, Side::Low)?;
        let missing = (run + units).saturating_sub(begin).min(length);
        Some(unit_offset(missing).next_multiple_of(CHUNK_BYTES))
    }

    /// Why growing cannot help, if it cannot: everything that could be granted is.
    pub fn why_complete(&self, room: Room, window_chunks: usize) -> Option<MapError> {
        let Occupancy {
            granted_chunks,
            lost_chunks,
            ..
        } = self.occupancy;
        if granted_chunks + lost_chunks < self.chunks.len() {
            None
        } else if unit_offset(self.free.units()) >= room.bytes() {
            Some(MapError::NoContiguousRun)
        } else if self.chunks.len() < window_chunks {
            Some(MapError::RecordsExhausted)
        } else {
            Some(MapError::CapReached)
        }
    }

    /// Whether the service may grant this run: inside the covered part of the window, and not held already.
    pub fn accepts(&self, run: &Run) -> bool {
        self.chunks.get(run.chunks.clone()).is_some_and(|chunks| {
            chunks.iter().all(|chunk| {
                matches!(
                    chunk.state(),
                    ChunkState::NotGranted | ChunkState::Releasing
                )
            })
        })
    }

    /// Number of chunks that have records.
    pub fn covered_chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Takes over a run the service has granted. The caller has asked [`Central::accepts`].
    ///
    /// A chunk may still be marked as on its way back: the service had taken it, and another CPU was granted it before
    /// the one that released it came round to say so.
    pub fn open(&mut self, run: &Run) {
        for chunk in self.chunks_of(&run.chunks) {
            chunk.grant = run.grant;
            chunk.set_state(ChunkState::Granted);
        }
        self.occupancy.granted_chunks += run.chunks.len();
        let (first, units) = run.units();
        if units > 0 {
            self.put_units(first, units);
        }
    }

    /// Takes the highest run of free chunks of one grant out of use, at most `most` chunks of it; the highest among the
    /// first [`WITHDRAWAL_STEPS`] blocks, so that interrupts are not off for long.
    pub fn withdraw(&mut self, most: usize) -> Option<Run> {
        let mut highest = None;
        self.free
            .for_each_long(&self.tables, WITHDRAWAL_STEPS, |block, length| {
                let end = (block + length) / UNITS_PER_CHUNK;
                if block.div_ceil(UNITS_PER_CHUNK) < end
                    && highest.is_none_or(|(_, _, best)| best < end)
                {
                    highest = Some((block, length, end));
                }
            });
        let (block, length, end) = highest?;
        let end = end as usize;
        let grant = self.chunks.get(end.checked_sub(1)?)?.grant;
        let lowest = block.div_ceil(UNITS_PER_CHUNK) as usize;
        let same_grant = self
            .chunks
            .get(lowest..end)?
            .iter()
            .rev()
            .take_while(|chunk| chunk.grant == grant)
            .count();
        let run = Run {
            chunks: end - same_grant.min(most)..end,
            grant,
        };
        if run.chunks.is_empty() {
            return None;
        }
        let (first, units) = run.units();
        self.free.cut(&self.tables, block, length, first, units);
        self.occupancy.granted_chunks -= run.chunks.len();
        for chunk in self.chunks_of(&run.chunks) {
            chunk.set_state(ChunkState::Releasing);
        }
        Some(run)
    }

    /// Ends a withdrawal: the run is the service's again.
    pub fn forget(&mut self, run: &Run) {
        for chunk in self.chunks_of(&run.chunks) {
            // A chunk that was granted anew meanwhile is no longer this withdrawal's business.
            if chunk.is_leaving(run) {
                chunk.set_state(ChunkState::NotGranted);
            }
        }
    }

    /// Ends a withdrawal that did not happen: the run is handed out again.
    pub fn restore(&mut self, run: &Run) {
        for number in run.chunks.clone() {
            let releasing = self
                .chunks
                .get(number)
                .is_some_and(|chunk| chunk.is_leaving(run));
            if releasing {
                self.open(&Run {
                    chunks: number..number + 1,
                    grant: run.grant,
                });
            }
        }
    }

    /// Ends a withdrawal whose outcome nobody knows: the run is never used again.
    pub fn lose(&mut self, run: &Run) {
        let mut lost = 0;
        for chunk in self.chunks_of(&run.chunks) {
            if chunk.is_leaving(run) {
                chunk.set_state(ChunkState::Lost);
                lost += 1;
            }
        }
        self.occupancy.lost_chunks += lost;
    }

    fn chunks_of(&mut self, range: &Range<usize>) -> impl Iterator<Item = &mut Chunk> {
        self.chunks
            .get_mut(range.clone())
            .unwrap_or_default()
            .iter_mut()
    }

    /// How full the pool is.
    pub fn occupancy(&self) -> Occupancy {
        self.occupancy
    }

    /// Begins a new period for the peak.
    pub fn restart_peak(&mut self) {
        self.occupancy.peak_units = 0;
        self.note_peak();
    }
}
