// SPDX-License-Identifier: MIT OR Apache-2.0
//! ADOPT, RELEASE_ORPHANS and DETACH.

use std::boxed::Box;
use std::sync::{Arc, Barrier};

use protocol::response::{Adopted, Attached, Detached, OrphansReleased};
use protocol::{Request, result};
use snp::psc::{PscHeader, error};
use snp::svsm::ResultCode;

use super::{LIST, address, code};
use crate::Service;
use crate::platform::PscExit;
use crate::pool::ChunkState;
use crate::test_platform::{
    CHUNK, Guest, Manner, TestPlatform, WINDOW_BASE, service, service_on, service_with,
};
use crate::{Configuration, WORK_UNITS};

type Tested = Service<'static, TestPlatform>;

fn adopt(service: &Tested, epoch: u32, from: u32) -> Result<Adopted, ResultCode> {
    let answer = service.call(Request::Adopt { epoch, from });
    answer.map(Adopted::decode).map_err(|refusal| refusal.code)
}

fn release_orphans(service: &Tested, epoch: u32, from: u32) -> Result<OrphansReleased, ResultCode> {
    let answer = service.call(Request::ReleaseOrphans { epoch, from });
    answer
        .map(|results| OrphansReleased::decode(results).unwrap())
        .map_err(|refusal| refusal.code)
}

/// Bytes that the records say an epoch holds.
fn held_by(service: &Tested, epoch: u32) -> u64 {
    let records = service.pool().records();
    let held = |chunk: &usize| matches!(records.state(*chunk), ChunkState::Held(h) if h.epoch.number() == epoch);
    (0..records.len()).filter(held).count() as u64 * CHUNK
}

#[test]
fn p_5_4_1_adopted_chunks_are_the_callers_and_keep_their_generations() {
    let (platform, service) = service(8);
    let first = service.guest_attach();
    let one = service.guest_grow(first, 2, 2).unwrap();
    let two = service.guest_grow(first, 3, 3).unwrap();
    let second = service.guest_attach();
    let own = service.guest_grow(second, 1, 1).unwrap();
    let exits = platform.exit_count();

    let adopted = adopt(&service, second, first).unwrap();
    assert_eq!((adopted.bytes, adopted.left), (5 * CHUNK, 0));
    assert_eq!(platform.exit_count(), exits, "they are shared already");
    assert_eq!(
        (held_by(&service, first), held_by(&service, second)),
        (0, 6 * CHUNK)
    );
    assert_eq!(service.statistics().granted_bytes, 6 * CHUNK);
    // Again: nothing is left to adopt, and that is no error.
    let none = Adopted { bytes: 0, left: 0 };
    assert_eq!(adopt(&service, second, first), Ok(none));

    for grant in [one, two, own] {
        let released = service.guest_release(grant.rcx, grant.rdx, second, grant.r8);
        assert_eq!(released.unwrap().rcx, grant.rdx, "by its old generation");
    }
    assert_eq!(service.statistics().granted_bytes, 0);
}

#[test]
fn p_5_4_1_adoption_leaves_other_epochs_alone() {
    let (_, service) = service(8);
    let first = service.guest_attach();
    service.guest_grow(first, 1, 1).unwrap();
    let second = service.guest_attach();
    service.guest_grow(second, 2, 2).unwrap();
    let third = service.guest_attach();
    assert_eq!(adopt(&service, third, second).unwrap().bytes, 2 * CHUNK);
    assert_eq!(held_by(&service, first), CHUNK);
    assert_eq!(held_by(&service, third), 2 * CHUNK);
}

#[test]
#[cfg_attr(miri, ignore = "more chunks than Miri gets through")]
fn p_5_4_1_one_call_adopts_no_more_than_its_work_units() {
    let chunks = WORK_UNITS as u64 + 10;
    let configuration = Configuration::with_encryption_bit(51).without_unit_limit();
    let (_, service) = service_with(TestPlatform::new(), chunks, configuration);
    let first = service.guest_attach();
    service.guest_grow(first, chunks, chunks).unwrap();
    let second = service.guest_attach();
    let part = adopt(&service, second, first).unwrap();
    assert_eq!(
        (part.bytes, part.left),
        (WORK_UNITS as u64 * CHUNK, 10 * CHUNK)
    );
    let rest = adopt(&service, second, first).unwrap();
    assert_eq!((rest.bytes, rest.left), (10 * CHUNK, 0));
    assert_eq!(held_by(&service, second), chunks * CHUNK);
}

#[test]
fn p_3_5_p_4_9_epochs_are_checked_as_everywhere() {
    let (platform, service) = service(4);
    let calls = |epoch: u32| {
        [
            service.call(Request::Adopt { epoch, from: 1 }),
            service.call(Request::ReleaseOrphans { epoch, from: 1 }),
            service.call(Request::Detach { epoch }),
        ]
        .map(code)
    };
    assert_eq!(calls(2), [result::NOT_ATTACHED; 3]);
    let first = service.guest_attach();
    service.guest_grow(first, 1, 1).unwrap();
    service.guest_attach();
    service.guest_attach();
    let exits = platform.exit_count();
    assert_eq!(calls(2), [result::STALE_EPOCH; 3]);
    assert_eq!(calls(4), [result::STALE_EPOCH; 3]);
    assert_eq!(platform.exit_count(), exits);
    assert_eq!(held_by(&service, first), CHUNK);
}

