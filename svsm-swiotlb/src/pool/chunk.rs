// SPDX-License-Identifier: MIT OR Apache-2.0
//! One record per chunk: an atomic word with state, epoch and generation.
//!
//! The word is plain data without pointers, zero when fresh, so that a successor can take the array over.

use protocol::{Epoch, Generation, Holder};

use crate::sync::{AtomicU64, Ordering};

/// State of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChunkState {
    /// Nobody's; what the host believes of it does not matter.
    Free,
    /// On its way to a grant; belongs to one call.
    Granting,
    /// Granted.
    Held(Holder),
    /// On its way back; belongs to one call.
    Releasing(Holder),
    /// In a state nobody knows; never used again (invariant P3).
    Quarantined,
}

const FREE: u64 = 0;
const GRANTING: u64 = 1;
const HELD: u64 = 2;
const RELEASING: u64 = 3;
const QUARANTINED: u64 = 4;

const EPOCH_SHIFT: u32 = 8;
const GENERATION_SHIFT: u32 = 32;

impl ChunkState {
    /// \[7:0\] state, \[31:8\] epoch, \[63:32\] generation.
    fn to_word(self) -> u64 {
        let (state, holder) = match self {
            Self::Free => (FREE, None),
            Self::Granting => (GRANTING, None),
            Self::Held(holder) => (HELD, Some(holder)),
            Self::Releasing(holder) => (RELEASING, Some(holder)),
            Self::Quarantined => (QUARANTINED, None),
        };
        let holder = holder.map_or(0, |holder| {
            (u64::from(holder.epoch.number()) << EPOCH_SHIFT)
                | (u64::from(holder.generation.number()) << GENERATION_SHIFT)
        });
        state | holder
    }

    /// A word that stands for no state means that storage was damaged: such a chunk is as good as quarantined.
    fn from_word(word: u64) -> Self {
        let holder = || {
            let epoch = u32::try_from((word >> EPOCH_SHIFT) & 0xFF_FFFF).ok()?;
            let generation = u32::try_from(word >> GENERATION_SHIFT).ok()?;
            Some(Holder {
                epoch: Epoch::new(epoch)?,
                generation: Generation::new(generation)?,
            })
        };
        let state = match word & 0xFF {
            FREE => Some(Self::Free),
            GRANTING => Some(Self::Granting),
            HELD => holder().map(Self::Held),
            RELEASING => holder().map(Self::Releasing),
            _ => None,
        };
        // Stray bits count as damage too: a record that no exchange could ever match would answer BUSY for ever.
        state
            .filter(|state| state.to_word() == word)
            .unwrap_or(Self::Quarantined)
    }

    /// Whether a call has the chunk in its hands right now.
    pub const fn in_transition(self) -> bool {
        matches!(self, Self::Granting | Self::Releasing(_))
    }
}

/// The records of a window.
#[derive(Clone, Copy, Debug)]
pub struct ChunkRecords<'a> {
    words: &'a [AtomicU64],
}

impl<'a> ChunkRecords<'a> {
    /// Storage with one word per chunk.
    pub const fn new(words: &'a [AtomicU64]) -> Self {
        Self { words }
    }

    /// Chunks.
    pub const fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// State of a chunk; Quarantined past the end, where nothing can be had either.
    #[inline(never)]
    pub fn state(&self, chunk: usize) -> ChunkState {
        let word = self
            .words
            .get(chunk)
            .map(|word| word.load(Ordering::Acquire));
        word.map_or(ChunkState::Quarantined, ChunkState::from_word)
    }

    /// Moves a chunk from one state to another, if it is in the first.
    pub(super) fn exchange(&self, chunk: usize, from: ChunkState, to: ChunkState) -> bool {
        self.words.get(chunk).is_some_and(|word| {
            let (from, to) = (from.to_word(), to.to_word());
            word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        })
    }

    /// Quarantines what an owner that is gone had in its hands: nobody knows how far the host came.
    pub(super) fn quarantine_in_transition(&self) {
        for chunk in 0..self.len() {
            if self.state(chunk).in_transition() {
                self.set(chunk, ChunkState::Quarantined);
            }
        }
    }

    /// Sets the state of a chunk that is in transition in the caller's hands.
    pub(super) fn set(&self, chunk: usize, to: ChunkState) {
        if let Some(word) = self.words.get(chunk) {
            word.store(to.to_word(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> Holder {
        Holder {
            epoch: Epoch::MAX,
            generation: Generation::new(0x89AB_CDEF).unwrap(),
        }
    }

    #[test]
    fn golden_words() {
        assert_eq!(ChunkState::Free.to_word(), 0);
        assert_eq!(ChunkState::Held(holder()).to_word(), 0x89AB_CDEF_FFFF_FF02);
        let all = [
            ChunkState::Free,
            ChunkState::Granting,
            ChunkState::Held(holder()),
            ChunkState::Releasing(holder()),
            ChunkState::Quarantined,
        ];
        for state in all {
            assert_eq!(ChunkState::from_word(state.to_word()), state);
        }
    }

    #[test]
    fn p3_a_damaged_word_is_quarantined() {
        for word in [
            5,
            0xFF,
            FREE | 1 << 8,
            GRANTING | 1 << 63,
            HELD,
            RELEASING,
            HELD | 1 << 32,
            HELD | 1 << 8,
        ] {
            assert_eq!(
                ChunkState::from_word(word),
                ChunkState::Quarantined,
                "{word:#x}"
            );
        }
    }

    #[test]
    fn w2_an_exchange_needs_the_exact_holder() {
        let words = [AtomicU64::new(ChunkState::Held(holder()).to_word())];
        let records = ChunkRecords::new(&words);
        let other = Holder {
            epoch: Epoch::FIRST,
            ..holder()
        };
        assert!(!records.exchange(0, ChunkState::Held(other), ChunkState::Free));
        assert!(records.exchange(0, ChunkState::Held(holder()), ChunkState::Free));
        assert!(!records.exchange(1, ChunkState::Quarantined, ChunkState::Free));
        assert_eq!(records.state(1), ChunkState::Quarantined);
    }
}
