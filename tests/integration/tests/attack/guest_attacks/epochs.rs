// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chunks, epochs and generations that are not the caller's. The reference model judges each call besides.

use protocol::result::{CAP_REACHED, NOT_ATTACHED, NOT_HELD, STALE_EPOCH};
use reference_model::{Chunk, Shape, guest};
use snp::svsm::{CallRegisters, ResultCode};
use svsm_swiotlb::page_state::PageState;

use crate::conversions::convert;
use crate::core_world::SUCCESS;
use crate::judged::{Judged, judged};

const SHAPE: Shape = Shape {
    window: 0x4000_0000,
    chunks: 6,
    hard_cap: 6,
    second: None,
    ram: 0x20_0000,
    ram_pages: 4,
};
const LIST: u64 = SHAPE.ram;
const PARAMETER: ResultCode = ResultCode::INVALID_PARAMETER;

const fn chunk(number: u64) -> u64 {
    SHAPE.window + (number << 21)
}

/// Kernel 1 holds chunks 0 and 1 (generation 1), kernel 2 chunk 2 (generation 2); kernel 3 is attached and holds chunk 3
/// (generation 3).
fn three_kernels(test: impl FnOnce(&Judged<'_>)) {
    judged(SHAPE, &[(LIST, PageState::Valid)], &[], |world| {
        for (epoch, chunks) in [(1, 2), (2, 1), (3, 1)] {
            assert_eq!(world.call(&guest::attach()), SUCCESS);
            assert_eq!(
                world.call(&guest::grow(epoch, chunks, chunks, true)),
                SUCCESS
            );
        }
        test(world);
    });
}

fn expect(world: &Judged<'_>, calls: &[(CallRegisters, ResultCode)]) {
    let chunks = || (0..SHAPE.chunks).map(|number| world.chunk(number).unwrap());
    for (call, code) in calls {
        let before: Vec<_> = chunks().collect();
        let done = world.hostile().calls();
        assert_eq!(world.call(call), *code, "{call:x?}");
        if *code != SUCCESS {
            assert!(chunks().eq(before), "{call:x?} changed something");
            assert_eq!(world.hostile().calls(), done, "{call:x?} asked somebody");
        }
    }
}

/// Calls that name an epoch, with this one.
fn named(epoch: u32) -> [CallRegisters; 8] {
    [
        guest::list(epoch, LIST),
        guest::adopt(epoch, 1),
        guest::release_orphans(epoch, 1),
        guest::detach(epoch),
        guest::grow(epoch, 1, 1, false),
        guest::release(chunk(0), 1, epoch, 1),
        convert(epoch, LIST),
        guest::set_limits(epoch, 0),
    ]
}

#[test]
fn p_3_5_p_5_4_2_no_call_is_made_for_another_kernel() {
    three_kernels(|world| {
        for epoch in [0, 1, 2, 4, 5, 0xFF_FFFF, 0x100_0003, 0xFFFF_FFFD, u32::MAX] {
            for call in named(epoch) {
                // P-5.4.2 comes before P-3.5: the older epoch is older than the one that is claimed.
                let orphans = matches!(call.rax & 0xFFFF_FFFF, 4 | 5);
                let code = if orphans && epoch <= 1 {
                    PARAMETER
                } else {
                    STALE_EPOCH
                };
                expect(world, &[(call, code)]);
            }
        }
        assert_eq!(world.call(&guest::detach(3)), SUCCESS);
        for epoch in [0, 1, 2, 3, 4, u32::MAX] {
            for call in named(epoch) {
                let orphans = matches!(call.rax & 0xFFFF_FFFF, 4 | 5);
                let code = if orphans && epoch <= 1 {
                    PARAMETER
                } else {
                    NOT_ATTACHED
                };
                expect(world, &[(call, code)]);
            }
        }
        // Detached twice, and attached again: the number is not used again.
        expect(world, &[(guest::detach(3), NOT_ATTACHED)]);
        assert_eq!(world.answer(&guest::attach()).1.rcx, 4);
        expect(world, &[(guest::detach(3), STALE_EPOCH)]);
    });
}

#[test]
fn w2_p_5_4_2_p_5_5_2_orphans_are_named_by_an_older_epoch_only() {
    three_kernels(|world| {
        for older in [0, 3, 4, 0xFF_FFFF, u32::MAX] {
            let calls = [guest::adopt(3, older), guest::release_orphans(3, older)];
            expect(world, &calls.map(|call| (call, PARAMETER)));
        }
        // With anything in registers that are zero.
        for (rdx, r8) in [(1, 0), (0, 1), (u64::MAX, 0), (0, u64::MAX)] {
            for number in [4, 5] {
                let call = guest::raw(number, 3 << 32 | 1, rdx, r8);
                expect(world, &[(call, PARAMETER)]);
            }
            expect(world, &[(guest::raw(6, 3 << 32, rdx, r8), PARAMETER)]);
        }
        expect(world, &[(guest::raw(6, 3 << 32 | 1, 0, 0), PARAMETER)]);
    });
}

#[test]
fn w2_p_5_8_1_p_5_4_1_a_chunk_is_released_by_its_holder_alone() {
    three_kernels(|world| {
        let release = |number, chunks, epoch, generation| {
            guest::release(chunk(number), chunks, epoch, generation)
        };
        // Another kernel's, under its epoch or ours, with its generation or ours.
        expect(
            world,
            &[
                (release(0, 1, 3, 1), NOT_HELD),
                (release(0, 1, 1, 1), STALE_EPOCH),
                (release(2, 1, 3, 2), NOT_HELD),
                (release(2, 1, 3, 3), NOT_HELD),
                (release(3, 1, 3, 2), NOT_HELD),
                (release(3, 1, 3, 0), NOT_HELD),
                (release(3, 1, 3, u32::MAX), NOT_HELD),
                (release(2, 2, 3, 3), NOT_HELD),
                (release(3, 2, 3, 3), NOT_HELD),
                (release(4, 1, 3, 3), NOT_HELD),
            ],
        );
        // Adopted: the new epoch and the old generation, and nothing else.
        let (code, adopted) = world.answer(&guest::adopt(3, 1));
        assert_eq!((code, adopted.rcx, adopted.rdx), (SUCCESS, 4 << 20, 0));
        expect(
            world,
            &[
                (release(0, 1, 1, 1), STALE_EPOCH),
                (release(0, 1, 3, 3), NOT_HELD),
                (release(0, 3, 3, 1), NOT_HELD),
                (release(0, 1, 3, 1), SUCCESS),
                (release(0, 1, 3, 1), NOT_HELD),
                (release(0, 2, 3, 1), NOT_HELD),
            ],
        );
        // Granted anew: a late repetition takes nothing away.
        assert_eq!(world.call(&guest::grow(3, 1, 1, true)), SUCCESS);
        expect(world, &[(release(0, 1, 3, 1), NOT_HELD)]);
        // Orphans are released wherever they are; what was adopted is none of them.
        let (code, released) = world.answer(&guest::release_orphans(3, 2));
        assert_eq!((code, released.rcx, released.r8), (SUCCESS, 2 << 20, 0));
        let (code, released) = world.answer(&guest::release_orphans(3, 1));
        assert_eq!((code, released.rcx, released.r8), (SUCCESS, 0, 0));
        let held = |epoch, generation| Ok(Chunk::Held { epoch, generation });
        let chunks: Vec<_> = (0..4).map(|number| world.chunk(number)).collect();
        let expected = [held(3, 4), held(3, 1), Ok(Chunk::Free), held(3, 3)];
        assert_eq!(chunks, expected);
    });
}

#[test]
fn p_3_7_p_3_12_orphans_count_towards_the_cap_until_they_end() {
    three_kernels(|world| {
        assert_eq!(world.call(&guest::set_limits(3, 4)), SUCCESS);
        expect(world, &[(guest::grow(3, 1, 1, false), CAP_REACHED)]);
        // Of epoch 2 and of no older one.
        let (code, released) = world.answer(&guest::release_orphans(3, 2));
        assert_eq!((code, released.rcx, released.r8), (SUCCESS, 2 << 20, 0));
        assert_eq!(world.call(&guest::grow(3, 1, 1, false)), SUCCESS);
        expect(world, &[(guest::grow(3, 1, 1, false), CAP_REACHED)]);
        let (code, adopted) = world.answer(&guest::adopt(3, 2));
        assert_eq!((code, adopted.rcx, adopted.rdx), (SUCCESS, 0, 0));
        let (code, adopted) = world.answer(&guest::adopt(3, 1));
        assert_eq!((code, adopted.rcx, adopted.rdx), (SUCCESS, 4 << 20, 0));
        expect(world, &[(guest::grow(3, 1, 1, false), CAP_REACHED)]);
    });
}
