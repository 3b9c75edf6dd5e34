// SPDX-License-Identifier: MIT OR Apache-2.0
//! INCOMPLETE is taken up otherwise than it was left.

use protocol::list::ListHeader;
use protocol::result;
use reference_model::light_host::LightHost;
use reference_model::world::Watched;
use reference_model::{Shape, guest, with_world};
use snp::svsm::{CallRegisters, ResultCode};
use svsm_swiotlb::page_state::PageState;
use zerocopy::IntoBytes;

use crate::conversions::{convert, small};
use crate::core_world::SUCCESS;
use crate::judged::{Judged, judged};

const SHAPE: Shape = Shape {
    window: 0x4000_0000,
    chunks: 6,
    hard_cap: 4,
    second: None,
    ram: 0x20_0000,
    ram_pages: 2,
};
const PAGES: [(u64, PageState); 2] = [
    (SHAPE.ram, PageState::Valid),
    (SHAPE.ram + 0x1000, PageState::Valid),
];

#[test]
fn p_6_7_incomplete_is_taken_up_with_other_registers() {
    let put = |world: &reference_model::World<'_, LightHost>, at, capacity, cursor| {
        let header = ListHeader {
            capacity,
            written: 0xFFFF,
            cursor,
        };
        world.platform.inner().store(at, header.as_bytes());
    };
    with_world(LightHost::default(), SHAPE, &PAGES, |world| {
        world.call(&guest::attach());
        for _ in 0..3 {
            world.call(&guest::grow(1, 1, 1, false));
        }
        let list = SHAPE.ram;
        let code = |call: &CallRegisters| ResultCode::from_rax(world.call(call).rax);
        put(world, list, 1, 0);
        assert_eq!(code(&guest::list(1, list)), ResultCode::INCOMPLETE);
        // Another list, another place in the page, another epoch, another cursor, more room, none.
        put(world, list + 0x1000, 1, 2);
        assert_eq!(code(&guest::list(1, list + 0x1000)), ResultCode::INCOMPLETE);
        put(world, list + 0xFE0, 1, 1);
        assert_eq!(code(&guest::list(1, list + 0xFE0)), ResultCode::INCOMPLETE);
        assert_eq!(code(&guest::list(2, list)), result::STALE_EPOCH);
        for (capacity, cursor, expected) in [
            (1, 7, ResultCode::INVALID_PARAMETER),
            (1, u32::MAX, ResultCode::INVALID_PARAMETER),
            (0, 0, ResultCode::INVALID_PARAMETER),
            (171, 0, ResultCode::INVALID_PARAMETER),
            (0xFFFF, 1, ResultCode::INVALID_PARAMETER),
            (1, 6, SUCCESS),
            (170, 0, SUCCESS),
        ] {
            put(world, list, capacity, cursor);
            assert_eq!(code(&guest::list(1, list)), expected, "{capacity} {cursor}");
        }
        // What it names changes between the two halves.
        put(world, list, 1, 0);
        assert_eq!(code(&guest::list(1, list)), ResultCode::INCOMPLETE);
        assert_eq!(
            code(&guest::release(SHAPE.window + (1 << 21), 1, 1, 2)),
            SUCCESS
        );
        assert_eq!(code(&guest::attach()), SUCCESS);
        assert_eq!(code(&guest::list(1, list)), result::STALE_EPOCH);
        assert_eq!(code(&guest::list(2, list)), ResultCode::INCOMPLETE);
        assert_eq!(code(&guest::list(2, list)), SUCCESS);
    });
}

const RAM: u64 = 0x20_0000;
const LIST: u64 = RAM;
const ELSEWHERE: u64 = RAM + 0x1000;

const fn page(number: u64) -> u64 {
    RAM + number * 4096
}

/// A list of two batches, of which the first is done: page 4 is shared, page 8 is not yet private.
fn half_done(world: &Judged<'_>) {
    assert_eq!(world.call(&guest::attach()), SUCCESS);
    put(world, LIST, 3, 0);
    assert_eq!(call(world, LIST), ResultCode::INCOMPLETE);
    assert_eq!(cursor(world, LIST), 1);
    assert_eq!(world.page(page(4)), Some(PageState::Shared));
}

/// The list at an address, with this cursor.
fn put(world: &Judged<'_>, list: u64, entries: u16, next: u16) {
    let header = snp::svsm::ListHeader {
        entries,
        next,
        reserved: 0,
    };
    let pages = [
        small(page(4), true),
        small(page(8), false),
        small(page(5), true),
    ];
    world.hostile().poke(list, header.as_bytes());
    world.hostile().poke(list + 8, pages.as_bytes());
}

fn call(world: &Judged<'_>, list: u64) -> ResultCode {
    world.call(&convert(world.epoch(), list))
}

fn cursor(world: &Judged<'_>, list: u64) -> u16 {
    let header: [u8; 8] = world.peek(list).unwrap();
    u16::from_le_bytes([header[2], header[3]])
}

