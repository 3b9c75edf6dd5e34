// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parts of the allocator on their own, small enough for a model checker.

pub(crate) use super::cache::{CpuCache, Slot};
pub(crate) use super::record::Record;
pub(crate) use super::tables::Tables;

use std::boxed::Box;
use std::vec::Vec;

use super::class::{ClassIndex, SMALL_SLOTS};
use super::tables::{BlockHeader, NIL, RecordNumber};
use super::tag::{Tag, UnitKind};
use crate::atomic::{AtomicU16, AtomicU32};
use crate::geometry::unit_offset;

/// A slot that begins at a unit.
pub(crate) fn slot(unit: u32) -> Slot {
    Slot {
        offset: unit_offset(unit),
        record: RecordNumber::of_unit(unit),
    }
}

/// Tables for this many units and blocks. Leaked: loom's threads outlive what is on a stack.
pub(crate) fn tables(units: usize, blocks: usize) -> Tables<'static> {
    let tags: Vec<_> = (0..units).map(|_| AtomicU16::new(0)).collect();
    let records = units + blocks * SMALL_SLOTS as usize;
    let records: Vec<_> = (0..records).map(|_| Record::unused()).collect();
    let blocks: Vec<_> = (0..blocks)
        .map(|_| BlockHeader {
            free_map: AtomicU32::new(0),
            next: AtomicU32::new(NIL),
            previous: AtomicU32::new(NIL),
        })
        .collect();
    Tables::new(
        Box::leak(tags.into_boxed_slice()),
        Box::leak(records.into_boxed_slice()),
        Box::leak(blocks.into_boxed_slice()),
    )
}

/// Gives units what a slab of small slots needs; the steps of `Central::furnish_slab` in their order.
pub(crate) fn furnish(tables: Tables<'_>, class: ClassIndex, first: u64, block: u32) {
    super::slab_header::give_block(&tables, class.class(), first as u32, block);
    tag_slab(tables, class, first);
}

/// Makes units a slab.
pub(crate) fn tag_slab(tables: Tables<'_>, class: ClassIndex, first: u64) {
    let tag = Tag::of(UnitKind::Slab(class));
    for (distance, unit) in (0..).zip(first as u32..first as u32 + class.class().units) {
        tables.set_tag(unit, tag.with_distance(distance));
    }
}

/// Takes it away again; the steps of `Central::dissolve`.
pub(crate) fn dissolve(tables: Tables<'_>, class: ClassIndex, first: u64, block: u32) {
    super::slab_header::keep_generations(&tables, class.class(), first as u32, block);
    untag_slab(tables, class, first);
}

/// Makes a slab plain units.
pub(crate) fn untag_slab(tables: Tables<'_>, class: ClassIndex, first: u64) {
    for unit in first as u32..first as u32 + class.class().units {
        tables.set_tag(unit, Tag::BODY);
    }
}

/// Marks an extent; the steps of `Central::mark_extent`.
pub(crate) fn mark_extent(tables: Tables<'_>, first: u32, units: u32) {
    tables.mark_extent(first, units);
    tables.set_tag(first, Tag::of(UnitKind::ExtentHead));
}
