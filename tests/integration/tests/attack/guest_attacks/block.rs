// SPDX-License-Identifier: MIT OR Apache-2.0
//! The block of MEMORY_FORM: rewritten while it is read, in pages that are not the caller's calling area, and in somebody
//! else's hands.

use protocol::memory_form::{CallBlock, outer_call};
use protocol::{CHUNK_BYTES, DEFAULT_PROTOCOL_NUMBER};
use reference_model::{Event, guest};
use snp::svsm::{CallRegisters, ResultCode};
use svsm_swiotlb::page_state::PageState;
use zerocopy::IntoBytes;

use super::prepared::{FIRST, OTHER_LIST, TARGET, interrupted, prepared, window};
use crate::conversions::small;
use crate::core_world::{
    ADDRESS, AREA, BUSY, FRESH, MEMORY, OWN, SUCCESS, World, documented, page,
};
use crate::platform::{Act, gpa};

/// Where a Linux kernel puts it.
const BLOCK: u64 = AREA + 8;

fn form(block: u64) -> CallRegisters {
    outer_call(DEFAULT_PROTOCOL_NUMBER, gpa(block))
}

fn put(world: &World<'_>, block: u64, call: &CallRegisters) {
    world.put(block, CallBlock::of(call).as_bytes());
}

/// What another processor makes of the block.
type Rewrite = fn(&World<'_>);

const REWRITES: [(&str, Rewrite); 7] = [
    ("more is asked for", |world| {
        put(world, BLOCK, &guest::grow(1, 3, 3, true));
    }),
    ("RELEASE of what is held", |world| {
        put(world, BLOCK, &guest::release(window(world), 1, 1, 1));
    }),
    ("ATTACH", |world| put(world, BLOCK, &guest::attach())),
    ("the form itself", |world| put(world, BLOCK, &form(BLOCK))),
    ("a list at the window", |world| {
        put(world, BLOCK, &guest::list(1, window(world)));
    }),
    ("another protocol", |world| world.put(BLOCK, &[0; 32])),
    ("ones", |world| world.put(BLOCK, &[0xFF; 32])),
];

#[test]
fn c2_p5_p_5_16_4_a_block_rewritten_before_every_platform_call() {
    let mut points = 0;
    for (what, rewrite) in REWRITES {
        for nth in 1.. {
            let mut reached = false;
            prepared(|world| {
                put(world, BLOCK, &guest::grow(1, 2, 2, true));
                world.platform.recorder.take();
                let victim = || world.pool(&form(BLOCK)).1;
                let (answer, attacked) = interrupted(world, nth, victim, || rewrite(world));
                reached = attacked.is_some();
                let case = format!("{what} before call {nth}, {answer:x?}");
                let events = world.platform.recorder.take();
                let of_the_area = events.iter().filter_map(|event| match event {
                    Event::Read(at, bytes, _) if *at & !0xFFF == AREA => Some((*at, *bytes)),
                    _ => None,
                });
                assert_eq!(of_the_area.collect::<Vec<_>>(), [(BLOCK, 32)], "{case}");
                assert!(
                    !events.iter().any(|event| matches!(event, Event::Write(..))),
                    "{case}"
                );
                assert_eq!(answer.rax, 0, "{case}");
                assert!(documented(ResultCode::from_rax(answer.r9)), "{case}");
                if nth > 1 {
                    let granted = [answer.r9, answer.rdx, answer.r8];
                    assert_eq!(granted, [0, 2 * CHUNK_BYTES, 2], "{case}");
                    assert_eq!(world.service.statistics().granted_bytes, 3 * CHUNK_BYTES);
                }
                assert_eq!(world.state(AREA), Some(PageState::CallingArea), "{case}");
            });
            if !reached {
                break;
            }
            points += 1;
        }
    }
    println!("{points} points at which a block is rewritten");
    assert!(points >= 14, "{points}");
}

#[test]
fn p5_p_5_16_2_a_block_outside_the_callers_own_area_is_not_touched() {
    prepared(|world| {
        // Page 9 is the VMSA of another vCPU, page 10 its calling area.
        assert_eq!(world.convert(TARGET, &[small(FIRST, true)]), SUCCESS);
        let places = [
            ("another vCPU's calling area", page(10)),
            ("its VMSA", page(9)),
            ("a page of the guest", OTHER_LIST),
            ("a page that is not validated", FRESH),
            ("a page that is shared", FIRST),
            ("the paravisor", OWN),
            ("a granted chunk", window(world)),
            ("the end of the window", window(world) + 3 * CHUNK_BYTES),
            ("no memory", MEMORY),
            ("no address", 1 << 52),
        ];
        let right = guest::grow(1, 1, 1, false);
        world.platform.recorder.take();
        for (what, at) in places {
            let call = form(at + 8);
            if world.state(at).is_some() {
                put(world, at + 8, &right);
            }
            let (code, answer) = world.pool(&call);
            assert_eq!(code, ADDRESS, "{what}");
            let rax = code.to_rax();
            assert_eq!(answer, CallRegisters { rax, ..call }, "{what}");
        }
        // Across the end of the area into the page behind it.
        put(world, AREA + 4096 - 24, &right);
        let crossing = world.pool(&form(AREA + 4096 - 24)).0;
        assert_eq!(crossing, ResultCode::INVALID_PARAMETER);
        assert_eq!(world.platform.recorder.take(), []);
        assert_eq!(world.service.statistics().granted_bytes, CHUNK_BYTES);
    });
}

#[test]
fn p5_p_5_16_6_an_area_in_another_call_is_busy_inside_and_the_kernel_does_not_loop() {
    prepared(|world| {
        put(world, BLOCK, &guest::grow(1, 1, 1, false));
        // Another vCPU has its counters written there; before its first access it has taken the page's word.
        let victim = || world.pool(&guest::statistics(AREA + 0x100, 64)).0;
        let attack = || world.pool(&form(BLOCK)).1;
        let (code, answer) = interrupted(world, 1, victim, attack);
        assert_eq!(code, SUCCESS);
        let r9 = BUSY.to_rax();
        let busy = CallRegisters {
            rax: 0,
            r9,
            ..form(BLOCK)
        };
        assert_eq!(answer, Some(busy));
        assert_eq!(world.service.statistics().granted_bytes, CHUNK_BYTES);
        // The other way round: the area is taken while the block is read, and free from then on.
        for (nth, expected) in [(1, BUSY), (2, SUCCESS)] {
            let victim = || world.pool(&form(BLOCK)).1;
            let attack = || world.pool(&guest::statistics(AREA + 0x100, 64)).0;
            let (answer, code) = interrupted(world, nth, victim, attack);
            assert_eq!((answer.rax, answer.r9), (0, 0));
            assert_eq!(code, Some(expected), "before call {nth}");
        }
    });
}

#[test]
fn p3_p5_p_5_16_7_an_area_that_the_host_takes_is_lost_and_nothing_else() {
    for act in [
        Act::Rescind(AREA),
        Act::Renew(AREA),
        Act::Remap(AREA, page(12)),
    ] {
        prepared(|world| {
            put(world, BLOCK, &guest::grow(1, 1, 1, false));
            world.touch(AREA);
            world.touch(page(12));
            world.platform.perform(act);
            let (code, _) = world.pool(&form(BLOCK));
            assert_eq!(code, ADDRESS, "{act:?}");
            assert_eq!(world.state(AREA), Some(PageState::Quarantined), "{act:?}");
            assert_eq!(world.service.statistics().granted_bytes, CHUNK_BYTES);
            assert_eq!(world.pool(&form(BLOCK)).0, ADDRESS, "for ever");
            // By registers the other vCPUs go on.
            assert_eq!(world.pool(&guest::grow(1, 1, 1, false)).0, SUCCESS);
        });
    }
}
