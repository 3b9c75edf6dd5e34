// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invariant P4: every rule for a reply, broken one at a time, at the first and at a later VMGEXIT.

use protocol::statistics::HostAnomaly;
use snp::psc::{PscHeader, PscOperation, error};

use super::{MAX_FRUITLESS_EXITS, Reply, judge};
use crate::platform::{Issue, PscExit};
use crate::test_platform::{CHUNK, Guest, Manner, TestPlatform, WINDOW_BASE, service, service_on};

const fn header(cur_entry: u16, end_entry: u16) -> PscHeader {
    PscHeader {
        cur_entry,
        end_entry,
        reserved: 0,
    }
}

const fn exit(sw_exit_info_1: u64, sw_exit_info_2: u64) -> PscExit {
    PscExit {
        sw_exit_info_1,
        sw_exit_info_2,
    }
}

const OK: PscExit = exit(0, 0);
const GENERIC: PscExit = exit(0, error::GENERIC);

#[test]
fn p4_p_9_1_judgement_table() {
    let submitted = header(3, 9);
    let cases = [
        (header(10, 9), OK, Reply::Complete),
        (header(3, 9), OK, Reply::GoOn(3)),
        (header(9, 9), OK, Reply::GoOn(9)),
        (header(5, 9), GENERIC, Reply::Refused(5)),
        (
            header(3, 9),
            exit(0, error::INVALID_ENTRY),
            Reply::Refused(3),
        ),
        (header(3, 9), exit(2, 5), Reply::Refused(3)),
        // The whole of SW_EXITINFO1 is the status: upper bits make it one that nobody defined.
        (
            header(3, 9),
            exit(0xFFFF_FFFF_0000_0000, 0),
            Reply::Broken(HostAnomaly::UnknownExitStatus),
        ),
        (
            header(10, 9),
            exit(1 << 32, 0),
            Reply::Broken(HostAnomaly::UnknownExitStatus),
        ),
        (
            header(3, 9),
            exit(1 << 63 | 2, 0),
            Reply::Broken(HostAnomaly::UnknownExitStatus),
        ),
        (
            header(2, 9),
            OK,
            Reply::Broken(HostAnomaly::CursorBackwards),
        ),
        (
            header(11, 9),
            OK,
            Reply::Broken(HostAnomaly::CursorBeyondEnd),
        ),
        (
            header(u16::MAX, 9),
            OK,
            Reply::Broken(HostAnomaly::CursorBeyondEnd),
        ),
        (
            header(10, 10),
            OK,
            Reply::Broken(HostAnomaly::EndEntryChanged),
        ),
        (
            header(4, 3),
            OK,
            Reply::Broken(HostAnomaly::EndEntryChanged),
        ),
        (
            header(10, 9),
            GENERIC,
            Reply::Broken(HostAnomaly::Contradiction),
        ),
        (
            header(5, 9),
            exit(1, 0x8000_0B0D),
            Reply::Broken(HostAnomaly::UnknownExitStatus),
        ),
        (
            header(10, 9),
            exit(3, 0),
            Reply::Broken(HostAnomaly::UnknownExitStatus),
        ),
    ];
    for (reply, exit, expected) in cases {
        assert_eq!(
            judge(submitted, reply, exit),
            expected,
            "{reply:?} {exit:?}"
        );
    }
    let reserved = PscHeader {
        reserved: 1,
        ..header(10, 9)
    };
    let expected = Reply::Broken(HostAnomaly::ReservedNotZero);
    assert_eq!(judge(submitted, reserved, OK), expected);
}

#[test]
fn p4_no_reply_at_all_can_make_the_judge_accept_more_than_was_asked() {
    // Every cursor and end there is, for every submitted header of a small batch: exhaustive.
    for end in 0..4 {
        for cursor in 0..=end {
            for reply_end in 0..=5 {
                for reply_cursor in 0..=6 {
                    let reply = header(reply_cursor, reply_end);
                    match judge(header(cursor, end), reply, OK) {
                        Reply::Complete => assert_eq!((reply_cursor, reply_end), (end + 1, end)),
                        Reply::GoOn(entry) => assert!(cursor <= entry && entry <= end),
                        Reply::Refused(_) => panic!("no error was reported"),
                        Reply::Broken(_) => {}
                    }
                }
            }
        }
    }
}

#[test]
fn p4_p_9_2_an_unfinished_descriptor_is_submitted_again_from_its_cursor() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    platform.script(&[Manner::Early(1), Manner::Early(0), Manner::Early(2)]);
    let granted = service.guest_grow(epoch, 4, 4).unwrap();
    assert_eq!((granted.rcx, granted.rdx), (WINDOW_BASE, 4 * CHUNK));
    let exits = platform.exits.lock().unwrap();
    let cursors: std::vec::Vec<u16> = exits.iter().map(|(header, _)| header.cur_entry).collect();
    assert_eq!(cursors, [0, 1, 1, 3]);
    // The entries are written once; after that they hold what the host did inside them.
    let issues = platform.issues.lock().unwrap();
    assert_eq!(
        *issues,
        [Issue::First, Issue::Again, Issue::Again, Issue::Again]
    );
    let statistics = service.statistics();
    assert_eq!((statistics.psc_exits, statistics.psc_reissues), (4, 3));
    assert_eq!(statistics.psc_entries_shared, 4);
}

