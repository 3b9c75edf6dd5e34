// SPDX-License-Identifier: MIT OR Apache-2.0
//! One bit per slot of a chunk, set where the slot is free.
//!
//! Free runs are found by jumping from run to run with bit counts: at most 512 runs per chunk, and sixteen words for a
//! chunk that is empty or full.

use crate::geometry::SLOTS_PER_CHUNK;

/// Words of the map.
pub(super) const WORDS: usize = SLOTS_PER_CHUNK / 64;

/// The free slots of one chunk, lowest slot in bit 0 of word 0.
pub(super) type FreeMap = [u64; WORDS];

/// Which first slots a run may have, inside one chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartRule {
    /// Bits of the slot number that matter.
    pub mask: usize,
    /// Their value.
    pub phase: usize,
    /// Highest first slot.
    pub last: usize,
}

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// First slot of a run.
    Found(usize),
    /// No run; the length of the longest one, whatever its alignment.
    Longest(usize),
}

/// Finds the lowest run of `slots` free slots whose first slot keeps the rule.
pub(super) fn find_run(map: &FreeMap, slots: usize, rule: StartRule) -> Search {
    let mut longest = 0;
    let mut position = 0;
    while let Some(begin) = next_bit(map, position, 0) {
        let end = next_bit(map, begin, u64::MAX).unwrap_or(SLOTS_PER_CHUNK);
        let start = begin + (rule.phase.wrapping_sub(begin) & rule.mask);
        if start <= rule.last && start + slots <= end {
            return Search::Found(start);
        }
        longest = longest.max(end - begin);
        position = end;
    }
    Search::Longest(longest)
}

/// The first set bit at or after `from` in the map XOR `invert` (0: the next free slot, all ones: the next used one).
pub(super) fn next_bit(map: &FreeMap, from: usize, invert: u64) -> Option<usize> {
    let first = from / 64;
    for (index, word) in map.iter().enumerate().skip(first) {
        let mut bits = word ^ invert;
        if index == first {
            bits &= u64::MAX << (from % 64);
        }
        if bits != 0 {
            return Some(index * 64 + bits.trailing_zeros() as usize);
        }
    }
    None
}

/// Marks `slots` slots from `start` free or used; slots beyond the chunk are ignored.
pub(super) fn mark(map: &mut FreeMap, start: usize, slots: usize, free: bool) {
    let end = start + slots;
    for (index, word) in map.iter_mut().enumerate() {
        let low = start.max(index * 64);
        let high = end.min(index * 64 + 64);
        if low < high {
            let bits = (u64::MAX >> (64 - (high - low))) << (low % 64);
            *word = if free { *word | bits } else { *word & !bits };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANY: StartRule = StartRule {
        mask: 0,
        phase: 0,
        last: SLOTS_PER_CHUNK,
    };

    #[test]
    fn an_empty_and_a_full_chunk() {
        assert_eq!(
            find_run(&[u64::MAX; WORDS], SLOTS_PER_CHUNK, ANY),
            Search::Found(0)
        );
        assert_eq!(
            find_run(&[u64::MAX; WORDS], SLOTS_PER_CHUNK + 1, ANY),
            Search::Longest(SLOTS_PER_CHUNK)
        );
        assert_eq!(find_run(&[0; WORDS], 1, ANY), Search::Longest(0));
    }

    #[test]
    fn runs_cross_words() {
        let mut map = [0; WORDS];
        mark(&mut map, 60, 10, true);
        assert_eq!(find_run(&map, 10, ANY), Search::Found(60));
        assert_eq!(find_run(&map, 11, ANY), Search::Longest(10));
        mark(&mut map, 64, 2, false);
        assert_eq!(map[0], 0xf << 60);
        assert_eq!(map[1], 0x3c);
    }

    proptest! {
        #[test]
        fn the_search_agrees_with_trying_every_slot(
            marks in proptest::collection::vec((0usize..SLOTS_PER_CHUNK, 1usize..200, any::<bool>()), 0..40),
            slots in 1usize..300,
            mask_bits in 0u32..6,
            phase in any::<usize>(),
            last in 0usize..=SLOTS_PER_CHUNK,
        ) {
            let mut map = [0; WORDS];
            let mut plain = [false; SLOTS_PER_CHUNK];
            for (start, length, free) in marks {
                mark(&mut map, start, length, free);
                plain.iter_mut().skip(start).take(length).for_each(|slot| *slot = free);
            }
            let rule = StartRule { mask: (1 << mask_bits) - 1, phase: phase & ((1 << mask_bits) - 1), last };
            let expected = (0..SLOTS_PER_CHUNK).find(|&start| {
                start & rule.mask == rule.phase
                    && start <= last
                    && start + slots <= SLOTS_PER_CHUNK
                    && plain[start..start + slots].iter().all(|&free| free)
            });
            let longest = plain.split(|&free| !free).map(<[bool]>::len).max().unwrap_or(0);
            prop_assert_eq!(
                find_run(&map, slots, rule),
                expected.map_or(Search::Longest(longest), Search::Found)
            );
        }
    }
}
