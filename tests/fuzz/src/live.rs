// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reference model: a plain map of intervals, one for each thing that is handed out.

use std::collections::BTreeMap;
use std::ops::Range;

use guest_shim::{CopyIn, Mapping, SharedBuffer};

use crate::driver_buffer::DriverBuffer;
use crate::service::Holding;
use crate::window::{chunk_address, chunk_of};

/// Bytes that a slot up to 16 KiB may keep from others on each side: its slab is shorter than this.
pub const SLAB_BYTES: u64 = 64 << 10;
/// Longest slot of a slab.
pub const LARGEST_SLOT: u64 = 16 << 10;
/// Longest slot for a wish with a boundary.
const LARGEST_WITHIN: u64 = 4 << 10;
/// What an extent beyond slabs is made of.
const UNIT: u64 = 2 << 10;

/// A mapping, and the driver's side of it.
#[derive(Debug)]
pub struct LiveMapping {
    /// The handle.
    pub mapping: Mapping,
    /// The driver's buffer.
    pub buffer: DriverBuffer,
    /// What the buffer holds.
    pub private: Vec<u8>,
    /// Whether it was copied in.
    pub copy_in: CopyIn,
    /// Number of the reservation it was taken from.
    pub reservation: Option<u64>,
}

/// Who has an interval.
#[derive(Debug)]
pub enum Holder {
    /// A driver with a buffer.
    Mapping(LiveMapping),
    /// A driver without.
    Shared(SharedBuffer),
}

/// Something that is handed out.
#[derive(Debug)]
pub struct Item {
    /// The bytes that nobody else may have: the item's own, up to the alignment asked for.
    pub extent: Range<u64>,
    /// First byte.
    pub address: u64,
    /// Length in bytes.
    pub length: usize,
    /// Who has it.
    pub holder: Holder,
}

impl Item {
    /// The mapping, if it is one.
    pub const fn mapping(&self) -> Option<&LiveMapping> {
        match &self.holder {
            Holder::Mapping(mapping) => Some(mapping),
            Holder::Shared(_) => None,
        }
    }

    /// The shared buffer, if it is one.
    pub const fn shared(&self) -> Option<&SharedBuffer> {
        match &self.holder {
            Holder::Mapping(_) => None,
            Holder::Shared(buffer) => Some(buffer),
        }
    }

    /// How far from it others may have to stay.
    fn margin(&self) -> u64 {
        let extent = self.extent.end - self.extent.start;
        if extent <= LARGEST_SLOT {
            SLAB_BYTES
        } else {
            UNIT
        }
    }
}

/// Where something may lie, as a caller says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The buffer's address.
    pub origin: u64,
    /// Length in bytes.
    pub length: u64,
    /// Low bits kept.
    pub mask: u64,
    /// Alignment.
    pub alignment: u64,
    /// Highest address.
    pub highest: u64,
    /// Multiples of this are not crossed; 0 for none.
    pub boundary: u64,
}

impl Wish {
    /// The first address in a range at which it could lie if the range were free. `None` if there is none.
    pub fn lowest_in(&self, range: &Range<u64>) -> Option<u64> {
        let lowest = self.lowest_across(range)?;
        if !self.crosses(lowest) {
            return Some(lowest);
        }
        // Behind the boundary. One that is crossed there too is crossed wherever it lies.
        let behind = (lowest + 1).next_multiple_of(self.boundary);
        let second = self.lowest_across(&(behind..range.end))?;
        (!self.crosses(second)).then_some(second)
    }

    /// Whether it would cross a boundary at an address.
    pub const fn crosses(&self, address: u64) -> bool {
        let last = address + self.length - 1;
        self.boundary != 0 && address / self.boundary != last / self.boundary
    }

    /// The wish that the shim fulfils for certain if there is room for it: with a boundary, what lies in a slot lies in a
    /// block of a power of two.
    #[must_use]
    pub fn certain(&self) -> Self {
        let low = self.origin & self.mask;
        let block = (low + self.length).next_power_of_two();
        if self.boundary == 0 || block > LARGEST_WITHIN {
            return *self;
        }
        Self {
            alignment: self.alignment.max(block).max(self.mask + 1),
            ..*self
        }
    }

