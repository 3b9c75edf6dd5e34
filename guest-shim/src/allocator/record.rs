// SPDX-License-Identifier: MIT OR Apache-2.0
//! The private record of what is handed out at a slot or an extent: to whom its bytes belong, and which time this is.
//!
//! Records live in memory that only the guest sees. Neither an unmap nor a sync ever asks the pool what is true.
//!
//! ```text
//!               publish                 claim                     retire
//!   Free(g) ------------> Live(g) --------------> Claimed(g) ------------> Free(g + 1)
//!                          |   ^
//!                    share v   | unshare
//!                     Live(g), 1 to 61 syncs
//! ```
//!
//! Only the context that has taken the slot publishes, and only the one whose compare-and-swap won the claim copies out
//! or frees. Two unmaps of one mapping, on whatever CPUs, therefore end as one success and one error. Syncs only share: as
//! many as 61 at a time, among them those of interrupt handlers in the middle of others, and none waits for another. While
//! there is one nobody can claim, and once somebody has claimed nobody can share.

#[cfg(not(loom))]
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::atomic::{AtomicU64, Ordering};
use crate::constraints::{CopyIn, Direction};

/// What was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing, ever.
    Nothing,
    /// A mapping.
    Mapping(Direction, CopyIn),
    /// A shared buffer.
    SharedBuffer,
}

impl Kind {
    #[inline]
    const fn into_bits(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Mapping(Direction::ToDevice, _) => 1,
            Self::Mapping(Direction::FromDevice, CopyIn::Keep) => 2,
            Self::Mapping(Direction::FromDevice, CopyIn::DeviceWritten) => 3,
            Self::Mapping(Direction::Bidirectional, _) => 4,
            Self::SharedBuffer => 5,
        }
    }

    #[inline]
    const fn from_bits(bits: u64) -> Self {
        match bits {
            1 => Self::Mapping(Direction::ToDevice, CopyIn::Keep),
            2 => Self::Mapping(Direction::FromDevice, CopyIn::Keep),
            3 => Self::Mapping(Direction::FromDevice, CopyIn::DeviceWritten),
            4 => Self::Mapping(Direction::Bidirectional, CopyIn::Keep),
            5 => Self::SharedBuffer,
            _ => Self::Nothing,
        }
    }

    /// Whether the same was meant: a direction, or a shared buffer.
    #[inline]
    pub const fn matches(self, other: Self) -> bool {
        match (self, other) {
            (Self::Mapping(one, _), Self::Mapping(two, _)) => one as u8 == two as u8,
            (Self::SharedBuffer, Self::SharedBuffer) => true,
            _ => false,
        }
    }
}

/// Who may use what is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Nothing is handed out here now.
    Free,
    /// Handed out. So many contexts are copying parts of it.
    Live(u8),
    /// A context is copying out of it for the last time, or freeing it.
    Claimed,
}

/// Most syncs of one mapping at a time.
pub(crate) const MOST_SYNCS: u8 = 61;
const USE_SHIFT: u32 = 3;
const USE_BITS: u32 = 6;
const USE_MASK: u64 = (1 << USE_BITS) - 1;
/// What a sync adds to the state word.
const ONE_SYNC: u64 = 1 << USE_SHIFT;
/// Handed out, and no sync.
const LIVE: u64 = 1;
const CLAIMED: u64 = USE_MASK;

impl Use {
    #[inline]
    const fn into_bits(self) -> u64 {
        match self {
            Self::Free => 0,
            Self::Live(syncs) => LIVE + syncs as u64,
            Self::Claimed => CLAIMED,
        }
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "six bits")]
    const fn from_bits(bits: u64) -> Self {
        match bits {
            0 => Self::Free,
            CLAIMED => Self::Claimed,
            live => Self::Live((live - LIVE) as u8),
        }
    }
}

/// Why a context may not share a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotShared {
    /// It is being unmapped, or was: it is not the one that was seen any more.
    Gone,
    /// As many syncs as can be counted are copying.
    TooMany,
}

/// The word that changes hands.
///
/// ```text
/// 63            23 22     9 8     3 2    0
/// | generation    | extra  | usage | kind |
/// ```
///
/// * `kind` stays when what was handed out is given back, which tells a second unmap from an address that was never
///   mapped.
/// * `usage` is 0 for free, 63 for claimed, else one more than the number of syncs.
/// * `extra` is the length of a slot's mapping in bytes, less 1; for an extent the whole units of its offset.
/// * `generation` counts how often something here was given back; a handle carries it. At one reuse of the same slot in
///   30 ns, without a pause, it takes 18 hours to come round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State(u64);

