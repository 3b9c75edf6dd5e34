// SPDX-License-Identifier: MIT OR Apache-2.0
//! The private tables that every CPU reads, and how the metadata area is divided into them.
//!
//! ```text
//! metadata area:  | caches   | lists   | records                      | block headers | chunks | tags         |
//!                 | one/CPU  | of free | 16 B/unit | 32 per block ... | 12 B/block    |        | 2 B per unit |
//! ```
//!
//! A slot of at least a unit, and an extent, uses the record of its first unit. The slots of a slab of smaller ones, of
//! which more than one can begin in a unit, use a block of 32 records behind those of the units; the word of the record
//! of each of the slab's units names the block.

#[cfg(not(loom))]
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use super::cache::CpuCache;
use super::chunk::Chunk;
use super::class::SMALL_SLOTS;
use super::free_blocks::{Heads, doublings};
use super::record::Record;
use super::tag::Tag;
use crate::atomic::{AtomicU16, AtomicU32, Ordering};
use crate::geometry::{CHUNK_BYTES, MAX_WINDOW_BYTES, UNITS_PER_CHUNK, to_index};

/// "None" where a unit or block number is meant.
pub(super) const NIL: u32 = u32::MAX;

/// Number of a record: a unit's, or one in a block behind those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordNumber(pub(super) u32);

impl RecordNumber {
    /// The record of a unit.
    #[inline]
    pub const fn of_unit(unit: u32) -> Self {
        Self(unit)
    }
}

/// The header of a block of records, and of the slab of small slots that has it. Only under the central lock.
#[cfg_attr(not(loom), derive(FromBytes, IntoBytes, KnownLayout))]
#[derive(Debug)]
#[repr(C)]
pub(crate) struct BlockHeader {
    pub free_map: AtomicU32,
    pub next: AtomicU32,
    pub previous: AtomicU32,
}

/// The tables, shared by all CPUs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables<'a> {
    tags: &'a [AtomicU16],
    /// One for each tag, then 32 for each block.
    records: &'a [Record],
    blocks: &'a [BlockHeader],
}

impl<'a> Tables<'a> {
    /// Tables over parts of the lengths that [`Tables`] says.
    pub const fn new(
        tags: &'a [AtomicU16],
        records: &'a [Record],
        blocks: &'a [BlockHeader],
    ) -> Self {
        Self {
            tags,
            records,
            blocks,
        }
    }

    /// The tag of a unit; that of a body where there is none.
    #[inline]
    pub fn tag(&self, unit: u32) -> Tag {
        self.tags
            .get(unit as usize)
            // Acquire: a tag is written after what it promises about records and words.
            .map_or(Tag::BODY, |tag| Tag::from_bits(tag.load(Ordering::Acquire)))
    }

    /// Changes the tag of a unit. Only under the central lock.
    pub fn set_tag(&self, unit: u32, tag: Tag) {
        if let Some(entry) = self.tags.get(unit as usize) {
            entry.store(tag.into_bits(), Ordering::Release);
        }
    }

    /// A record by number.
    #[inline]
    pub fn record(&self, number: RecordNumber) -> Option<&'a Record> {
        self.records.get(number.0 as usize)
    }

    /// The number of a record in a block.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "units have numbers of 26 bits, records of 31"
    )]
    pub const fn in_block(&self, block: u32, slot: u32) -> RecordNumber {
        let behind_units = block.wrapping_mul(SMALL_SLOTS).wrapping_add(slot);
        RecordNumber((self.tags.len() as u32).wrapping_add(behind_units))
    }

    /// The records of a block.
    pub fn block_records(&self, block: u32) -> &'a [Record] {
        let first = self.in_block(block, 0).0 as usize;
        self.records
            .get(first..first + SMALL_SLOTS as usize)
            .unwrap_or_default()
    }

    /// The word of a unit's record; 0 where there is none.
    #[inline]
    pub fn word(&self, unit: u32) -> u64 {
        self.records.get(unit as usize).map_or(0, Record::word)
    }

    /// Sets the word of a unit's record.
    #[inline]
    pub fn set_word(&self, unit: u32, word: u64) {
        if let Some(record) = self.records.get(unit as usize) {
            record.set_word(word);
        }
    }

    /// The header of a block.
    #[inline]
    pub fn block(&self, number: u32) -> Option<&'a BlockHeader> {
        self.blocks.get(number as usize)
    }

    /// Number of blocks.
    pub const fn blocks(&self) -> usize {
        self.blocks.len()
    }
}

