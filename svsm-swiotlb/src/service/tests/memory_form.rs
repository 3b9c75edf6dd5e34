// SPDX-License-Identifier: MIT OR Apache-2.0
//! MEMORY_FORM: a call whose registers lie in the calling area.

use protocol::memory_form::{CallBlock, MARK, Unanswered, decode_answer, outer_call};
use protocol::trace::TraceKind;
use protocol::{Call, DEFAULT_PROTOCOL_NUMBER, Request, identity::Identity, result};
use snp::address::PAGE_SIZE;
use snp::svsm::{CallRegisters, ResultCode};
use zerocopy::IntoBytes;

use super::{LIST, address};
use crate::Service;
use crate::page_state::PageState;
use crate::test_platform::{
    CHUNK, Guest, Manner, RAM_BASE, RAM_PAGES, TestPlatform, WINDOW_BASE, service,
};

type Tested = Service<'static, TestPlatform>;

/// The caller's calling area, the block in it as a Linux kernel puts it there, and another processor's.
const AREA: u64 = RAM_BASE + 3 * PAGE_SIZE;
const BLOCK: u64 = AREA + 8;
const OTHER_AREA: u64 = RAM_BASE + 4 * PAGE_SIZE;

fn world(chunks: u64) -> (&'static TestPlatform, Tested) {
    let (platform, service) = service(chunks);
    for area in [AREA, OTHER_AREA] {
        set(&service, area, PageState::CallingArea);
    }
    (platform, service)
}

fn set(service: &Tested, page: u64, state: PageState) {
    let states = service.page_states();
    states.set_at_boot(address(page), PAGE_SIZE, state).unwrap();
}

fn state(service: &Tested, page: u64) -> Option<PageState> {
    service.page_states().state(address(page))
}

/// MEMORY_FORM with whatever is in memory.
fn dispatch(service: &Tested, call: &CallRegisters) -> CallRegisters {
    service.dispatch(call, Some(address(AREA)))
}

fn outer() -> CallRegisters {
    outer_call(DEFAULT_PROTOCOL_NUMBER, address(BLOCK))
}

/// The call by MEMORY_FORM, in the registers that its own form would have returned.
fn by_memory(
    platform: &TestPlatform,
    service: &Tested,
    call: &CallRegisters,
) -> Result<CallRegisters, Unanswered> {
    platform.poke(BLOCK, CallBlock::of(call).as_bytes());
    decode_answer(&dispatch(service, &outer()))
}

fn grow(epoch: u32, chunks: u64) -> CallRegisters {
    let request = Request::Grow {
        window: 0,
        contiguous: true,
        epoch,
        least: chunks * CHUNK,
        most: chunks * CHUNK,
    };
    request.encode(DEFAULT_PROTOCOL_NUMBER)
}

#[test]
fn p_5_16_3_every_call_is_answered_as_in_registers() {
    let base = address(WINDOW_BASE);
    let requests = [
        Request::Identify,
        Request::Attach { version: 1 },
        Request::Attach { version: 9 },
        Request::Release {
            base,
            bytes: CHUNK,
            epoch: 1,
            generation: 1,
        },
        Request::Statistics {
            buffer: address(LIST),
            bytes: 8,
        },
        Request::SetLimits {
            window: 0,
            epoch: 1,
            cap: 2 * CHUNK,
        },
        Request::Adopt { epoch: 1, from: 0 },
        Request::Detach { epoch: 7 },
        Request::Detach { epoch: 1 },
    ];
    let calls = requests.map(|request| request.encode(DEFAULT_PROTOCOL_NUMBER));
    let grows = [grow(1, 1), grow(1, 3), grow(1, 300), grow(2, 1)];
    let undefined = CallRegisters::new(0x4000_0001_0000_0063, [1, 2, 3]);
    let (platform, in_memory) = world(4);
    let (_, in_registers) = world(4);
    let (first, rest) = calls.split_at(2);
    let all = first.iter().chain(&grows).chain(rest);
    for call in all.chain([&undefined, &grows[0]]) {
        let expected = in_registers.dispatch(call, Some(address(AREA)));
        assert_eq!(by_memory(platform, &in_memory, call), Ok(expected));
    }
}

