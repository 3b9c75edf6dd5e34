// SPDX-License-Identifier: MIT OR Apache-2.0
//! A second window: which call means which, and what they share (docs/PROTOCOL.md, P-3.2).

use std::boxed::Box;
use std::vec::Vec;

use protocol::list::{ENTRY_BYTES, GrantedRun, HEADER_BYTES, ListHeader};
use protocol::request::DescribeItem;
use protocol::response::{Adopted, Attached, Detached, OrphansReleased};
use protocol::statistics::WindowStatistics;
use protocol::{Request, result};
use snp::psc::PscHeader;
use snp::svsm::ResultCode;
use zerocopy::{FromBytes, IntoBytes};

use super::{LIST, address, code};
use crate::platform::PscExit;
use crate::pool::{MAX_WINDOW_CHUNKS, Pools, WindowError};
use crate::state::ServiceState;
use crate::test_platform::{
    Answer, CHUNK, Guest, LOW_BASE, Manner, TestPlatform, WINDOW_BASE, page_states, pool_at,
    service_with_two,
};
use crate::{Configuration, Service};

const HIGH: u64 = 8;
const LOW: u64 = 4;

fn two() -> (&'static TestPlatform, Service<'static, TestPlatform>) {
    service_with_two(TestPlatform::new(), HIGH, LOW)
}

fn describe(service: &Service<'_, TestPlatform>, window: u8, item: DescribeItem) -> [u64; 3] {
    let answer = service.call(Request::Describe { window, item }).unwrap();
    [answer.rcx, answer.rdx, answer.r8]
}

fn set_limits(service: &Service<'_, TestPlatform>, window: u8, epoch: u32, chunks: u64) -> Answer {
    service.call(Request::SetLimits {
        window,
        epoch,
        cap: chunks * CHUNK,
    })
}