/// Bytes of records and tags for a chunk of the window.
const BYTES_PER_CHUNK: usize =
    UNITS_PER_CHUNK as usize * (16 + size_of::<u16>()) + size_of::<Chunk>();
/// Bytes of a block of small records.
const BLOCK_BYTES: usize = size_of::<BlockHeader>() + SMALL_SLOTS as usize * 16;
/// Lost at most to the alignment of the first part; the others keep theirs.
const ALIGNMENT_BYTES: usize = align_of::<CpuCache>();
/// Blocks in every area that [`metadata_bytes`] describes, however small the window is.
const LEAST_BLOCKS: usize = 32;
/// Of an area that does not cover the window with blocks to spare, this share still goes to blocks.
#[cfg(not(loom))]
const BLOCK_SHARE: usize = 8;

const _: () = assert!(cfg!(loom) || size_of::<BlockHeader>() == 12);

/// Bytes of private metadata for a window: 1 % of it, or what the caches of the CPUs and one record for each 2 KiB need
/// where that is more.
///
/// What is left of the 1 % holds records for mappings below 2 KiB: one for each 16 KiB of a window of 64 MiB with 2 CPUs,
/// one for each 8 KiB of a large one. When they run out such mappings take 2 KiB each; use [`metadata_bytes_with_small`] for more.
pub const fn metadata_bytes(window_bytes: u64, cpus: usize) -> usize {
    let chunks = to_index(window_bytes.div_ceil(CHUNK_BYTES));
    let least = fixed_bytes(chunks, cpus);
    let hundredth = to_index(window_bytes / 100);
    if hundredth > least { hundredth } else { least }
}

/// The same, with records for this many mappings below 2 KiB at a time. A pool that is to be filled with 64-byte mappings
/// needs a record for each 64 bytes.
pub const fn metadata_bytes_with_small(
    window_bytes: u64,
    cpus: usize,
    small_mappings: usize,
) -> usize {
    let chunks = to_index(window_bytes.div_ceil(CHUNK_BYTES));
    // What sits in the caches of the CPUs keeps its records.
    let blocks = small_mappings
        .div_ceil(SMALL_SLOTS as usize)
        .saturating_add(16 * caches(cpus));
    let bytes = fixed_bytes(chunks, cpus).saturating_add(blocks.saturating_mul(BLOCK_BYTES));
    let default = metadata_bytes(window_bytes, cpus);
    if bytes > default { bytes } else { default }
}

const fn fixed_bytes(chunks: usize, cpus: usize) -> usize {
    let blocks = LEAST_BLOCKS * BLOCK_BYTES;
    ALIGNMENT_BYTES
        + caches(cpus) * size_of::<CpuCache>()
        + heads(chunks) * size_of::<Heads>()
        + chunks * BYTES_PER_CHUNK
        + blocks
}

/// Doublings of the free lists for this many chunks.
#[expect(
    clippy::cast_possible_truncation,
    reason = "units of the largest window have numbers of 26 bits; more chunks are as many as that"
)]
const fn heads(chunks: usize) -> usize {
    let most = (MAX_WINDOW_BYTES / CHUNK_BYTES) as usize;
    let chunks = if chunks < most { chunks } else { most };
    doublings(chunks as u32 * UNITS_PER_CHUNK)
}

/// One cache at least; more than any machine has CPUs is a mistake.
const fn caches(cpus: usize) -> usize {
    if cpus == 0 {
        1
    } else if cpus > 4096 {
        4096
    } else {
        cpus
    }
}

/// The parts of a metadata area.
#[derive(Debug)]
pub(crate) struct Metadata<'a> {
    pub caches: &'a [CpuCache],
    pub tables: Tables<'a>,
    pub chunks: &'a mut [Chunk],
    /// For the lists of free blocks.
    pub heads: &'a mut [Heads],
    /// Size of the whole area.
    pub bytes: usize,
}