#[test]
fn p_5_16_1_p_5_16_7_a_form_that_is_wrong_is_refused_and_changes_nothing() {
    let (platform, service) = world(4);
    let epoch = service.guest_attach();
    platform.poke(BLOCK, CallBlock::of(&grow(epoch, 1)).as_bytes());
    for wrong in [
        CallRegisters { rdx: 0, ..outer() },
        CallRegisters { r8: 0, ..outer() },
        CallRegisters {
            rcx: AREA,
            ..outer()
        },
        CallRegisters {
            rcx: BLOCK + 4,
            ..outer()
        },
        CallRegisters {
            rcx: AREA + PAGE_SIZE - 24,
            ..outer()
        },
    ] {
        let answer = dispatch(&service, &wrong);
        let rax = ResultCode::INVALID_PARAMETER.to_rax();
        assert_eq!(answer, CallRegisters { rax, ..wrong });
    }
    assert_eq!(*platform.reads.lock().unwrap(), []);
    assert_eq!(service.statistics().granted_bytes, 0);
    // At the very end of the page it is right.
    let last = AREA + PAGE_SIZE - 32;
    platform.poke(last, CallBlock::of(&grow(epoch, 1)).as_bytes());
    let answer = dispatch(
        &service,
        &CallRegisters {
            rcx: last,
            ..outer()
        },
    );
    assert_eq!((answer.rax, answer.r9), (0, 0));
    assert_eq!(service.statistics().granted_bytes, CHUNK);
}

#[test]
fn p_5_16_2_only_the_callers_own_area_is_looked_at() {
    let (platform, service) = world(4);
    let epoch = service.guest_attach();
    let block = CallBlock::of(&grow(epoch, 1));
    let refused = |at: u64, area: Option<u64>| {
        let call = CallRegisters { rcx: at, ..outer() };
        let answer = service.dispatch(&call, area.map(address));
        let rax = ResultCode::INVALID_ADDRESS.to_rax();
        assert_eq!(answer, CallRegisters { rax, ..call }, "{at:#x} {area:x?}");
    };
    for at in [OTHER_AREA + 8, LIST + 8] {
        platform.poke(at, block.as_bytes());
        refused(at, Some(AREA));
    }
    let beyond = RAM_BASE + RAM_PAGES * PAGE_SIZE;
    for at in [WINDOW_BASE, RAM_BASE - PAGE_SIZE, beyond, 1 << 52 | AREA] {
        refused(at + 8, Some(AREA));
    }
    platform.poke(BLOCK, block.as_bytes());
    refused(BLOCK, None);
    refused(BLOCK, Some(OTHER_AREA));
    // What the integrator names has become something else.
    for state in [
        PageState::Invalid,
        PageState::Shared,
        PageState::Vmsa,
        PageState::Paravisor,
        PageState::Quarantined,
    ] {
        set(&service, AREA, state);
        refused(BLOCK, Some(AREA));
    }
    assert_eq!(*platform.reads.lock().unwrap(), []);
    assert_eq!(service.statistics().granted_bytes, 0);
}

#[test]
fn c2_p5_p_5_16_4_the_block_is_fetched_once_and_its_page_is_free_for_the_call() {
    let (platform, service) = world(4);
    let bytes = 64;
    let call = Request::Statistics {
        buffer: address(AREA + 0x100),
        bytes,
    }
    .encode(DEFAULT_PROTOCOL_NUMBER);
    let answer = by_memory(platform, &service, &call).unwrap();
    assert_eq!((answer.rax, answer.rcx), (0, bytes));
    assert_eq!(platform.peek(AREA + 0x100, 4), [1, 0, 0, 0]);
    assert_eq!(*platform.reads.lock().unwrap(), [(BLOCK, 32)]);
    assert_eq!(platform.peek(BLOCK, 32), CallBlock::of(&call).as_bytes());
    assert_eq!(state(&service, AREA), Some(PageState::CallingArea));
}

