// SPDX-License-Identifier: MIT OR Apache-2.0
//! LIST_GRANTED and STATISTICS: structures in guest pages.

use std::vec::Vec;

use protocol::list::{ENTRY_BYTES, GrantedRun, HEADER_BYTES, ListHeader};
use protocol::response::decode_answer;
use protocol::statistics::{STATISTICS_BYTES, Statistics};
use protocol::{Call, Request};
use snp::address::PAGE_SIZE;
use snp::svsm::ResultCode;
use zerocopy::{FromBytes, IntoBytes};

use super::{LIST, address, code};
use crate::page_state::PageState;
use crate::test_platform::{CHUNK, Guest, RAM_BASE, RAM_PAGES, TestPlatform, WINDOW_BASE, service};

fn list_header(platform: &TestPlatform, at: u64) -> ListHeader {
    ListHeader::read_from_bytes(&platform.peek(at, 8)).unwrap()
}

fn put_list(platform: &TestPlatform, at: u64, capacity: u16, cursor: u32) {
    platform.poke(
        at,
        ListHeader {
            capacity,
            written: 0xFFFF,
            cursor,
        }
        .as_bytes(),
    );
}

fn listed(platform: &TestPlatform, at: u64, index: u64) -> GrantedRun {
    let bytes = platform.peek(at + HEADER_BYTES + index * ENTRY_BYTES, 24);
    GrantedRun::read_from_bytes(&bytes).unwrap()
}

#[test]
fn p_7_2_the_list_names_each_run_with_its_holder() {
    let (platform, service) = service(16);
    let old = service.guest_attach();
    service.guest_grow(old, 2, 2).unwrap();
    let epoch = service.guest_attach();
    service.guest_grow(epoch, 3, 3).unwrap();
    put_list(platform, LIST, 170, 0);
    service
        .call(Request::ListGranted {
            list: address(LIST),
            epoch,
        })
        .unwrap();
    let header = list_header(platform, LIST);
    assert_eq!(
        (header.capacity, header.written, header.cursor),
        (170, 2, 16)
    );
    let first = GrantedRun {
        base: WINDOW_BASE,
        bytes: 2 * CHUNK,
        epoch: old,
        generation: 1,
    };
    assert_eq!(listed(platform, LIST, 0), first);
    let base = WINDOW_BASE + 2 * CHUNK;
    let second = GrantedRun {
        base,
        bytes: 3 * CHUNK,
        epoch,
        generation: 2,
    };
    assert_eq!(listed(platform, LIST, 1), second);
    assert_eq!(
        service.page_states().state(address(LIST)),
        Some(PageState::Valid)
    );
}

#[test]
fn p_5_3_1_p_6_7_p_7_3_a_full_list_is_incomplete_and_goes_on_with_the_same_registers() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    for _ in 0..3 {
        service.guest_grow(epoch, 1, 1).unwrap();
    }
    put_list(platform, LIST, 1, 0);
    let mut bases = Vec::new();
    let request = Request::ListGranted {
        list: address(LIST),
        epoch,
    };
    for round in 0..4 {
        let answer = service.call(request);
        if list_header(platform, LIST).written == 1 {
            bases.push(listed(platform, LIST, 0).base);
        }
        assert_eq!(answer.is_ok(), round == 3, "{answer:?}");
        if answer.is_err() {
            assert_eq!(code(answer), ResultCode::INCOMPLETE);
        }
    }
    assert_eq!(
        bases,
        [WINDOW_BASE, WINDOW_BASE + CHUNK, WINDOW_BASE + 2 * CHUNK]
    );
}

#[test]
fn p_7_4_a_list_that_leaves_its_page_or_the_window_is_refused() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    let cases = [
        (LIST, 0, 0),
        (LIST, 171, 0),
        (LIST, u16::MAX, 0),
        (LIST + 16, 170, 0),
        (LIST + PAGE_SIZE - 8, 1, 0),
        (LIST, 1, 9),
        (LIST, 1, u32::MAX),
    ];
    for (at, capacity, cursor) in cases {
        put_list(platform, at, capacity, cursor);
        let answer = service.call(Request::ListGranted {
            list: address(at),
            epoch,
        });
        assert_eq!(
            code(answer),
            ResultCode::INVALID_PARAMETER,
            "{at:#x} {capacity} {cursor}"
        );
        assert_eq!(
            list_header(platform, at).written,
            0xFFFF,
            "nothing is written"
        );
    }
}