const EXTRA_SHIFT: u32 = USE_SHIFT + USE_BITS;
const EXTRA_BITS: u32 = 14;
const GENERATION_SHIFT: u32 = EXTRA_SHIFT + EXTRA_BITS;
const GENERATION_MASK: u64 = u64::MAX >> GENERATION_SHIFT;

impl State {
    #[inline]
    const fn of(kind: Kind, usage: Use, extra: u16, generation: u64) -> Self {
        let extra = extra as u64 & ((1 << EXTRA_BITS) - 1);
        Self(
            kind.into_bits()
                | usage.into_bits() << USE_SHIFT
                | extra << EXTRA_SHIFT
                | (generation & GENERATION_MASK) << GENERATION_SHIFT,
        )
    }

    /// What was handed out.
    #[inline]
    pub const fn kind(self) -> Kind {
        Kind::from_bits(self.0 & 7)
    }

    /// Who may use it.
    #[inline]
    pub const fn usage(self) -> Use {
        Use::from_bits(self.0 >> USE_SHIFT & USE_MASK)
    }

    /// Length less 1, or whole units of the offset.
    #[inline]
    pub const fn extra(self) -> u64 {
        self.0 >> EXTRA_SHIFT & ((1 << EXTRA_BITS) - 1)
    }

    /// How often something was given back here.
    #[inline]
    pub const fn generation(self) -> u64 {
        self.0 >> GENERATION_SHIFT
    }

    #[inline]
    const fn with_usage(self, usage: Use) -> Self {
        Self(self.0 & !(USE_MASK << USE_SHIFT) | usage.into_bits() << USE_SHIFT)
    }

    /// The same given back: free, and the next generation.
    #[inline]
    const fn given_back(self) -> Self {
        let next = self.0.wrapping_add(1 << GENERATION_SHIFT);
        Self(next).with_usage(Use::Free)
    }

    /// Whether something is handed out and no sync copies it: what a claim needs.
    #[inline]
    pub const fn is_idle(self) -> bool {
        self.0 >> USE_SHIFT & USE_MASK == LIVE
    }

    /// Whether a slot is handed out as this, with this length, and no sync copies it; the copy-in attribute does not
    /// matter.
    #[inline]
    pub const fn is_live(self, kind: Kind, length: u64) -> bool {
        let wanted = length.wrapping_sub(1) << EXTRA_SHIFT | LIVE << USE_SHIFT;
        let differs = (self.0 & ((1 << GENERATION_SHIFT) - 1)) ^ wanted;
        // Only the kind may be left.
        differs < 8 && self.kind().matches(kind)
    }
}

/// The driver's buffer, and what the mapping's address has in common with it.
///
/// ```text
/// 63 60 59      57 56                                   0
/// | shift | unused | address without its upper bits       |
/// ```
///
/// * The upper bits of an address repeat bit 56: canonical addresses, five-level paging.
/// * `shift` is log2 of the granule whose low address bits the mapping shares with its buffer; 0 if it begins where its
///   slot does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin(u64);

const ADDRESS_BITS: u32 = 57;

impl Origin {
    /// Of a buffer; the address must be canonical. `shift` is at most 15.
    #[inline]
    pub const fn of(address: u64, shift: u8) -> Self {
        Self(address & (u64::MAX >> (64 - ADDRESS_BITS)) | (shift as u64) << 60)
    }

    /// Address of the buffer.
    #[inline]
    pub const fn address(self) -> u64 {
        ((self.0 << (64 - ADDRESS_BITS)).cast_signed() >> (64 - ADDRESS_BITS)).cast_unsigned()
    }

    /// Bytes between the beginning of the granule and the buffer, and between that of the slot and the mapping.
    #[inline]
    pub const fn low_bits(self) -> u64 {
        self.0 & ((1 << (self.0 >> 60)) - 1)
    }
}

/// One record: 16 bytes.
#[cfg_attr(not(loom), derive(FromBytes, IntoBytes, KnownLayout))]
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Record {
    /// [`Origin`] while something is handed out. Otherwise it belongs to the holder of the central lock, who keeps lists
    /// here.
    word: AtomicU64,
    state: AtomicU64,
}

