// SPDX-License-Identifier: MIT OR Apache-2.0
//! TRACE: what is noted of each call, and how a guest reads it.

use std::vec::Vec;

use protocol::response::TraceWritten;
use protocol::statistics::HostAnomaly;
use protocol::trace::{QUARANTINED_PAGE, RECORD_BYTES, TraceKind, TraceRecord};
use protocol::{Request, result};
use snp::address::PAGE_SIZE;
use snp::psc::{PscHeader, error};
use snp::svsm::ResultCode;
use zerocopy::FromBytes;

use super::{LIST, address, code};
use crate::Service;
use crate::platform::PscExit;
use crate::test_platform::{CHUNK, Guest, Manner, RAM_BASE, TestPlatform, WINDOW_BASE, service};

type Tested = Service<'static, TestPlatform>;

/// One TRACE call with room for so many records.
fn trace(
    platform: &TestPlatform,
    service: &Tested,
    records: u64,
    from: u64,
) -> (Vec<TraceRecord>, TraceWritten) {
    let request = Request::Trace {
        buffer: address(LIST),
        bytes: records * RECORD_BYTES,
        from,
    };
    let written = TraceWritten::decode(service.call(request).unwrap()).unwrap();
    let bytes = platform.peek(LIST, usize::try_from(written.bytes).unwrap());
    let records = bytes
        .chunks_exact(32)
        .map(|record| TraceRecord::read_from_bytes(record).unwrap())
        .collect();
    (records, written)
}

/// Kind, code, detail, address, bytes of every event so far.
fn events(platform: &TestPlatform, service: &Tested) -> Vec<(TraceKind, u16, u32, u64, u64)> {
    let (records, _) = trace(platform, service, 128, 0);
    let fields = |record: &TraceRecord| {
        let kind = TraceKind::try_from(record.kind).unwrap();
        (
            kind,
            record.code,
            record.detail,
            record.address,
            record.bytes,
        )
    };
    records.iter().map(fields).collect()
}

#[test]
fn p_12_2_every_kind_of_event_is_noted_with_what_it_concerns() {
    let (platform, service) = service(8);
    let first = service.guest_attach();
    let grant = service.guest_grow(first, 2, 2).unwrap();
    service
        .guest_release(grant.rcx, CHUNK, first, grant.r8)
        .unwrap();
    assert_eq!(
        code(service.guest_release(grant.rcx, CHUNK, first, grant.r8)),
        result::NOT_HELD
    );
    service.call(Request::Detach { epoch: first }).unwrap();
    let second = service.guest_attach();
    let orphans = |epoch, from| {
        service
            .call(Request::ReleaseOrphans { epoch, from })
            .unwrap()
    };
    let adopt = |epoch, from| service.call(Request::Adopt { epoch, from }).unwrap();
    adopt(second, first);
    let third = service.guest_attach();
    orphans(third, second);
    // Nothing to adopt and nothing to release: no event.
    adopt(third, second);
    orphans(third, second);
    let at = |chunk: u64| WINDOW_BASE + chunk * CHUNK;
    let expected = [
        (TraceKind::Attached, 0, 1, 0, 0),
        (TraceKind::Grown, 0, 1, at(0), 2 * CHUNK),
        (TraceKind::Released, 0, 1, at(0), CHUNK),
        (TraceKind::Refused, 8, result::NOT_HELD.0, at(0), CHUNK),
        (TraceKind::Detached, 0, 1, 0, CHUNK),
        (TraceKind::Attached, 0, 2, 0, CHUNK),
        (TraceKind::Adopted, 0, 1, 0, CHUNK),
        (TraceKind::Attached, 0, 3, 0, CHUNK),
        (TraceKind::OrphansReleased, 0, 2, at(1), CHUNK),
    ];
    assert_eq!(events(platform, &service), expected);
}