#[test]
fn p_5_16_5_the_form_does_not_nest() {
    let (platform, service) = world(4);
    let answer = by_memory(platform, &service, &outer()).unwrap();
    let rax = ResultCode::UNSUPPORTED_CALL.to_rax();
    assert_eq!(
        answer,
        CallRegisters {
            rax,
            r9: 0,
            ..outer()
        }
    );
    // Whatever its arguments (P-4.3).
    let wrong = CallRegisters { rdx: 0, ..outer() };
    assert_eq!(by_memory(platform, &service, &wrong).unwrap().rax, rax);
    let foreign = CallRegisters::new(0x0000_0000_0000_0001, [LIST, 0, 0]);
    let answer = by_memory(platform, &service, &foreign).unwrap();
    let rax = ResultCode::UNSUPPORTED_PROTOCOL.to_rax();
    assert_eq!(answer, CallRegisters { rax, ..foreign });
}

#[test]
fn p5_p_5_16_6_busy_and_incomplete_are_told_inside() {
    let (platform, service) = world(4);
    let epoch = service.guest_attach();
    platform.poke(BLOCK, CallBlock::of(&grow(epoch, 1)).as_bytes());
    // Another processor's call has the page.
    set(&service, AREA, PageState::Busy);
    let answer = dispatch(&service, &outer());
    let r9 = ResultCode::BUSY.to_rax();
    assert_eq!(
        answer,
        CallRegisters {
            rax: 0,
            r9,
            ..outer()
        }
    );
    assert_eq!(*platform.reads.lock().unwrap(), []);
    set(&service, AREA, PageState::CallingArea);
    // The page that the call in the block names.
    set(&service, LIST, PageState::Busy);
    let list = Request::ListGranted {
        list: address(LIST),
        epoch,
    }
    .encode(DEFAULT_PROTOCOL_NUMBER);
    let answer = by_memory(platform, &service, &list).unwrap();
    assert_eq!(answer, CallRegisters { rax: r9, ..list });
    // INCOMPLETE: room for one run of two.
    set(&service, LIST, PageState::Valid);
    service.guest_grow(epoch, 1, 1).unwrap();
    service.guest_grow(epoch, 1, 1).unwrap();
    platform.poke(LIST, &[1, 0, 0, 0, 0, 0, 0, 0]);
    let outer_answer = {
        platform.poke(BLOCK, CallBlock::of(&list).as_bytes());
        dispatch(&service, &outer())
    };
    let incomplete = ResultCode::INCOMPLETE.to_rax();
    assert_eq!((outer_answer.rax, outer_answer.r9), (0, incomplete));
}

#[test]
fn p3_p_5_16_7_an_area_that_faults_is_quarantined() {
    let (platform, service) = world(4);
    platform.faulty_pages.lock().unwrap().insert(AREA);
    let answer = dispatch(&service, &outer());
    let rax = ResultCode::INVALID_ADDRESS.to_rax();
    assert_eq!(answer, CallRegisters { rax, ..outer() });
    assert_eq!(state(&service, AREA), Some(PageState::Quarantined));
    assert_eq!(service.statistics().guest_page_faults, 1);
}

#[test]
fn p_5_16_8_a_guest_with_this_form_only_identifies_and_attaches() {
    let (platform, service) = world(4);
    let [identity, attached] = [Request::Identify, Request::Attach { version: 1 }].map(|request| {
        let call = request.encode(DEFAULT_PROTOCOL_NUMBER);
        let answer = by_memory(platform, &service, &call).unwrap();
        protocol::response::decode_answer(&answer).unwrap()
    });
    let identity = Identity::decode(identity).unwrap();
    assert!(identity.speaks_this_version() && identity.features.memory_form());
    assert_eq!(attached.rcx, 1);
}

