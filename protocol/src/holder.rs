// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who holds a chunk: epoch and generation (clauses P-3.5 to P-3.7).
//!
//! A guest that restarts, or executes a new kernel, attaches again and gets a new [`Epoch`]. Grants of the old one are
//! orphans: still shared with the host, perhaps still written to by a device, and never granted again. Within an epoch
//! every GROW gives its run a new [`Generation`], so that a release which is repeated late cannot take away a chunk that
//! has meanwhile been granted anew.

/// One attachment of one guest kernel; never 0, at most [`Epoch::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u32);

impl Epoch {
    /// The first attachment.
    pub const FIRST: Self = Self(1);
    /// The last attachment: chunk records keep 24 bits of it.
    pub const MAX: Self = Self((1 << 24) - 1);

    /// The epoch with this number, unless no attachment can have it.
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 || number > Self::MAX.0 {
            None
        } else {
            Some(Self(number))
        }
    }

    /// The number in registers and lists.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The epoch of the next attachment, while there are any left.
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0.saturating_add(1))
    }
}

/// One grant; never 0. Wraps after 2^32 - 1 grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u32);

impl Generation {
    /// The first grant.
    pub const FIRST: Self = Self(1);

    /// The generation with this number, unless it is 0.
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 {
            None
        } else {
            Some(Self(number))
        }
    }

    /// The number in registers and lists.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The generation of the next grant.
    pub const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(number) => Self(number),
            None => Self::FIRST,
        }
    }
}

/// The proof that RELEASE asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Epoch of the holder.
    pub epoch: Epoch,
    /// Generation of the grant.
    pub generation: Generation,
}

impl Holder {
    /// Epoch in \[63:32\], generation in \[31:0\], as RELEASE passes them in R8.
    pub fn to_register(self) -> u64 {
        both_halves(self.epoch.number(), self.generation.number())
    }

    /// The reverse of [`Holder::to_register`]; `None` where a half is out of its range.
    pub fn from_register(bits: u64) -> Option<Self> {
        Some(Self {
            epoch: Epoch::new(high_half(bits))?,
            generation: Generation::new(low_half(bits))?,
        })
    }
}

/// A register with `high` in bits 63:32 and `low` in bits 31:0.
pub(crate) fn both_halves(high: u32, low: u32) -> u64 {
    (u64::from(high) << 32) | u64::from(low)
}

/// Bits 63:32 of a register.
pub(crate) const fn high_half(bits: u64) -> u32 {
    (bits >> 32) as u32
}

/// Bits 31:0 of a register.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is asked for"
)]
pub(crate) const fn low_half(bits: u64) -> u32 {
    bits as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_3_5_an_epoch_is_never_zero_and_ends() {
        assert_eq!(Epoch::new(0), None);
        assert_eq!(Epoch::new(1 << 24), None);
        assert_eq!(Epoch::FIRST.next().map(Epoch::number), Some(2));
        assert_eq!(Epoch::MAX.next(), None);
    }

    #[test]
    fn p_3_6_a_generation_wraps_past_zero() {
        assert_eq!(Generation::new(0), None);
        assert_eq!(
            Generation::new(u32::MAX).map(Generation::next),
            Some(Generation::FIRST)
        );
    }

    #[test]
    fn a_holder_fills_one_register() {
        let holder = Holder::from_register(0x0000_0003_0000_0007);
        assert_eq!(
            holder.map(|h| (h.epoch.number(), h.generation.number())),
            Some((3, 7))
        );
        assert_eq!(holder.map(Holder::to_register), Some(0x0000_0003_0000_0007));
        assert_eq!(Holder::from_register(0x0000_0003_0000_0000), None);
        assert_eq!(Holder::from_register(7), None);
    }
}