#[test]
fn p_12_2_what_the_host_did_is_noted_with_its_kind() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    platform.script(&[Manner::Refuse(0, error::GENERIC)]);
    assert_eq!(code(service.guest_grow(epoch, 2, 2)), result::HOST_REFUSED);
    let broken = PscHeader {
        cur_entry: 2,
        end_entry: 1,
        reserved: 7,
    };
    platform.script(&[Manner::Reply(broken, PscExit::default())]);
    let answer = service.guest_grow(epoch, 2, 2);
    assert_eq!(code(answer), result::HOST_MISBEHAVED);
    let grow = |refusal: ResultCode| (TraceKind::Refused, 7, refusal.0, 1 << 32, 2 * CHUNK);
    let host = |anomaly: HostAnomaly| {
        let kind = TraceKind::HostAnomaly;
        (kind, 2, anomaly as u32, WINDOW_BASE, 2 * CHUNK)
    };
    let expected = [
        (TraceKind::Attached, 0, 1, 0, 0),
        host(HostAnomaly::Refused),
        grow(result::HOST_REFUSED),
        host(HostAnomaly::ReservedNotZero),
        (TraceKind::Quarantined, 0, 0, WINDOW_BASE, 2 * CHUNK),
        grow(result::HOST_MISBEHAVED),
    ];
    assert_eq!(events(platform, &service), expected);
}

#[test]
fn p_12_2_a_page_that_faults_is_noted() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    let page = RAM_BASE + 3 * PAGE_SIZE;
    platform.faulty_pages.lock().unwrap().insert(page);
    let list = address(page + 8);
    let answer = service.call(Request::ListGranted { list, epoch });
    assert_eq!(code(answer), ResultCode::INVALID_ADDRESS);
    let noted = events(platform, &service);
    let expected = (TraceKind::Quarantined, QUARANTINED_PAGE, 0, page, PAGE_SIZE);
    assert!(noted.contains(&expected), "{noted:?}");
}

#[test]
fn p_5_11_1_no_attachment_is_needed() {
    let (platform, service) = service(8);
    let (records, written) = trace(platform, &service, 4, 0);
    assert!(records.is_empty());
    assert_eq!((written.next, written.oldest), (0, 0));
}

#[test]
fn p_12_4_refused_calls_drive_out_everything_else() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    service.guest_grow(epoch, 1, 1).unwrap();
    for _ in 0..256 {
        let call = Request::Detach { epoch: 99 };
        assert_eq!(code(service.call(call)), result::STALE_EPOCH);
    }
    let (records, written) = trace(platform, &service, 128, 0);
    assert_eq!((written.oldest, service.trace().next()), (2, 258));
    let refused = TraceKind::Refused.number();
    assert!(records.iter().all(|record| record.kind == refused));
}

#[test]
fn p_5_11_2_a_reader_goes_on_where_it_stopped_and_hears_of_what_it_missed() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    for _ in 0..3 {
        let grant = service.guest_grow(epoch, 1, 1).unwrap();
        service
            .guest_release(grant.rcx, CHUNK, epoch, grant.r8)
            .unwrap();
    }
    let numbers = |records: &[TraceRecord]| records.iter().map(|r| r.sequence).collect::<Vec<_>>();
    let (records, written) = trace(platform, &service, 5, 0);
    assert_eq!(numbers(&records), [0, 1, 2, 3, 4]);
    assert_eq!((written.next, written.oldest), (5, 0));
    let (records, written) = trace(platform, &service, 5, written.next);
    assert_eq!(numbers(&records), [5, 6]);
    assert_eq!(written.next, 7);
    // From a number that is yet to come: nothing, and the number to wait for.
    let (records, written) = trace(platform, &service, 5, u64::MAX);
    assert!(records.is_empty());
    assert_eq!(written.next, 7);

    for _ in 0..300 {
        let call = Request::Detach { epoch: 99 };
        assert_eq!(code(service.call(call)), result::STALE_EPOCH);
    }
    let (records, written) = trace(platform, &service, 2, 7);
    assert_eq!((written.oldest, written.next), (51, 53));
    assert_eq!(numbers(&records), [51, 52]);
}

#[test]
fn p_5_11_incomplete_and_foreign_calls_are_no_events() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    service.guest_grow(epoch, 1, 1).unwrap();
    let before = service.trace().next();
    platform.poke(LIST, &[1, 0, 0, 0, 0, 0, 0, 0]);
    let list = address(LIST);
    let answer = service.call(Request::ListGranted { list, epoch });
    assert_eq!(code(answer), ResultCode::INCOMPLETE);
    let foreign = snp::svsm::CallRegisters {
        rax: 0x4000_0002_0000_0007,
        ..Default::default()
    };
    service.dispatch(&foreign, None);
    assert_eq!(service.trace().next(), before);
}
