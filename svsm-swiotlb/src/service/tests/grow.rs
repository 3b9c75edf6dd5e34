// SPDX-License-Identifier: MIT OR Apache-2.0
//! GROW and the cap.

use std::vec::Vec;

use protocol::request::DescribeItem;
use protocol::response::{Granted, Released, WorkLimits};
use protocol::{Refusal, Request, result};
use snp::psc::{PscHeader, PscOperation, error};
use snp::svsm::ResultCode;

use super::code;
use crate::Configuration;
use crate::platform::{Issue, PscExit};
use crate::test_platform::{
    CHUNK, Guest, Manner, TestPlatform, WINDOW_BASE, service, service_with,
};

#[test]
fn p_5_7_2_grow_grants_what_the_host_shared() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    let granted = Granted::decode(service.guest_grow(epoch, 1, 3).unwrap()).unwrap();
    assert_eq!(
        (granted.base.bits(), granted.bytes),
        (WINDOW_BASE, 3 * CHUNK)
    );
    assert_eq!(granted.generation.number(), 1);
    let next = Granted::decode(service.guest_grow(epoch, 2, 2).unwrap()).unwrap();
    assert_eq!(
        (next.base.bits(), next.generation.number()),
        (WINDOW_BASE + 3 * CHUNK, 2)
    );
    assert_eq!(platform.exit_count(), 2);
}

#[test]
fn p_5_7_5_grow_always_asks_the_host_even_for_a_chunk_it_never_took_back() {
    let (platform, service) = service(1);
    let epoch = service.guest_attach();
    let first = service.guest_grow(epoch, 1, 1).unwrap();
    platform.script(&[Manner::Refuse(0, error::GENERIC)]);
    let release = service
        .guest_release(first.rcx, first.rdx, epoch, first.r8)
        .unwrap();
    let released = Released::decode(release).unwrap();
    assert_eq!(
        released,
        Released {
            bytes: CHUNK,
            acknowledged: 0
        }
    );
    assert!(service.guest_grow(epoch, 1, 1).is_ok());
    let operations: Vec<u8> = platform
        .exits
        .lock()
        .unwrap()
        .iter()
        .flat_map(|(_, entries)| entries.iter().map(|entry| entry.operation()))
        .collect();
    let (shared, private) = (PscOperation::Shared as u8, PscOperation::Private as u8);
    assert_eq!(operations, [shared, private, shared]);
}

#[test]
fn p_5_7_3_p_5_7_6_a_clean_refusal_grants_the_part_done_and_frees_the_rest() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    platform.script(&[Manner::Refuse(2, error::GENERIC)]);
    let granted = service.guest_grow(epoch, 4, 4).unwrap();
    assert_eq!(granted.rdx, 2 * CHUNK);
    let usage = service.statistics();
    assert_eq!(
        (usage.granted_bytes, usage.quarantined_bytes),
        (2 * CHUNK, 0)
    );
    assert_eq!(service.guest_grow(epoch, 6, 6).unwrap().rdx, 6 * CHUNK);
}

#[test]
fn p_5_7_6_a_refusal_of_everything_changes_nothing() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    for info in [
        error::GENERIC,
        error::INVALID_HEADER,
        error::INVALID_ENTRY,
        1,
    ] {
        platform.script(&[Manner::Refuse(0, info)]);
        assert_eq!(code(service.guest_grow(epoch, 1, 8)), result::HOST_REFUSED);
    }
    assert_eq!(service.statistics().granted_bytes, 0);
    assert_eq!(service.guest_grow(epoch, 8, 8).unwrap().rdx, 8 * CHUNK);
}

#[test]
fn p_5_7_6_a_contiguous_wish_that_the_host_cuts_short_leaves_nothing_behind() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    platform.script(&[Manner::Refuse(2, error::GENERIC)]);
    assert_eq!(
        code(service.guest_grow_contiguous(epoch, 4, 4)),
        result::HOST_REFUSED
    );
    let statistics = service.statistics();
    assert_eq!(
        (statistics.granted_bytes, statistics.quarantined_bytes),
        (0, 0)
    );
    assert_eq!(
        statistics.psc_entries_private, 4,
        "what was shared was given back"
    );
    assert_eq!(
        service.guest_grow_contiguous(epoch, 8, 8).unwrap().rdx,
        8 * CHUNK
    );
}