impl Record {
    /// A record nothing was ever handed out at.
    #[cfg(any(test, loom))]
    pub fn unused() -> Self {
        Self {
            word: AtomicU64::new(0),
            state: AtomicU64::new(0),
        }
    }

    /// Enters what the caller has taken. Returns the generation of its handle.
    #[inline]
    pub fn publish(&self, origin: Origin, kind: Kind, extra: u16) -> u64 {
        let generation = self.state().generation();
        self.word.store(origin.0, Ordering::Relaxed);
        // Release: whoever sees the record live sees its origin.
        let live = State::of(kind, Use::Live(0), extra, generation);
        self.state.store(live.0, Ordering::Release);
        generation
    }

    /// The state now.
    #[inline]
    pub fn state(&self) -> State {
        State(self.state.load(Ordering::Acquire))
    }

    /// The origin; meaningful after a [`State`] that says live.
    #[inline]
    pub fn origin(&self) -> Origin {
        Origin(self.word.load(Ordering::Relaxed))
    }

    /// Makes the caller the only one that may copy or free. `false` if the state is no longer the one seen, which was
    /// [idle](State::is_idle).
    #[inline]
    pub fn claim(&self, seen: State) -> bool {
        let claimed = seen.with_usage(Use::Claimed);
        self.state
            .compare_exchange(seen.0, claimed.0, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Keeps what was seen handed out until [`Record::unshare`]. Never waits: an attempt fails only where another context
    /// has begun or ended a sync meanwhile, or for good.
    ///
    /// # Errors
    /// Why not.
    #[inline]
    pub fn share(&self, seen: State) -> Result<(), NotShared> {
        let mut now = seen;
        loop {
            match now.usage() {
                Use::Live(syncs) if syncs < MOST_SYNCS => {}
                Use::Live(_) => return Err(NotShared::TooMany),
                Use::Free | Use::Claimed => return Err(NotShared::Gone),
            }
            // Acquire: what earlier syncs wrote happened before.
            let exchanged = self.state.compare_exchange(
                now.0,
                now.0 + ONE_SYNC,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            match exchanged.map_err(State) {
                Ok(_) => return Ok(()),
                Err(other) if other.with_usage(Use::Free) != seen.with_usage(Use::Free) => {
                    return Err(NotShared::Gone);
                }
                Err(other) => now = other,
            }
        }
    }

    /// Ends a share.
    #[inline]
    pub fn unshare(&self) {
        // Release: what this sync read or wrote happened before a claim that sees it ended, whoever else ends one in
        // between. Nobody but syncs changes the state while there is one.
        self.state.fetch_sub(ONE_SYNC, Ordering::Release);
    }

    /// Ends a claim and what was claimed: handles given out for it are stale from now on.
    #[inline]
    pub fn retire(&self, seen: State) {
        self.state.store(seen.given_back().0, Ordering::Release);
    }

    /// Claim and retirement in one step, where nothing is left to copy. `false` if the state is no longer the one seen.
    #[inline]
    pub fn claim_and_retire(&self, seen: State) -> bool {
        self.state
            .compare_exchange(
                seen.0,
                seen.given_back().0,
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// Makes the record one of another slot that was given back `generation` times. Only where nothing is handed out.
    pub fn restart(&self, generation: u64) {
        let state = State::of(Kind::Nothing, Use::Free, 0, generation);
        self.state.store(state.0, Ordering::Release);
    }

    /// Raises the generation to at least this one. Only where nothing is handed out.
    pub fn raise(&self, generation: u64) {
        let state = self.state();
        if state.generation() < generation {
            let raised = State::of(state.kind(), Use::Free, 0, generation);
            self.state.store(raised.0, Ordering::Release);
        }
    }

    /// The word for lists; only where nothing is handed out.
    #[inline]
    pub fn word(&self) -> u64 {
        self.word.load(Ordering::Relaxed)
    }

    /// Sets the word for lists; only where nothing is handed out.
    #[inline]
    pub fn set_word(&self, word: u64) {
        self.word.store(word, Ordering::Relaxed);
    }
}

const _: () = assert!(cfg!(loom) || size_of::<Record>() == 16);

#[cfg(all(test, not(loom)))]
mod tests;