fn conversions(test: fn(&Judged<'_>)) {
    let shape = Shape {
        window: 0x4000_0000,
        chunks: 2,
        hard_cap: 2,
        second: None,
        ram: RAM,
        ram_pages: 16,
    };
    let pages: Vec<_> = (0..8)
        .map(|number| (page(number), PageState::Valid))
        .collect();
    judged(shape, &pages, &[], test);
}

#[test]
fn p_6_7_p_5_9_4_a_list_of_convert_is_taken_up_otherwise() {
    const PARAMETER: ResultCode = ResultCode::INVALID_PARAMETER;
    const ADDRESS: ResultCode = ResultCode::INVALID_ADDRESS;
    // As it was meant.
    conversions(|world| {
        half_done(world);
        assert_eq!(call(world, LIST), ResultCode::INCOMPLETE);
        assert_eq!(call(world, LIST), SUCCESS);
        assert_eq!(call(world, LIST), PARAMETER, "it is done");
    });
    // The cursor backwards, at the end, beyond it, and far beyond.
    conversions(|world| {
        half_done(world);
        put(world, LIST, 3, 0);
        assert_eq!(call(world, LIST), ADDRESS, "converted already");
        assert_eq!(cursor(world, LIST), 0);
        for (entries, next, code) in [
            (3, 3, PARAMETER),
            (3, 4, PARAMETER),
            (3, u16::MAX, PARAMETER),
            (0, 0, PARAMETER),
            (1, 1, PARAMETER),
            (512, 1, PARAMETER),
            (u16::MAX, 1, PARAMETER),
            // More entries than it had: those behind are what the page held.
            (511, 2, ResultCode::INCOMPLETE),
            (511, 3, PARAMETER),
        ] {
            put(world, LIST, entries, next);
            assert_eq!(call(world, LIST), code, "{entries} {next}");
        }
        assert_eq!(world.page(page(8)), Some(PageState::Invalid), "passed over");
    });
    // Another list, another place in the page, the same entries the other way.
    conversions(|world| {
        half_done(world);
        put(world, ELSEWHERE, 3, 1);
        assert_eq!(call(world, ELSEWHERE), ResultCode::INCOMPLETE);
        assert_eq!(call(world, LIST), ADDRESS, "page 8 is private by now");
        assert_eq!(cursor(world, LIST), 1);
        put(world, LIST + 0x800, 3, 2);
        assert_eq!(call(world, LIST + 0x800), SUCCESS);
        world
            .hostile()
            .poke(LIST + 16, small(page(4), false).as_bytes());
        assert_eq!(call(world, LIST), ResultCode::INCOMPLETE);
        assert_eq!(world.page(page(4)), Some(PageState::Valid));
    });
    // Other registers.
    conversions(|world| {
        half_done(world);
        let before = world.hostile().calls();
        for (call, code) in [
            (guest::raw(9, LIST + 4, 1, 0), PARAMETER),
            (guest::raw(9, LIST, 1 << 32 | 1, 0), PARAMETER),
            (guest::raw(9, LIST, 1, 1), PARAMETER),
            (guest::raw(9, LIST, 2, 0), result::STALE_EPOCH),
            (guest::raw(9, LIST, 0, 0), result::STALE_EPOCH),
            (guest::raw(9, page(8), 1, 0), ADDRESS),
            (guest::raw(9, 0x4000_0000, 1, 0), ADDRESS),
            (guest::raw(17, LIST, 1, 0), ResultCode::UNSUPPORTED_CALL),
        ] {
            assert_eq!(world.call(&call), code, "{call:x?}");
        }
        assert_eq!(world.hostile().calls(), before, "nothing was touched");
        assert_eq!(cursor(world, LIST), 1);
        // Another kernel came; the old one's call is not taken up, its pages are what they are.
        assert_eq!(world.call(&guest::attach()), SUCCESS);
        assert_eq!(world.call(&convert(1, LIST)), result::STALE_EPOCH);
        assert_eq!(world.call(&convert(2, LIST)), ResultCode::INCOMPLETE);
        assert_eq!(world.call(&guest::detach(2)), SUCCESS);
        assert_eq!(world.call(&convert(2, LIST)), result::NOT_ATTACHED);
    });
    // The list's page, and a page of the list, become something else between the two calls.
    conversions(|world| {
        half_done(world);
        assert_eq!(world.convert(ELSEWHERE, &[small(LIST, true)]), [SUCCESS]);
        assert_eq!(call(world, LIST), ADDRESS);
        assert_eq!(world.convert(ELSEWHERE, &[small(LIST, false)]), [SUCCESS]);
        assert_eq!(call(world, LIST), PARAMETER, "it is zero");
        put(world, LIST, 3, 2);
        assert_eq!(world.convert(ELSEWHERE, &[small(page(5), true)]), [SUCCESS]);
        assert_eq!(call(world, LIST), ADDRESS);
    });
}