#[cfg(not(loom))]
impl<'a> Metadata<'a> {
    /// Clears an area and divides it for a window of this many chunks. The window is covered from its start, as far as
    /// the area reaches. `None` if not even one chunk is.
    pub fn carve(area: &'a mut [u8], window_chunks: usize, cpus: usize) -> Option<Self> {
        let bytes = area.len();
        area.fill(0);
        let rest = aligned(area, align_of::<CpuCache>())?;
        let (cpu_caches, rest) = CpuCache::carve(rest, caches(cpus))?;
        let (heads, rest) =
            <[Heads]>::mut_from_prefix_with_elems(rest, heads(window_chunks)).ok()?;
        let all_covered = rest.len() / BYTES_PER_CHUNK >= window_chunks;
        let for_chunks = if all_covered {
            rest.len()
        } else {
            rest.len() - rest.len() / BLOCK_SHARE
        };
        let covered = (for_chunks / BYTES_PER_CHUNK).min(window_chunks);
        let units = covered * UNITS_PER_CHUNK as usize;
        if covered == 0 {
            return None;
        }
        let blocks = (rest.len() - covered * BYTES_PER_CHUNK) / BLOCK_BYTES;
        let all_records = units + blocks * SMALL_SLOTS as usize;
        let (records, rest) = <[Record]>::mut_from_prefix_with_elems(rest, all_records).ok()?;
        let (blocks, rest) = <[BlockHeader]>::mut_from_prefix_with_elems(rest, blocks).ok()?;
        let (chunks, rest) = <[Chunk]>::mut_from_prefix_with_elems(rest, covered).ok()?;
        let (tags, _) = <[AtomicU16]>::mut_from_prefix_with_elems(rest, units).ok()?;
        Some(Self {
            caches: cpu_caches,
            tables: Tables::new(tags, records, blocks),
            chunks,
            heads,
            bytes,
        })
    }
}

#[cfg(loom)]
impl Metadata<'_> {
    /// There are no plain bytes that could become loom's atomics; models build their tables themselves.
    pub fn carve(_area: &mut [u8], _window_chunks: usize, _cpus: usize) -> Option<Self> {
        None
    }
}

/// The part of an area that begins at a multiple of `alignment`; empty if there is none.
#[cfg(not(loom))]
fn aligned(area: &mut [u8], alignment: usize) -> Option<&mut [u8]> {
    let skip = area.as_ptr().addr().wrapping_neg() % alignment;
    area.get_mut(skip..)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_default_area_is_a_hundredth_and_covers_the_window() {
        // An interpreter has no time for large ones.
        let sizes: &[u64] = if cfg!(miri) {
            &[64]
        } else {
            &[64, 256, 1024, 16384]
        };
        for &mib in sizes {
            let window = mib << 20;
            let bytes = metadata_bytes(window, 2);
            assert!(bytes as u64 * 100 <= window, "{mib} MiB: {bytes}");
            let mut area = std::vec![0xff_u8; bytes + 1];
            let metadata = Metadata::carve(&mut area[1..], (mib / 2) as usize, 2).unwrap();
            assert_eq!(metadata.chunks.len() as u64, mib / 2);
            assert_eq!(metadata.caches.len(), 2);
            let small = metadata.tables.blocks() as u64 * 32;
            assert!(
                small >= window / (16 << 10),
                "{mib} MiB: {small} small records"
            );
        }
    }

    #[test]
    fn small_areas_cover_what_they_can_and_keep_some_blocks() {
        let mut area = std::vec![0_u8; metadata_bytes(8 << 20, 1) / 2];
        let metadata = Metadata::carve(&mut area, 4, 1).unwrap();
        assert!((1..4).contains(&metadata.chunks.len()));
        assert!(metadata.tables.blocks() > 0);
        assert!(Metadata::carve(&mut [0; 4096], 4, 1).is_none());
        assert!(Metadata::carve(&mut [], 4, 1).is_none());
    }

    #[test]
    fn more_small_mappings_get_more_blocks() {
        let wanted = (4 << 20) / 64;
        let mut area = std::vec![0_u8; metadata_bytes_with_small(4 << 20, 2, wanted)];
        let metadata = Metadata::carve(&mut area, 2, 2).unwrap();
        assert!(metadata.tables.blocks() * 32 >= wanted);
    }
}