/// The runs that calls of LIST_GRANTED with room for so many entries list, and how many calls that took.
fn list_all(
    (platform, service): (&TestPlatform, &Service<'_, TestPlatform>),
    epoch: u32,
    capacity: u16,
) -> (Vec<(u64, u64, u32)>, usize) {
    let (mut runs, mut cursor) = (Vec::new(), 0);
    for calls in 1.. {
        let header = ListHeader {
            capacity,
            written: 0,
            cursor,
        };
        platform.poke(LIST, header.as_bytes());
        let list = address(LIST);
        let answer = service.call(Request::ListGranted { list, epoch });
        let header = ListHeader::read_from_bytes(&platform.peek(LIST, 8)).unwrap();
        for entry in 0..u64::from(header.written) {
            let at = LIST + HEADER_BYTES + entry * ENTRY_BYTES;
            let run = GrantedRun::read_from_bytes(&platform.peek(at, 24)).unwrap();
            runs.push((run.base, run.bytes / CHUNK, run.epoch));
        }
        cursor = header.cursor;
        match answer {
            Ok(_) => {
                assert_eq!(u64::from(cursor), HIGH + LOW, "P-7.3");
                return (runs, calls);
            }
            Err(refusal) => assert_eq!(refusal.code, ResultCode::INCOMPLETE),
        }
    }
    unreachable!()
}

#[test]
fn p_3_2_p_5_1_each_window_describes_itself_and_a_third_is_none() {
    let (_, service) = two();
    let geometry = |window| describe(&service, window, DescribeItem::Geometry);
    assert_eq!(geometry(0), [WINDOW_BASE, HIGH * CHUNK, 21]);
    assert_eq!(geometry(1), [LOW_BASE, LOW * CHUNK, 21]);
    let limits = |window| describe(&service, window, DescribeItem::WorkLimits);
    assert_eq!(limits(1), limits(0));
    let epoch = service.guest_attach();
    for window in 2..=7 {
        let item = DescribeItem::Geometry;
        let described = service.call(Request::Describe { window, item });
        assert_eq!(code(described), ResultCode::INVALID_PARAMETER);
        let grown = service.guest_grow_of(window, epoch, 1, 1);
        assert_eq!(code(grown), ResultCode::INVALID_PARAMETER);
        let set = set_limits(&service, window, epoch, 1);
        assert_eq!(code(set), ResultCode::INVALID_PARAMETER);
    }
}

#[test]
fn p_3_2_p_5_7_p_5_8_grants_come_from_the_window_named_and_go_back_to_where_they_lie() {
    let (_, service) = two();
    let epoch = service.guest_attach();
    let low = service.guest_grow_of(1, epoch, 3, 3).unwrap();
    let high = service.guest_grow_of(0, epoch, 2, 2).unwrap();
    assert_eq!((low.rcx, low.rdx), (LOW_BASE, 3 * CHUNK));
    assert_eq!((high.rcx, high.rdx), (WINDOW_BASE, 2 * CHUNK));
    assert_ne!(
        low.r8, high.r8,
        "P-3.6: a generation numbers a grant, of whatever window"
    );
    let usage = |window| describe(&service, window, DescribeItem::Usage);
    assert_eq!(usage(0), [HIGH * CHUNK, 2 * CHUNK, 0]);
    assert_eq!(usage(1), [LOW * CHUNK, 3 * CHUNK, 0]);

    // One exhausted, the other not.
    let rest = service.guest_grow_of(1, epoch, 1, 8).unwrap();
    assert_eq!(rest.rdx, CHUNK);
    assert_eq!(
        code(service.guest_grow_of(1, epoch, 1, 1)),
        result::CAP_REACHED
    );
    service.guest_grow_of(0, epoch, 1, 1).unwrap();

    // The generation of one is not the other's, and no range lies in both.
    let wrong = service.guest_release(low.rcx, low.rdx, epoch, high.r8);
    assert_eq!(code(wrong), result::NOT_HELD);
    let between = WINDOW_BASE - LOW_BASE + CHUNK;
    let across = service.guest_release(LOW_BASE, between, epoch, low.r8);
    assert_eq!(code(across), ResultCode::INVALID_ADDRESS);
    let behind = service.guest_release(LOW_BASE + LOW * CHUNK, CHUNK, epoch, low.r8);
    assert_eq!(code(behind), ResultCode::INVALID_ADDRESS);

    let released = service.guest_release(low.rcx, low.rdx, epoch, low.r8);
    assert_eq!(released.unwrap().rcx, 3 * CHUNK);
    assert_eq!(usage(1)[1], CHUNK);
    assert_eq!(usage(0)[1], 3 * CHUNK);
}

#[test]
fn p_3_12_p_5_12_each_window_has_its_cap_and_only_the_newest_epoch_sets_it() {
    let (_, service) = two();
    let epoch = service.guest_attach();
    let previous = |answer: Answer| answer.unwrap().rcx / CHUNK;
    assert_eq!(previous(set_limits(&service, 1, epoch, 1)), LOW);
    assert_eq!(
        code(set_limits(&service, 1, epoch, LOW + 1)),
        ResultCode::INVALID_PARAMETER,
        "its hard cap is its own"
    );
    assert_eq!(previous(set_limits(&service, 0, epoch, LOW + 1)), HIGH);
    service.guest_grow_of(1, epoch, 1, 1).unwrap();
    assert_eq!(
        code(service.guest_grow_of(1, epoch, 1, 1)),
        result::CAP_REACHED
    );
    service.guest_grow_of(0, epoch, 2, 2).unwrap();

    // A call of an epoch that has ended, which was under way when it did.
    let old = protocol::Epoch::new(epoch).unwrap();
    service.guest_attach();
    for pool in service.pools().iter() {
        assert!(pool.accounts().set_cap(old, 0).is_err(), "P-5.12.3");
    }
}

#[test]
fn p_7_2_p_7_3_the_list_counts_through_both_windows() {
    let (platform, service) = two();
    let epoch = service.guest_attach();
    service.guest_grow_of(0, epoch, HIGH, HIGH).unwrap();
    service.guest_grow_of(1, epoch, 2, 2).unwrap();
    let all = [(WINDOW_BASE, HIGH, epoch), (LOW_BASE, 2, epoch)];
    let world = (platform, &service);
    assert_eq!(list_all(world, epoch, 170), (all.to_vec(), 1));
    assert_eq!(list_all(world, epoch, 1), (all.to_vec(), 3));

    let header = ListHeader {
        capacity: 1,
        written: 0,
        cursor: u32::try_from(HIGH + LOW + 1).unwrap(),
    };
    platform.poke(LIST, header.as_bytes());
    let list = address(LIST);
    let beyond = service.call(Request::ListGranted { list, epoch });
    assert_eq!(code(beyond), ResultCode::INVALID_PARAMETER);
}

#[test]
fn p_5_2_p_5_6_attach_and_detach_count_what_all_windows_hold() {
    let (_, service) = two();
    let epoch = service.guest_attach();
    service.guest_grow_of(0, epoch, 2, 2).unwrap();
    service.guest_grow_of(1, epoch, 3, 3).unwrap();
    let detached = Detached::decode(service.call(Request::Detach { epoch }).unwrap());
    assert_eq!(detached.orphaned_bytes, 5 * CHUNK);
    let attached = service.call(Request::Attach { version: 1 }).unwrap();
    let attached = Attached::decode(attached).unwrap();
    assert_eq!(attached.orphaned_bytes, 5 * CHUNK);
}

#[test]
fn p_5_4_p_5_5_orphans_of_both_windows_are_adopted_or_released() {
    let (platform, service) = two();
    let first = service.guest_attach();
    let high = service.guest_grow_of(0, first, 2, 2).unwrap();
    let low = service.guest_grow_of(1, first, 3, 3).unwrap();
    let epoch = service.guest_attach();
    let adopted = service.call(Request::Adopt { epoch, from: first });
    let adopted = Adopted::decode(adopted.unwrap());
    assert_eq!((adopted.bytes, adopted.left), (5 * CHUNK, 0));
    for grant in [low, high] {
        let released = service.guest_release(grant.rcx, CHUNK, epoch, grant.r8);
        assert_eq!(released.unwrap().rcx, CHUNK);
    }

    // A batch is of one window, and says what the other still has.
    let last = service.guest_attach();
    let exits = platform.exit_count();
    let released = || {
        let from = epoch;
        let answer = service.call(Request::ReleaseOrphans { epoch: last, from });
        let answer = OrphansReleased::decode(answer.unwrap()).unwrap();
        [answer.bytes, answer.acknowledged, answer.left].map(|bytes| bytes / CHUNK)
    };
    assert_eq!(released(), [1, 1, 2]);
    assert_eq!(released(), [2, 2, 0]);
    assert_eq!(released(), [0, 0, 0]);
    assert_eq!(platform.exit_count(), exits + 2);
    assert_eq!(service.pools().granted_bytes(), 0);
}

#[test]
fn p3_p_5_7_7_a_broken_reply_costs_the_window_that_it_was_about() {
    let (platform, service) = two();
    let epoch = service.guest_attach();
    let lie = PscHeader {
        cur_entry: 9,
        ..PscHeader::default()
    };
    platform.script(&[Manner::Reply(lie, PscExit::default())]);
    assert_eq!(
        code(service.guest_grow_of(1, epoch, 2, 2)),
        result::HOST_MISBEHAVED
    );
    let usage = |window| describe(&service, window, DescribeItem::Usage);
    assert_eq!(usage(1), [LOW * CHUNK, 0, 2 * CHUNK]);
    assert_eq!(usage(0), [HIGH * CHUNK, 0, 0]);
    let statistics = service.statistics();
    let second = WindowStatistics {
        window_bytes: LOW * CHUNK,
        cap_bytes: LOW * CHUNK,
        granted_bytes: 0,
        peak_granted_bytes: 2 * CHUNK,
        quarantined_bytes: 2 * CHUNK,
    };
    assert_eq!(statistics.second, second, "P-8.2");
    assert_eq!(statistics.peak_granted_bytes, 0);
}

#[test]
fn w1_p_3_4_what_touches_either_window_is_refused() {
    let (_, service) = two();
    for (base, chunks) in [(WINDOW_BASE, HIGH), (LOW_BASE, LOW)] {
        let end = base + chunks * CHUNK;
        assert!(service.touches_window(address(base), 1));
        assert!(service.touches_window(address(end - 1), 1));
        assert!(!service.touches_window(address(base - 0x1000), 0x1000));
        assert!(!service.touches_window(address(end), 0x1000));
    }
}

#[test]
fn w1_p_6_5_windows_that_overlap_or_are_too_large_together_are_no_service() {
    let refused = |low: u64, chunks| {
        let high = pool_at(WINDOW_BASE, HIGH);
        Pools::two(high, pool_at(low, chunks)).map(|_| ())
    };
    let overlaps = Err(WindowError::OverlapsWindow);
    assert_eq!(refused(WINDOW_BASE, 1), overlaps);
    assert_eq!(refused(WINDOW_BASE - CHUNK, 2), overlaps);
    assert_eq!(refused(WINDOW_BASE + (HIGH - 1) * CHUNK, 1), overlaps);
    assert_eq!(refused(WINDOW_BASE - CHUNK, 1), Ok(()));
    assert_eq!(refused(WINDOW_BASE + HIGH * CHUNK, 1), Ok(()));
    let most = MAX_WINDOW_CHUNKS as u64 - HIGH;
    assert_eq!(refused(1 << 40, most), Ok(()));
    assert_eq!(refused(1 << 40, most + 1), Err(WindowError::TooLarge));
}

#[test]
fn p_13_2_a_successor_has_both_windows_with_their_caps_and_peaks() {
    let (_, old) = two();
    let epoch = old.guest_attach();
    old.guest_grow_of(1, epoch, 2, 2).unwrap();
    old.guest_grow_of(0, epoch, 3, 3).unwrap();
    set_limits(&old, 1, epoch, 3).unwrap();
    let state = old.state();
    assert_eq!(state.second_base, LOW_BASE);
    let resumed = |state: &ServiceState, low: u64| {
        let platform: &'static TestPlatform = Box::leak(Box::new(TestPlatform::new()));
        let high = pool_at(WINDOW_BASE, HIGH);
        let pools = Pools::two(high, pool_at(low, LOW)).unwrap();
        let configuration = Configuration::with_encryption_bit(51);
        let pages = page_states();
        Service::resume(platform, configuration, pools, pages, state).map(|new| new.statistics())
    };
    let statistics = resumed(&state, LOW_BASE).unwrap();
    let second = statistics.second;
    assert_eq!(
        (second.cap_bytes, second.peak_granted_bytes),
        (3 * CHUNK, 2 * CHUNK)
    );
    assert_eq!(statistics.peak_granted_bytes, 3 * CHUNK);
    assert!(resumed(&state, LOW_BASE + CHUNK).is_err(), "another window");
    let mut above = state;
    above.statistics.second.cap_bytes = (LOW + 1) * CHUNK;
    assert!(resumed(&above, LOW_BASE).is_err(), "above its hard cap");
}