#[test]
fn p_5_7_4_p_6_3_a_contiguous_wish_above_a_batch_names_the_limit() {
    let (_, service) = service(300);
    let epoch = service.guest_attach();
    let refusal = service.guest_grow_contiguous(epoch, 254, 254).unwrap_err();
    assert_eq!(refusal, Refusal::too_large(253 * CHUNK));
    assert_eq!(
        service.guest_grow(epoch, 254, 300).unwrap().rdx,
        253 * CHUNK
    );
}

#[test]
fn p_5_7_8_p_5_12_1_p_5_12_2_the_cap_refuses_growth_and_takes_nothing_away() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    service.guest_grow(epoch, 3, 3).unwrap();
    let set = |cap| {
        service.call(Request::SetLimits {
            window: 0,
            epoch,
            cap,
        })
    };
    assert_eq!(set(2 * CHUNK).unwrap().rcx, 8 * CHUNK);
    assert_eq!(code(service.guest_grow(epoch, 1, 1)), result::CAP_REACHED);
    assert_eq!(service.statistics().granted_bytes, 3 * CHUNK);
    assert_eq!(set(5 * CHUNK).unwrap().rcx, 2 * CHUNK);
    assert_eq!(
        code(service.guest_grow_contiguous(epoch, 3, 3)),
        result::CAP_REACHED
    );
    assert_eq!(service.guest_grow(epoch, 3, 3).unwrap().rdx, 2 * CHUNK);
    assert_eq!(code(set(9 * CHUNK)), ResultCode::INVALID_PARAMETER);
    assert_eq!(platform.exit_count(), 2);
}

#[test]
fn p_3_2_windows_that_do_not_exist_are_refused() {
    let (_, service) = service(4);
    let epoch = service.guest_attach();
    let (least, most) = (CHUNK, CHUNK);
    let grow = Request::Grow {
        window: 1,
        contiguous: false,
        epoch,
        least,
        most,
    };
    assert_eq!(code(service.call(grow)), ResultCode::INVALID_PARAMETER);
    let limits = Request::SetLimits {
        window: 1,
        epoch,
        cap: 0,
    };
    assert_eq!(code(service.call(limits)), ResultCode::INVALID_PARAMETER);
}

#[test]
#[cfg_attr(miri, ignore = "more chunks than Miri gets through")]
fn p_5_7_with_the_unit_limit_lifted_a_gibibyte_is_one_call_and_three_exits() {
    let configuration = Configuration::with_encryption_bit(51).without_unit_limit();
    let (platform, service) = service_with(TestPlatform::new(), 512, configuration);
    let limits = Request::Describe {
        window: 0,
        item: DescribeItem::WorkLimits,
    };
    let limits = WorkLimits::decode(service.call(limits).unwrap());
    assert!(limits.grow_bytes >= 512 * CHUNK && limits.units >= 512);
    assert_eq!(limits.psc_entries, 253);
    let epoch = service.guest_attach();
    let granted = service.guest_grow_contiguous(epoch, 512, 512).unwrap();
    assert_eq!((granted.rcx, granted.rdx), (WINDOW_BASE, 1 << 30));
    let ends: Vec<_> = platform
        .exits
        .lock()
        .unwrap()
        .iter()
        .map(|exit| exit.0.end_entry)
        .collect();
    assert_eq!(ends, [252, 252, 5]);
    let issues = platform.issues.lock().unwrap().clone();
    assert_eq!(issues, [Issue::First; 3], "each descriptor is a new one");
    let second = platform.exits.lock().unwrap()[1].1[0];
    assert_eq!(second.page().bits(), WINDOW_BASE + 253 * CHUNK);

    let released = service.guest_release(WINDOW_BASE, 1 << 30, epoch, granted.r8);
    let released = released.unwrap();
    assert_eq!((released.rcx, released.rdx), (1 << 30, 1 << 30));
    assert_eq!(platform.exit_count(), 6);
}