#[test]
#[cfg_attr(miri, ignore = "more chunks than Miri gets through")]
fn p_5_5_1_orphans_go_back_a_batch_at_a_time_wherever_they_lie() {
    let (platform, service) = service(600);
    let first = service.guest_attach();
    let all: std::vec::Vec<_> = (0..300)
        .map(|_| service.guest_grow(first, 2, 2).unwrap())
        .collect();
    // Every other chunk: no two orphans are neighbours.
    for grant in &all {
        service
            .guest_release(grant.rcx, CHUNK, first, grant.r8)
            .unwrap();
    }
    let second = service.guest_attach();
    let exits = platform.exit_count();
    let part = release_orphans(&service, second, first).unwrap();
    assert_eq!((part.bytes, part.acknowledged), (253 * CHUNK, 253 * CHUNK));
    assert_eq!(part.left, 47 * CHUNK);
    assert_eq!(platform.exit_count(), exits + 1, "one VMGEXIT");
    let (header, entries) = platform.exits.lock().unwrap().last().unwrap().clone();
    assert_eq!(header.end_entry, 252);
    assert_eq!(entries[1].page().bits(), WINDOW_BASE + 3 * CHUNK);
    let rest = release_orphans(&service, second, first).unwrap();
    assert_eq!((rest.bytes, rest.left), (47 * CHUNK, 0));
    assert_eq!(service.statistics().granted_bytes, 0);
    assert_eq!(service.statistics().released_bytes, 600 * CHUNK);
    // Free again for everybody, as one run.
    assert_eq!(
        service.guest_grow(second, 253, 253).unwrap().rdx,
        253 * CHUNK
    );
}

#[test]
fn p_5_5_1_a_host_that_refuses_leaves_them_free_and_one_that_breaks_rules_quarantined() {
    let (platform, service) = service(8);
    let first = service.guest_attach();
    service.guest_grow(first, 4, 4).unwrap();
    let second = service.guest_attach();
    platform.script(&[Manner::Refuse(1, error::GENERIC)]);
    let released = release_orphans(&service, second, first).unwrap();
    assert_eq!((released.bytes, released.acknowledged), (4 * CHUNK, CHUNK));
    assert_eq!(service.statistics().granted_bytes, 0);

    service.guest_grow(second, 3, 3).unwrap();
    let third = service.guest_attach();
    let broken = PscHeader {
        cur_entry: 3,
        end_entry: 2,
        reserved: 7,
    };
    platform.script(&[Manner::Reply(broken, PscExit::default())]);
    let released = release_orphans(&service, third, second).unwrap();
    assert_eq!((released.bytes, released.acknowledged), (3 * CHUNK, 0));
    let statistics = service.statistics();
    assert_eq!(statistics.granted_bytes, 0);
    assert_eq!(statistics.quarantined_bytes, 3 * CHUNK);
}

#[test]
fn p_5_4_3_p_5_5_2_what_another_processor_gives_back_answers_busy() {
    // The second processor calls while the first one is at the host with the only orphans.
    let (inside, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let mut platform = TestPlatform::new();
    let gate = (inside.clone(), go_on.clone());
    platform.gate = Some(Box::new(move || {
        gate.0.wait();
        gate.1.wait();
    }));
    let (_, service) = service_on(platform, 4);
    let service: &'static Tested = Box::leak(Box::new(service));
    let first = service.guest_attach();
    let grower = std::thread::spawn(move || service.guest_grow(first, 2, 2));
    inside.wait();
    // Not even this call's chunks are lost: it began under the old epoch and ends under it.
    let second = service.guest_attach();
    go_on.wait();
    assert_eq!(grower.join().unwrap().unwrap().rdx, 2 * CHUNK);
    assert_eq!(held_by(service, first), 2 * CHUNK);

    let releaser = std::thread::spawn(move || release_orphans(service, second, first));
    inside.wait();
    assert_eq!(adopt(service, second, first), Err(ResultCode::BUSY));
    assert_eq!(
        release_orphans(service, second, first),
        Err(ResultCode::BUSY)
    );
    go_on.wait();
    assert_eq!(releaser.join().unwrap().unwrap().bytes, 2 * CHUNK);
    assert_eq!(service.statistics().granted_bytes, 0);
}

#[test]
fn p_5_6_1_p_5_6_2_after_detach_nobody_is_attached_and_the_chunks_are_orphans() {
    let (platform, service) = service(4);
    let first = service.guest_attach();
    let grant = service.guest_grow(first, 2, 2).unwrap();
    let exits = platform.exit_count();
    let detached = service.call(Request::Detach { epoch: first }).unwrap();
    assert_eq!(Detached::decode(detached).orphaned_bytes, 2 * CHUNK);
    assert_eq!(
        platform.exit_count(),
        exits,
        "the host is asked for nothing"
    );
    let calls = [
        service.guest_grow(first, 1, 1),
        service.guest_release(grant.rcx, grant.rdx, first, grant.r8),
        service.call(Request::Detach { epoch: first }),
        service.call(Request::SetLimits {
            window: 0,
            epoch: first,
            cap: 0,
        }),
        service.call(Request::ListGranted {
            list: address(LIST),
            epoch: first,
        }),
        service.call(Request::Adopt {
            epoch: first + 1,
            from: first,
        }),
    ];
    assert_eq!(calls.map(code), [result::NOT_ATTACHED; 6]);
    assert_eq!(service.statistics().epoch, 0);
    assert_eq!(service.statistics().granted_bytes, 2 * CHUNK);

    let again = service.call(Request::Attach { version: 1 }).unwrap();
    let again = Attached::decode(again).unwrap();
    assert_eq!(again.epoch.number(), first + 1, "an epoch is used once");
    assert_eq!((again.fresh, again.orphaned_bytes), (false, 2 * CHUNK));
    assert_eq!(adopt(&service, first + 1, first).unwrap().bytes, 2 * CHUNK);
}
