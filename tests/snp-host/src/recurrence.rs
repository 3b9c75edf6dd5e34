// SPDX-License-Identifier: MIT OR Apache-2.0
//! When a misbehaving host strikes: counted in turns in which it behaved.

/// A schedule of misbehaviour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recurrence {
    /// Never.
    #[default]
    Never,
    /// Once, after `left` more turns.
    Once {
        /// Honest turns until then.
        left: u8,
    },
    /// Again and again, with `turns` honest ones before each.
    Every {
        /// Honest turns before each time.
        turns: u8,
        /// Honest turns until the next time.
        left: u8,
    },
}

impl Recurrence {
    /// Again and again, with `turns` honest ones before each.
    #[must_use]
    pub const fn every(turns: u8) -> Self {
        Self::Every { turns, left: turns }
    }

    /// Whether the next turn is not an honest one.
    #[must_use]
    pub const fn is_due(self) -> bool {
        matches!(self, Self::Once { left: 0 } | Self::Every { left: 0, .. })
    }

    /// The host behaved this turn.
    pub const fn behaved(&mut self) {
        match self {
            Self::Never => {}
            Self::Once { left } | Self::Every { left, .. } => *left = left.saturating_sub(1),
        }
    }

    /// The host did not behave this turn.
    pub const fn misbehaved(&mut self) {
        *self = match *self {
            Self::Never | Self::Once { .. } => Self::Never,
            Self::Every { turns, .. } => Self::every(turns),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn turns(mut when: Recurrence) -> Vec<bool> {
        let turn = |_| {
            let due = when.is_due();
            if due {
                when.misbehaved();
            } else {
                when.behaved();
            }
            due
        };
        (0..7).map(turn).collect()
    }

    #[test]
    fn honest_turns_lie_between() {
        let (no, yes) = (false, true);
        assert_eq!(turns(Recurrence::Never), [no; 7]);
        assert_eq!(
            turns(Recurrence::Once { left: 1 }),
            [no, yes, no, no, no, no, no]
        );
        assert_eq!(turns(Recurrence::every(2)), [no, no, yes, no, no, yes, no]);
        assert_eq!(turns(Recurrence::every(0)), [yes; 7]);
    }
}