    /// The same, boundaries apart.
    fn lowest_across(&self, range: &Range<u64>) -> Option<u64> {
        let low = self.origin & self.mask;
        let start = if self.mask < self.alignment {
            let start = range.start.next_multiple_of(self.alignment);
            start + low
        } else {
            // The extent begins at a multiple of the alignment, the mapping where the low bits say.
            let stride = self.mask + 1;
            let phase = low & !(self.alignment - 1);
            let first = range.start.checked_sub(phase)?.next_multiple_of(stride) + phase;
            let inner = low & (self.alignment - 1);
            let first = if first >= stride && first - stride >= range.start {
                first - stride
            } else {
                first
            };
            first + inner
        };
        let end = (start + self.length).next_multiple_of(self.alignment);
        let reached = start + self.length - 1 <= self.highest;
        (end <= range.end && reached).then_some(start)
    }

    /// The bytes that nobody else may have, once it lies at an address.
    pub fn extent_at(&self, address: u64) -> Range<u64> {
        let end = (address + self.length).next_multiple_of(self.alignment);
        address & !(self.alignment - 1)..end
    }
}

/// Everything that is handed out.
#[derive(Debug, Default)]
pub struct Live {
    items: BTreeMap<u64, Item>,
}

impl Live {
    /// Number of items.
    pub fn count(&self) -> usize {
        self.items.len()
    }

    /// All of them, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Item> {
        self.items.values()
    }

    /// Adds an item.
    ///
    /// # Panics
    /// If some of its bytes belong to another one.
    pub fn insert(&mut self, item: Item) {
        let Range { start, end } = item.extent;
        let before = self.items.range(..end).next_back();
        if let Some((_, other)) = before {
            assert!(
                other.extent.end <= start,
                "{:x?} was handed out while {:x?} was",
                item.extent,
                other.extent
            );
        }
        self.items.insert(start, item);
    }

    /// Takes an item out.
    pub fn remove(&mut self, key: u64) -> Option<Item> {
        self.items.remove(&key)
    }

    /// The item with a key.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut Item> {
        self.items.get_mut(&key)
    }

    /// The item with a key.
    pub fn get(&self, key: u64) -> Option<&Item> {
        self.items.get(&key)
    }

    /// The key of one of the items that are meant.
    pub fn pick(&self, which: usize, meant: impl Fn(&Item) -> bool) -> Option<u64> {
        let among = self.items.values().filter(|item| meant(item)).count();
        let mut meant = self.items.iter().filter(|(_, item)| meant(item));
        meant.nth(which.checked_rem(among)?).map(|(key, _)| *key)
    }

    /// Whether nobody has any byte near this address.
    pub fn is_free(&self, address: u64) -> bool {
        let before = self.items.range(..=address).next_back();
        before.is_none_or(|(_, item)| item.extent.end <= address)
    }

    /// Whether the space for a wish exists for certain, whatever an allocator of the shim's kind has put where: in
    /// chunks that are granted, or in those that may be granted too if `grows`.
    pub fn has_space(&self, wish: &Wish, holdings: &[Holding], grows: bool) -> bool {
        let held = |chunk: usize| matches!(holdings[chunk], Holding::Granted(_));
        self.gaps(holdings).any(|gap| {
            let in_held = wish.lowest_in(&gap).is_some_and(|address| {
                let Range { start, end } = wish.extent_at(address);
                (chunk_of(start)..=chunk_of(end - 1)).all(held)
            });
            in_held || grows && wish.lowest_in(&gap).is_some()
        })
    }

    /// The ranges of chunks that can be used, less what is handed out and what that may keep from others.
    fn gaps(&self, holdings: &[Holding]) -> impl Iterator<Item = Range<u64>> {
        let usable = |holding: &Holding| !matches!(holding, Holding::Open(_));
        let mut gaps = Vec::new();
        let mut chunk = 0;
        while chunk < holdings.len() {
            let run = holdings[chunk..].iter().take_while(|it| usable(it)).count();
            if run > 0 {
                let (mut from, end) = (chunk_address(chunk), chunk_address(chunk + run));
                let mut margin = 0;
                for (_, item) in self.items.range(from..end) {
                    let to = item.extent.start.saturating_sub(item.margin());
                    gaps.push(from + margin..to);
                    (from, margin) = (item.extent.end, item.margin());
                }
                gaps.push(from + margin..end);
            }
            chunk += run + 1;
        }
        gaps.into_iter()
            .map(|gap| gap.start.next_multiple_of(UNIT)..gap.end & !(UNIT - 1))
            .filter(|gap| gap.start < gap.end)
    }
}
