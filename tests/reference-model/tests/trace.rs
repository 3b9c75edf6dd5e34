// SPDX-License-Identifier: MIT OR Apache-2.0
//! TRACE at every place of the ring, with every kind of buffer; judged by the model.

use protocol::trace::TraceKind;
use reference_model::light_host::LightHost;
use reference_model::{Shape, guest, with_world};
use snp::svsm::ResultCode;
use snp_model::psc::HostManner;
use svsm_swiotlb::page_state::PageState;

const SHAPE: Shape = Shape {
    window: 0x4000_0000,
    chunks: 4,
    hard_cap: 4,
    second: None,
    ram: 0x20_0000,
    ram_pages: 8,
};
const BUFFER: u64 = SHAPE.ram;
const LIST: u64 = SHAPE.ram + 0x1000;
const PAGE: u64 = SHAPE.ram + 0x2000;
/// Of the wrong kind.
const VMSA: u64 = SHAPE.ram + 0x3000;

fn pages() -> [(u64, PageState); 4] {
    [
        (BUFFER, PageState::Valid),
        (LIST, PageState::CallingArea),
        (PAGE, PageState::Valid),
        (VMSA, PageState::Vmsa),
    ]
}

/// Events between two looks at the ring, and how often.
const STRIDE: u64 = if cfg!(miri) { 4 } else { 7 };
/// Places and buffers of a look; Miri visits the whole ring for each record.
const LOOKS: usize = if cfg!(miri) { 1 } else { 9 };
/// More than twice the ring; under Miri, where each takes long, none is overwritten.
const EVENTS: u64 = if cfg!(miri) { 4 } else { 600 };

#[test]
fn p_12_3_p_5_11_2_records_are_returned_in_order_from_any_place_until_they_are_overwritten() {
    with_world(LightHost::default(), SHAPE, &pages(), |world| {
        let mut looks = 0;
        while world.model().next_event < EVENTS {
            for _ in 0..STRIDE {
                // An event each: a call that nobody knows.
                world.call(&guest::raw(99, looks, 2, 3));
            }
            let next = world.model().next_event;
            let oldest = next.saturating_sub(256);
            let oldest_but_one = oldest.saturating_sub(1);
            let places = [
                0,
                next,
                oldest_but_one,
                oldest,
                next / 2,
                next - 1,
                u64::MAX,
            ];
            for from in places.into_iter().take(LOOKS) {
                for (offset, room) in [(8, 64), (0, 4096), (0, 32), (4064, 32)]
                    .into_iter()
                    .take(LOOKS)
                {
                    let answer = world.call(&guest::trace(BUFFER + offset, room, from));
                    assert_eq!(answer.rax, 0);
                    looks += 1;
                }
            }
        }
        println!("{looks} looks at the ring");
    });
}

#[test]
fn p_12_2_every_kind_of_event_is_returned_as_it_was_recorded() {
    with_world(LightHost::default(), SHAPE, &pages(), |world| {
        let host = world.platform.inner();
        world.call(&guest::attach());
        world.call(&guest::grow(1, 1, 1, false));
        world.call(&guest::grow(1, 1, 2, false));
        world.call(&guest::release(SHAPE.window, 1, 1, 1));
        world.call(&guest::attach());
        world.call(&guest::adopt(2, 1));
        world.call(&guest::detach(2));
        world.call(&guest::attach());
        world.call(&guest::release_orphans(3, 2));
        host.store(
            LIST,
            &guest::convert_list(&[guest::convert_entry(PAGE, false, true)]),
        );
        world.call(&guest::convert(3, LIST));
        host.set_manner(HostManner::ReservedBits);
        world.call(&guest::grow(3, 1, 1, false));
        // The list's page is the calling area.
        host.store(LIST + 8, &guest::block(&guest::grow(1, 1, 1, false)));
        world.call(&guest::memory_form(LIST + 8));
        let mut next = 0;
        let mut kinds = Vec::new();
        while next < world.model().next_event {
            let answer = world.call(&guest::trace(BUFFER, 96, next));
            let records = host.load(BUFFER, usize::try_from(answer.rcx).unwrap());
            let kind = |record: &[u8]| u16::from_le_bytes([record[8], record[9]]);
            kinds.extend(records.chunks(32).map(kind));
            next = answer.rdx;
        }
        for kind in TraceKind::ALL {
            assert!(kinds.contains(&kind.number()), "{kind:?} in {kinds:?}");
        }
    });
}

#[test]
fn p_7_5_p_7_6_buffers_of_the_wrong_kind_and_buffers_that_fault() {
    for nth in 0..if cfg!(miri) { 1 } else { 3 } {
        with_world(LightHost::default(), SHAPE, &pages(), |world| {
            world.call(&guest::attach());
            world.call(&guest::raw(99, 0, 0, 0));
            for wrong in [VMSA, PAGE + 0x4000, SHAPE.window, SHAPE.ram - 0x1000, 0]
                .into_iter()
                .take(LOOKS)
            {
                let code = ResultCode::from_rax(world.call(&guest::trace(wrong, 32, 0)).rax);
                assert_eq!(code, ResultCode::INVALID_ADDRESS, "{wrong:#x}");
            }
            world.platform.fail_at(world.platform.calls() + 1 + nth);
            let code = ResultCode::from_rax(world.call(&guest::trace(BUFFER, 96, 0)).rax);
            assert_eq!(code, ResultCode::INVALID_ADDRESS, "{nth}");
            assert_eq!(world.page(BUFFER), Some(PageState::Quarantined));
            world.call(&guest::trace(LIST, 4096, 0));
        });
    }
}