#[test]
fn p4_p_9_3_the_own_entries_decide_and_are_large_and_in_order() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    service.guest_grow(epoch, 3, 3).unwrap();
    let exits = platform.exits.lock().unwrap();
    let (header, entries) = exits.first().unwrap();
    assert_eq!(
        (header.cur_entry, header.end_entry, entries.len()),
        (0, 2, 3)
    );
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(entry.page().bits(), WINDOW_BASE + index as u64 * CHUNK);
        assert_eq!(entry.operation(), PscOperation::Shared as u8);
        assert!(entry.large());
        assert_eq!((entry.current_page(), entry.reserved()), (0, 0));
    }
}

#[test]
fn c1_p_9_2_a_host_that_returns_for_ever_is_given_up_on() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    platform.script(&[Manner::Early(0); 1000]);
    let refusal = service.guest_grow(epoch, 1, 4).unwrap_err();
    assert_eq!(refusal.code, protocol::result::HOST_REFUSED);
    assert_eq!(platform.exit_count(), MAX_FRUITLESS_EXITS);
    let statistics = service.statistics();
    assert_eq!(
        statistics.host_anomalies[HostAnomaly::NoProgress.index()],
        1
    );
    assert_eq!(
        (statistics.granted_bytes, statistics.quarantined_bytes),
        (0, 0)
    );
}

#[test]
fn c1_p_6_4_p_9_2_the_slowest_host_that_makes_progress_is_followed_to_the_end() {
    let (platform, service) = service(300);
    let epoch = service.guest_attach();
    platform.script(&[Manner::Early(1); 252]);
    let granted = service.guest_grow(epoch, 1, 300).unwrap();
    assert_eq!(granted.rdx, 253 * CHUNK);
    assert_eq!(platform.exit_count(), 253);
}

#[test]
fn c1_each_move_of_the_cursor_earns_the_host_its_patience_again() {
    let slowest = std::iter::repeat_n(Manner::Early(0), MAX_FRUITLESS_EXITS - 1);
    let entry: std::vec::Vec<Manner> = slowest.chain([Manner::Early(1)]).collect();
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    platform.script(&entry.repeat(3));
    let granted = service.guest_grow(epoch, 4, 4).unwrap();
    assert_eq!(granted.rdx, 4 * CHUNK);
    assert_eq!(platform.exit_count(), 3 * MAX_FRUITLESS_EXITS + 1);
}

#[test]
fn p3_p_5_7_7_p_9_1_each_broken_reply_quarantines_the_whole_batch_and_says_which_rule() {
    let ends = header(0, 3);
    let broken = [
        (
            PscHeader {
                reserved: 7,
                ..header(4, 3)
            },
            OK,
            HostAnomaly::ReservedNotZero,
        ),
        (header(4, 252), OK, HostAnomaly::EndEntryChanged),
        (header(5, 3), OK, HostAnomaly::CursorBeyondEnd),
        (header(4, 3), GENERIC, HostAnomaly::Contradiction),
        (ends, exit(1, 0), HostAnomaly::UnknownExitStatus),
    ];
    for (reply, exit, anomaly) in broken {
        for earlier in [false, true] {
            let (platform, service) = service_on(TestPlatform::new(), 8);
            let epoch = service.guest_attach();
            if earlier {
                platform.script(&[Manner::Early(2)]);
            }
            // After an early return the same cursor would be a step backwards; keep it where it was.
            let cur_entry = if earlier {
                reply.cur_entry.max(2)
            } else {
                reply.cur_entry
            };
            platform.script(&[Manner::Reply(PscHeader { cur_entry, ..reply }, exit)]);
            let refusal = service.guest_grow(epoch, 1, 4).unwrap_err();
            assert_eq!(
                refusal.code,
                protocol::result::HOST_MISBEHAVED,
                "{anomaly:?}"
            );
            let statistics = service.statistics();
            assert_eq!(statistics.host_anomalies[anomaly.index()], 1, "{anomaly:?}");
            assert_eq!(statistics.quarantined_bytes, 4 * CHUNK);
            assert_eq!(statistics.granted_bytes, 0);
            // Never again: the next growth begins behind them and ends with the window.
            let next = service.guest_grow(epoch, 4, 8).unwrap();
            assert_eq!((next.rcx, next.rdx), (WINDOW_BASE + 4 * CHUNK, 4 * CHUNK));
            assert!(service.guest_grow(epoch, 1, 1).is_err());
        }
    }
}

#[test]
fn p4_a_cursor_that_goes_back_is_a_broken_rule() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    platform.script(&[Manner::Early(3), Manner::Reply(header(2, 3), OK)]);
    let refusal = service.guest_grow(epoch, 1, 4).unwrap_err();
    assert_eq!(refusal.code, protocol::result::HOST_MISBEHAVED);
    let statistics = service.statistics();
    assert_eq!(
        statistics.host_anomalies[HostAnomaly::CursorBackwards.index()],
        1
    );
}