#[test]
fn p_4_7_the_other_calls_leave_r9_alone() {
    let (_, service) = world(4);
    let epoch = service.guest_attach();
    for call in [grow(epoch, 1), grow(epoch, 300), outer()] {
        let call = CallRegisters {
            r9: 99,
            rdx: 0,
            ..call
        };
        assert_eq!(dispatch(&service, &call).r9, 99);
    }
    let call = CallRegisters {
        r9: MARK,
        ..grow(epoch, 1)
    };
    assert_eq!(dispatch(&service, &call).r9, MARK);
}

#[test]
fn p_8_7_p_12_2_what_came_in_a_block_is_counted_and_noted_as_such() {
    let (platform, service) = world(4);
    let epoch = service.guest_attach();
    by_memory(platform, &service, &grow(epoch, 1)).unwrap();
    let stale = grow(epoch + 1, 1);
    by_memory(platform, &service, &stale).unwrap();
    by_memory(platform, &service, &outer()).unwrap();
    let wrong = CallRegisters { r8: 0, ..outer() };
    dispatch(&service, &wrong);
    set(&service, AREA, PageState::Busy);
    dispatch(&service, &outer());
    set(&service, AREA, PageState::CallingArea);

    let statistics = service.statistics();
    assert_eq!(statistics.calls[Call::Grow.index()], 2);
    assert_eq!(statistics.unknown_calls, 1, "the nested one");
    assert_eq!(statistics.memory_form_calls, 5);
    assert_eq!(statistics.memory_form_refused, 2);
    assert_eq!(statistics.refusals.iter().sum::<u64>(), 4);
    let trace = service.trace();
    let events: std::vec::Vec<_> = (trace.oldest()..trace.next())
        .filter_map(|number| trace.record(number))
        .filter(|record| record.kind >= TraceKind::Refused.number())
        .map(|record| {
            (
                record.kind,
                record.code,
                record.detail,
                record.address,
                record.bytes,
            )
        })
        .collect();
    let (inside, outside) = (
        TraceKind::RefusedInMemory.number(),
        TraceKind::Refused.number(),
    );
    assert_eq!(
        events,
        [
            (inside, 7, result::STALE_EPOCH.0, stale.rcx, stale.rdx),
            (inside, 16, ResultCode::UNSUPPORTED_CALL.0, BLOCK, MARK),
            (outside, 16, ResultCode::INVALID_PARAMETER.0, BLOCK, MARK),
            (outside, 16, ResultCode::BUSY.0, BLOCK, MARK),
        ]
    );
}

#[test]
fn p_5_9_11_a_service_that_has_stopped_reads_no_block() {
    let (platform, service) = world(4);
    service.stop();
    let answer = dispatch(&service, &outer());
    let rax = result::HOST_MISBEHAVED.to_rax();
    assert_eq!(answer, CallRegisters { rax, ..outer() });
    assert_eq!(*platform.reads.lock().unwrap(), []);
}

#[test]
fn p_6_3_a_host_that_refuses_and_a_limit_come_back_from_the_block() {
    let (platform, service) = world(300);
    let epoch = service.guest_attach();
    platform.script(&[Manner::Refuse(0, 0x1_0000_0006)]);
    let answer = by_memory(platform, &service, &grow(epoch, 1)).unwrap();
    assert_eq!(answer.rax, result::HOST_REFUSED.to_rax());
    let large = grow(epoch, 254);
    let answer = by_memory(platform, &service, &large).unwrap();
    let rax = result::TOO_LARGE.to_rax();
    assert_eq!(
        answer,
        CallRegisters {
            rax,
            rcx: 253 * CHUNK,
            ..large
        }
    );
}
