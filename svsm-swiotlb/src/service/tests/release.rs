// SPDX-License-Identifier: MIT OR Apache-2.0
//! RELEASE, and chunks in transition.

use core::sync::atomic::{AtomicBool, Ordering};
use std::boxed::Box;
use std::sync::Arc;

use protocol::result;
use snp::psc::{PscHeader, error};
use snp::svsm::ResultCode;

use super::code;
use crate::platform::PscExit;
use crate::test_platform::{CHUNK, Guest, Manner, TestPlatform, WINDOW_BASE, service, service_on};

#[test]
fn w2_p_5_8_1_release_refuses_what_is_not_held_and_asks_the_host_for_nothing() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    let granted = service.guest_grow(epoch, 2, 2).unwrap();
    let exits = platform.exit_count();
    let release = |base, bytes, generation| service.guest_release(base, bytes, epoch, generation);
    assert_eq!(code(release(granted.rcx, CHUNK, 0)), result::NOT_HELD);
    assert_eq!(
        code(release(granted.rcx, CHUNK, granted.r8 + 1)),
        result::NOT_HELD
    );
    assert_eq!(
        code(release(granted.rcx, 3 * CHUNK, granted.r8)),
        result::NOT_HELD
    );
    let outside = [
        (WINDOW_BASE - CHUNK, 2 * CHUNK),
        (WINDOW_BASE + 7 * CHUNK, 2 * CHUNK),
        (WINDOW_BASE + 8 * CHUNK, CHUNK),
        (0, CHUNK),
    ];
    for (base, bytes) in outside {
        assert_eq!(
            code(release(base, bytes, granted.r8)),
            ResultCode::INVALID_ADDRESS
        );
    }
    assert_eq!(platform.exit_count(), exits);
    assert_eq!(service.statistics().granted_bytes, 2 * CHUNK);

    let released = release(granted.rcx, granted.rdx, granted.r8).unwrap();
    assert_eq!((released.rcx, released.rdx), (2 * CHUNK, 2 * CHUNK));
    assert_eq!(
        code(release(granted.rcx, granted.rdx, granted.r8)),
        result::NOT_HELD
    );
}

#[test]
fn p_5_8_2_release_does_one_batch_and_says_how_much() {
    let (_, service) = service(300);
    let epoch = service.guest_attach();
    let first = service.guest_grow(epoch, 200, 200).unwrap();
    let second = service.guest_grow(epoch, 100, 100).unwrap();
    assert_eq!(second.rcx, first.rcx + first.rdx);
    // A range that goes on beyond its batch is judged by the batch; nothing beyond is touched.
    let answer = service.guest_release(first.rcx, 300 * CHUNK, epoch, first.r8);
    assert_eq!(code(answer), result::NOT_HELD);
    let answer = service
        .guest_release(first.rcx, 200 * CHUNK, epoch, first.r8)
        .unwrap();
    assert_eq!(answer.rcx, 200 * CHUNK);
}

#[test]
fn p_5_8_4_a_partial_give_back_frees_everything_and_reports_what_was_acknowledged() {
    let (platform, service) = service(8);
    let epoch = service.guest_attach();
    let granted = service.guest_grow(epoch, 8, 8).unwrap();
    platform.script(&[Manner::Refuse(3, error::GENERIC)]);
    let answer = service
        .guest_release(granted.rcx, granted.rdx, epoch, granted.r8)
        .unwrap();
    assert_eq!((answer.rcx, answer.rdx), (8 * CHUNK, 3 * CHUNK));
    let statistics = service.statistics();
    assert_eq!(
        (statistics.released_bytes, statistics.acknowledged_bytes),
        (8 * CHUNK, 3 * CHUNK)
    );
    assert_eq!(statistics.granted_bytes, 0);
}

#[test]
fn p3_p_3_10_p_5_8_4_a_broken_reply_to_a_give_back_quarantines() {
    let (platform, service) = service(2);
    let epoch = service.guest_attach();
    let granted = service.guest_grow(epoch, 2, 2).unwrap();
    let reply = PscHeader {
        cur_entry: 9,
        end_entry: 1,
        reserved: 0,
    };
    platform.script(&[Manner::Reply(reply, PscExit::default())]);
    let answer = service
        .guest_release(granted.rcx, granted.rdx, epoch, granted.r8)
        .unwrap();
    assert_eq!((answer.rcx, answer.rdx), (2 * CHUNK, 0));
    assert_eq!(service.statistics().quarantined_bytes, 2 * CHUNK);
    assert_eq!(
        code(service.guest_grow(epoch, 1, 1)),
        result::NO_CONTIGUOUS_RUN
    );
}

#[test]
fn p_3_9_p_6_6_p_10_2_a_chunk_in_transition_answers_busy_and_no_other_call_waits_for_it() {
    // Another processor calls while this one is out at the host: the gate runs inside the VMGEXIT.
    static INSIDE: AtomicBool = AtomicBool::new(false);
    static GO_ON: AtomicBool = AtomicBool::new(false);
    let mut platform = TestPlatform::new();
    platform.gate = Some(Box::new(|| {
        INSIDE.store(true, Ordering::SeqCst);
        while !GO_ON.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }));
    let (_, service) = service_on(platform, 1);
    let epoch = service.guest_attach();
    let service = Arc::new(service);
    let other = Arc::clone(&service);
    let grower = std::thread::spawn(move || other.guest_grow(epoch, 1, 1));
    while !INSIDE.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    assert_eq!(
        code(service.guest_release(WINDOW_BASE, CHUNK, epoch, 1)),
        ResultCode::BUSY
    );
    assert_eq!(code(service.guest_grow(epoch, 1, 1)), result::CAP_REACHED);
    assert_eq!(
        service.statistics().granted_bytes,
        CHUNK,
        "what is on its way counts"
    );
    GO_ON.store(true, Ordering::SeqCst);
    assert_eq!(grower.join().unwrap().unwrap().rdx, CHUNK);
}
