// SPDX-License-Identifier: MIT OR Apache-2.0
//! The workload's random numbers: the same sequence on every machine and for every allocator.

/// Longest mapping of the workload in bytes.
pub const LONGEST: usize = 256 << 10;

/// Sizes of [`Random::mixed_size`] and how often of 1000: cumulative share, smallest, largest. Requests of a guest while
/// it boots, as GuoRui Yu measured them (linux-kernel, 2023-01-28), capped at 256 KiB.
const MIX: [(u64, usize, usize); 5] = [
    (35, 64, 512),
    (577, 513, 2048),
    (913, 2049, 4096),
    (960, 4097, 16384),
    (1000, 16385, LONGEST),
];

/// splitmix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    #[inline]
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number, reduced to `0..bound` the way the workload does it.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the remainder is below a usize"
    )]
    pub const fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// The lowest bits of the next number.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the mask is a usize")]
    pub const fn bits(&mut self, mask: usize) -> usize {
        (self.next() & mask as u64) as usize
    }

    /// The lowest byte of the next number.
    #[inline]
    pub const fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// A length in bytes out of the mixture.
    #[inline]
    pub fn mixed_size(&mut self) -> usize {
        let share = self.next() % 1000;
        let mut range = MIX[4];
        for class in MIX {
            if share < class.0 {
                range = class;
                break;
            }
        }
        let (_, low, high) = range;
        low + self.below(high - low + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The numbers below are what the workload's definition in C prints for these seeds.

    #[test]
    fn the_sequence_is_the_one_of_the_workload() {
        let mut random = Random::new(1);
        let expected = [
            0x910a_2dec_8902_5cc1,
            0xbeeb_8da1_658e_ec67,
            0xf893_a2ee_fb32_555e,
            0x71c1_8690_ee42_c90b,
        ];
        assert_eq!(expected.map(|_| random.next()), expected);
    }

    #[test]
    fn the_first_sizes_of_two_threads() {
        let threads = [
            (
                1000,
                [
                    2992, 936, 1635, 1400, 1926, 1753, 1186, 588, 2525, 2321, 3170, 1181,
                ],
            ),
            (
                1077,
                [
                    3078, 1197, 3786, 1229, 15533, 3092, 2267, 2489, 1086, 872, 53800, 658,
                ],
            ),
        ];
        for (seed, expected) in threads {
            let mut random = Random::new(seed);
            assert_eq!(
                expected.map(|_| random.mixed_size()),
                expected,
                "seed {seed}"
            );
        }
    }

    #[test]
    fn the_first_mappings_that_fill_a_pool() {
        let mut random = Random::new(7919 + 17);
        let expected = [
            (782, 1048),
            (726, 408),
            (852, 3872),
            (1304, 2800),
            (2233, 3072),
            (2437, 104),
        ];
        let drawn = expected.map(|_| {
            let length = random.mixed_size();
            (length, random.bits(0xff8))
        });
        assert_eq!(drawn, expected);
    }

    #[test]
    fn the_mixture_has_its_shares() {
        let mut random = Random::new(1000);
        let mut shares = [0; 5];
        let mut bytes = 0;
        for _ in 0..100_000 {
            let size = random.mixed_size();
            bytes += size;
            let class = MIX.iter().position(|&(_, _, longest)| size <= longest);
            shares[class.expect("no size is beyond the mixture")] += 1;
        }
        assert_eq!(bytes, 763_732_917);
        assert_eq!(shares, [3339, 54327, 33772, 4639, 3923]);
    }
}