#[test]
fn p5_p_7_5_a_guest_page_is_touched_only_in_a_good_state() {
    let (platform, service) = service(4);
    let epoch = service.guest_attach();
    let ask = |at: u64| {
        [
            service.call(Request::ListGranted {
                list: address(at),
                epoch,
            }),
            service.call(Request::Statistics {
                buffer: address(at),
                bytes: 8,
            }),
        ]
        .map(code)
    };
    let bad = [
        PageState::Invalid,
        PageState::Shared,
        PageState::Vmsa,
        PageState::Paravisor,
        PageState::Quarantined,
    ];
    for state in bad {
        service
            .page_states()
            .set_at_boot(address(LIST), PAGE_SIZE, state)
            .unwrap();
        assert_eq!(ask(LIST), [ResultCode::INVALID_ADDRESS; 2], "{state:?}");
        assert_eq!(service.page_states().state(address(LIST)), Some(state));
    }
    service
        .page_states()
        .set_at_boot(address(LIST), PAGE_SIZE, PageState::Busy)
        .unwrap();
    assert_eq!(ask(LIST), [ResultCode::BUSY; 2]);
    // The window, what lies beside RAM, and addresses beyond everything.
    for at in [
        WINDOW_BASE,
        RAM_BASE - 8,
        RAM_BASE + RAM_PAGES * PAGE_SIZE,
        1 << 52,
        !7,
    ] {
        assert_eq!(ask(at), [ResultCode::INVALID_ADDRESS; 2], "{at:#x}");
    }
    assert!(
        platform.reads.lock().unwrap().is_empty(),
        "nothing was read"
    );
}

#[test]
fn p5_p_7_5_the_callers_own_calling_area_may_hold_a_list_and_no_other() {
    let (platform, service) = service(4);
    let epoch = service.guest_attach();
    let states = service.page_states();
    states
        .set_at_boot(address(LIST), PAGE_SIZE, PageState::CallingArea)
        .unwrap();
    let list = address(LIST + 8);
    let (buffer, room) = (list, 32);
    for request in [
        Request::ListGranted { list, epoch },
        Request::Statistics {
            buffer,
            bytes: room,
        },
        Request::Trace {
            buffer,
            bytes: room,
            from: 0,
        },
    ] {
        let ask = |area: Option<u64>| {
            put_list(platform, LIST + 8, 1, 0);
            let registers = request.encode(service.protocol_number());
            let answer = decode_answer(&service.dispatch(&registers, area.map(address)));
            answer.map_or_else(|refusal| refusal.code, |_| ResultCode::SUCCESS)
        };
        // Another vCPU's, and one of which nobody can tell whose it is.
        platform.reads.lock().unwrap().clear();
        for foreign in [Some(LIST + PAGE_SIZE), None] {
            assert_eq!(ask(foreign), ResultCode::INVALID_ADDRESS, "{request:?}");
        }
        assert!(platform.reads.lock().unwrap().is_empty());
        assert_ne!(ask(Some(LIST)), ResultCode::INVALID_ADDRESS, "{request:?}");
        assert_eq!(states.state(address(LIST)), Some(PageState::CallingArea));
    }
}

#[test]
fn p3_p_3_10_p_7_6_a_page_that_faults_is_quarantined_and_counted() {
    let (platform, service) = service(4);
    let epoch = service.guest_attach();
    platform.faulty_pages.lock().unwrap().insert(LIST);
    let request = Request::ListGranted {
        list: address(LIST),
        epoch,
    };
    assert_eq!(code(service.call(request)), ResultCode::INVALID_ADDRESS);
    assert_eq!(
        service.page_states().state(address(LIST)),
        Some(PageState::Quarantined)
    );
    platform.faulty_pages.lock().unwrap().clear();
    assert_eq!(
        code(service.call(request)),
        ResultCode::INVALID_ADDRESS,
        "for ever"
    );
    assert_eq!(service.statistics().guest_page_faults, 1);
}

#[test]
fn c2_p_7_6_the_list_header_is_fetched_once() {
    let (platform, service) = service(4);
    let epoch = service.guest_attach();
    service.guest_grow(epoch, 1, 1).unwrap();
    put_list(platform, LIST, 4, 0);
    service
        .call(Request::ListGranted {
            list: address(LIST),
            epoch,
        })
        .unwrap();
    assert_eq!(*platform.reads.lock().unwrap(), [(LIST, 8)]);
}

#[test]
fn p_8_1_statistics_are_written_as_far_as_there_is_room() {
    let (platform, service) = service(4);
    let epoch = service.guest_attach();
    service.guest_grow(epoch, 1, 1).unwrap();
    let _ = service.guest_grow(epoch + 1, 1, 1);
    let _ = service.raw(Call::Convert, 0, 0, 0);
    let buffer = address(LIST);
    let write = |bytes| {
        service
            .call(Request::Statistics { buffer, bytes })
            .unwrap()
            .rcx
    };
    assert_eq!(write(4096), STATISTICS_BYTES);
    let bytes = platform.peek(LIST, size_of::<Statistics>());
    let statistics = Statistics::read_from_bytes(&bytes).unwrap();
    assert_eq!(
        (statistics.version, u64::from(statistics.bytes)),
        (1, STATISTICS_BYTES)
    );
    assert_eq!(statistics.granted_bytes, CHUNK);
    assert_eq!(statistics.calls[Call::Grow.index()], 2);
    assert_eq!(statistics.calls[Call::Convert.index()], 1);
    assert_eq!(statistics.refusals[8 + 2], 1, "STALE_EPOCH");
    assert_eq!(statistics.refusals[2], 1, "UNSUPPORTED_CALL");
    assert_eq!(platform.peek(LIST + STATISTICS_BYTES, 8), [0xEE; 8]);

    platform.poke(LIST, &[0xEE; 64]);
    assert_eq!(write(16), 16);
    assert_eq!(platform.peek(LIST + 16, 8), [0xEE; 8]);
}
