// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts against a search unit by unit.

use proptest::prelude::*;

use super::*;
use crate::tests::cases;

/// A start with a boundary, and what it is made of.
#[derive(Clone, Copy, Debug)]
pub(in crate::allocator) struct Wish {
    start: Start,
    /// Boundary in units, a unit that is a multiple of it, and the units of the run that count.
    boundary: u32,
    multiple: u32,
    further: u32,
    pub length: u32,
}

impl Wish {
    /// Whether a run may begin at `unit`, computed from the definition of a boundary.
    pub fn allows(&self, unit: u32) -> bool {
        let Start { mask, phase, .. } = self.start;
        let piece = |unit: u32| {
            (i64::from(unit) - i64::from(self.multiple)).div_euclid(i64::from(self.boundary))
        };
        unit % (mask + 1) == phase && piece(unit) == piece(unit + self.further)
    }

    /// The same as the lists take it.
    pub const fn start(&self) -> Start {
        self.start
    }
}

/// Strides up to 16 units, boundaries up to 256.
pub(in crate::allocator) fn wish() -> impl Strategy<Value = Wish> {
    (0_u32..5, 1_u32..5, any::<[u32; 4]>()).prop_map(
        |(stride, times, [phase, multiple, further, rounding])| {
            let (stride, boundary) = (1 << stride, 1 << stride << times);
            let phase = phase % stride;
            let multiple = multiple % (boundary / stride) * stride;
            // As early as it may behind a multiple it fits.
            let further = further % (boundary - phase);
            Wish {
                start: Start {
                    mask: stride - 1,
                    phase,
                    boundary: Boundary::new(boundary, multiple, further),
                },
                boundary,
                multiple,
                further,
                length: 1 + further + rounding % 3,
            }
        },
    )
}

proptest! {
    #![proptest_config(cases(2000))]
    #[test]
    fn a_block_has_room_where_a_search_finds_some(
        wish in wish(), block in 0_u32..600, block_length in 1_u32..600,
    ) {
        let Wish { start, length, .. } = wish;
        let last = (block + block_length).checked_sub(length);
        let all = || (block..=last.unwrap_or(0)).filter(|unit| wish.allows(*unit));
        prop_assert_eq!(start.fit(block, block_length, length, Side::Low), all().next());
        prop_assert_eq!(start.fit(block, block_length, length, Side::High), all().next_back());
        for unit in block..block + block_length {
            prop_assert_eq!(start.allows(unit), wish.allows(unit));
        }
    }

    #[test]
    fn a_block_that_is_longer_by_the_slack_has_room_for_certain(wish in wish(), block in 0_u32..600) {
        let Wish { start, length, .. } = wish;
        for side in [Side::Low, Side::High] {
            prop_assert!(start.fit(block, length + start.slack(), length, side).is_some());
        }
    }
}

#[test]
fn no_block_needs_the_slack_of_another() {
    // Two strides of 8 before a boundary, and all of it counts: the first start is 7 units in, the next one 16 behind.
    let start = Start {
        boundary: Boundary::new(32, 0, 19),
        ..Start::multiple_of(8)
    };
    assert_eq!(start.slack(), 7 | 19);
    assert_eq!(start.fit(9, 20 + 22, 20, Side::Low), None);
    assert_eq!(start.fit(9, 20 + 23, 20, Side::Low), Some(32));
    assert_eq!((Start::ANY.slack(), Start::multiple_of(8).slack()), (0, 7));
    let anywhere = Start {
        boundary: Boundary::new(32, 0, 19),
        ..Start::ANY
    };
    assert_eq!(anywhere.fit(13, 38, 20, Side::Low), None);
    assert_eq!(
        (anywhere.slack(), anywhere.fit(13, 39, 20, Side::Low)),
        (19, Some(32))
    );
}
