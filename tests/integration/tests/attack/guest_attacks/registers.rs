// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any registers and any list: random values, and those at which something begins or ends. Judged by the reference model
//! and the reverse map.

use std::collections::BTreeMap;

use protocol::memory_form::CallBlock;
use reference_model::world::Watched;
use reference_model::{Shape, guest};
use snp::svsm::ResultCode;
use svsm_swiotlb::page_state::PageState;
use zerocopy::IntoBytes;

use crate::judged::{Judged, judged};

const SHAPE: Shape = Shape {
    window: 0x4000_0000,
    chunks: 4,
    hard_cap: 3,
    second: None,
    ram: 0x20_0000,
    ram_pages: 16,
};

/// A page of each state.
const PAGES: [(u64, PageState); 12] = [
    (page(0), PageState::Valid),
    (page(1), PageState::CallingArea),
    (page(2), PageState::Valid),
    (page(3), PageState::Vmsa),
    (page(4), PageState::Paravisor),
    (page(5), PageState::Quarantined),
    (page(6), PageState::Valid),
    (page(7), PageState::Valid),
    (page(8), PageState::Valid),
    (page(9), PageState::Valid),
    (page(10), PageState::Valid),
    (page(11), PageState::Valid),
];

const fn page(number: u64) -> u64 {
    SHAPE.ram + number * 4096
}

/// Numbers that look random and are the same each time (splitmix64).
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let word = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ word >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    /// Where something begins or ends, give or take one.
    fn boundary(&mut self) -> u64 {
        let base = match self.below(12) {
            0 => 0,
            1 => SHAPE.ram,
            2 => page(SHAPE.ram_pages),
            3 => SHAPE.window,
            4 => SHAPE.window + (4 << 21),
            5 => 1 << 52,
            6 => 1 << 51,
            7 => 1 << 63,
            8 => u64::MAX,
            9 => 1 << 32,
            10 => page(self.below(17)),
            _ => 1 << self.below(64),
        };
        match self.below(8) {
            0 => base.wrapping_sub(1),
            1 => base.wrapping_add(1),
            2 => base.wrapping_sub(8),
            3 => base.wrapping_add(4088),
            4 => base.wrapping_sub(4096),
            _ => base,
        }
    }

    /// A register.
    fn register(&mut self, epoch: u32) -> u64 {
        let epoch = u64::from(epoch);
        match self.below(8) {
            0 => self.word(),
            1 | 2 => self.boundary(),
            3 => page(self.below(16)) + 8 * self.below(4),
            4 => epoch << 32 | self.below(4),
            5 => epoch,
            6 => (1 + self.below(130)) * 8,
            _ => 0,
        }
    }

    /// An entry of a list of CONVERT.
    fn entry(&mut self) -> u64 {
        let page = match self.below(8) {
            0 => self.word(),
            1 => self.boundary(),
            _ => page(self.below(17)),
        };
        match self.below(12) {
            0 => page,
            1 => page | 7,
            2 => page & !0x1F_FFFF | 1 | self.below(2) << 2,
            _ => page & !0xFFF | self.below(2) << 2,
        }
    }
}

/// Something into a page that lists are read from.
fn write_list(world: &Judged<'_>, random: &mut Random) -> u64 {
    let list = page(random.below(3)) + 8 * random.below(2) * random.below(500);
    let entries = match random.below(16) {
        0 => random.word() & 0xFFFF,
        1 => 511,
        _ => random.below(6),
    };
    let next = random.below(8) / 6;
    let reserved = random.below(32) / 31;
    let mut bytes = (entries | next << 16 | reserved << 32)
        .to_le_bytes()
        .to_vec();
    for _ in 0..6 {
        bytes.extend(random.entry().to_le_bytes());
    }
    let room = 4096 - list % 4096;
    bytes.truncate(usize::try_from(room).unwrap());
    world.hostile().poke(list, &bytes);
    list
}

/// So many calls in one world; what was answered.
fn run(seed: u64, calls: u64, answers: &mut BTreeMap<(u64, u32), u64>) {
    judged(SHAPE, &PAGES, &[], |world| {
        let mut random = Random(seed);
        world.call(&guest::attach());
        for _ in 0..calls {
            let list = write_list(world, &mut random);
            let epoch = world.epoch();
            let number = match random.below(24) {
                0 => random.word() & 0xFFFF_FFFF,
                number @ 1..=16 => number,
                17..=20 => 9,
                _ => [4, 5, 6, 10, 11, 11][usize::try_from(random.below(6)).unwrap()],
            };
            // Epochs end seldom.
            if number == 2 && random.below(2) > 0 || number == 6 && random.below(8) > 0 {
                continue;
            }
            let mut call = guest::raw(
                number,
                random.register(epoch),
                random.register(epoch),
                random.register(epoch),
            );
            if random.below(2) == 0 {
                call = match number {
                    2 => guest::attach(),
                    4 | 5 => guest::raw(number, u64::from(epoch) << 32 | random.below(4), 0, 0),
                    6 => guest::detach(epoch),
                    7 => guest::grow(epoch, 1, 1 + random.below(3), random.below(2) == 0),
                    9 => guest::raw(9, list, epoch.into(), 0),
                    10 => guest::statistics(list, 8 * (1 + random.below(63))),
                    11 => guest::raw(11, list, 32 * (1 + random.below(9)), random.below(40)),
                    _ => call,
                };
            }
            // Now and then from a block in the calling area, or where that is not.
            if random.below(4) == 0 {
                let block =
                    page(random.below(16).clamp(1, 3) / 2 + 1) + 8 * (1 + random.below(508));
                world.hostile().poke(block, CallBlock::of(&call).as_bytes());
                call = guest::memory_form(block);
            }
            let number = call.rax & 0xFFFF_FFFF;
            let code = world.call(&call);
            *answers.entry((number.min(17), code.0)).or_default() += 1;
            assert!(!world.service.has_stopped(), "{call:x?}");
        }
    });
}

#[test]
fn c2_p_4_4_p_4_5_any_registers_and_any_list() {
    let mut answers = BTreeMap::new();
    let (seeds, calls) = (120, 300);
    for seed in 0..seeds {
        run(seed, calls, &mut answers);
    }
    let total: u64 = answers.values().sum();
    println!("{total} calls of any registers:");
    for ((number, code), count) in &answers {
        println!("{count:5} of call {number}: {}", ResultCode(*code));
    }
    // Not all of it was refused at the door.
    for number in [4, 5, 6, 9, 10, 11, 16] {
        for code in [ResultCode::SUCCESS, ResultCode::INVALID_PARAMETER] {
            let seen = answers.contains_key(&(number, code.0));
            assert!(seen, "call {number} never answered {code}");
        }
    }
    let convert = [ResultCode::INCOMPLETE, ResultCode::INVALID_ADDRESS];
    assert!(
        convert
            .iter()
            .all(|code| answers.contains_key(&(9, code.0)))
    );
}