#[test]
fn p_5_7_a_refusal_in_a_later_batch_leaves_the_run_before_it() {
    let configuration = Configuration::with_encryption_bit(51).without_unit_limit();
    let (platform, service) = service_with(TestPlatform::new(), 512, configuration);
    let epoch = service.guest_attach();
    platform.script(&[Manner::Honest, Manner::Refuse(7, error::GENERIC)]);
    let granted = service.guest_grow(epoch, 512, 512).unwrap();
    assert_eq!(granted.rdx, 260 * CHUNK);
    assert_eq!(service.statistics().granted_bytes, 260 * CHUNK);
    // A rule broken in a later batch: nothing is known of the run any more.
    let broken = PscHeader {
        cur_entry: 0,
        end_entry: 0,
        reserved: 0,
    };
    service
        .guest_release(granted.rcx, granted.rdx, epoch, granted.r8)
        .unwrap();
    platform.script(&[Manner::Honest, Manner::Reply(broken, PscExit::default())]);
    let answer = service.guest_grow(epoch, 512, 512);
    assert_eq!(code(answer), result::HOST_MISBEHAVED);
    assert_eq!(service.statistics().quarantined_bytes, 512 * CHUNK);
}

#[test]
#[cfg_attr(miri, ignore = "more chunks than Miri gets through")]
fn p_5_7_p_5_8_4_with_the_unit_limit_lifted_each_exit_may_be_answered_badly() {
    const CHUNKS: u64 = 512;
    const BATCH: u64 = 253;
    let broken = PscHeader {
        cur_entry: 0,
        end_entry: 0,
        reserved: 0,
    };
    let ways = [0, 1, 5].map(Some);
    for (nth, done_in_it) in
        (0..3).flat_map(|nth| ways.into_iter().chain([None]).map(move |way| (nth, way)))
    {
        let way = match done_in_it {
            Some(entries) => Manner::Refuse(u16::try_from(entries).unwrap(), error::GENERIC),
            None => Manner::Reply(broken, PscExit::default()),
        };
        let script = || [std::vec![Manner::Honest; nth], std::vec![way]].concat();
        let done = done_in_it.map(|entries| (nth as u64 * BATCH + entries) * CHUNK);
        let begin = || {
            let configuration = Configuration::with_encryption_bit(51).without_unit_limit();
            let (platform, service) = service_with(TestPlatform::new(), CHUNKS, configuration);
            let epoch = service.guest_attach();
            (platform, service, epoch)
        };
        let case = std::format!("exit {nth}, {done_in_it:?}");

        let (platform, service, epoch) = begin();
        platform.script(&script());
        let granted = service.guest_grow(epoch, CHUNKS, CHUNKS);
        match done {
            None => assert_eq!(code(granted), result::HOST_MISBEHAVED, "{case}"),
            Some(0) => assert_eq!(code(granted), result::HOST_REFUSED, "{case}"),
            Some(bytes) => assert_eq!(granted.unwrap().rdx, bytes, "{case}"),
        }
        let statistics = service.statistics();
        let lost = if done.is_none() { CHUNKS * CHUNK } else { 0 };
        assert_eq!(statistics.granted_bytes, done.unwrap_or(0), "{case}");
        assert_eq!(statistics.quarantined_bytes, lost, "{case}");

        // All or nothing: what was shared goes back.
        let (platform, service, epoch) = begin();
        platform.script(&script());
        let granted = code(service.guest_grow_contiguous(epoch, CHUNKS, CHUNKS));
        let refused = if done.is_none() {
            result::HOST_MISBEHAVED
        } else {
            result::HOST_REFUSED
        };
        assert_eq!(granted, refused, "{case}");
        let statistics = service.statistics();
        assert_eq!(
            (statistics.granted_bytes, statistics.quarantined_bytes),
            (0, lost),
            "{case}"
        );

        let (platform, service, epoch) = begin();
        let granted = service.guest_grow(epoch, CHUNKS, CHUNKS).unwrap();
        platform.script(&script());
        let released = service.guest_release(granted.rcx, granted.rdx, epoch, granted.r8);
        let released = released.unwrap();
        assert_eq!(
            (released.rcx, released.rdx),
            (CHUNKS * CHUNK, done.unwrap_or(0)),
            "{case}"
        );
        let statistics = service.statistics();
        assert_eq!(
            (statistics.granted_bytes, statistics.quarantined_bytes),
            (0, lost),
            "{case}"
        );
    }
}
