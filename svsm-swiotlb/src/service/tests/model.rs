// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chunks and their states, and the accounts over them.

use std::boxed::Box;
use std::sync::{Mutex, OnceLock};
use std::vec::Vec;

use protocol::list::ListHeader;
use protocol::request::DescribeItem;
use protocol::response::{Attached, Geometry};
use protocol::{Call, Request, result};
use snp::psc::{PscHeader, error};
use snp::svsm::ResultCode;
use zerocopy::{FromBytes, IntoBytes};

use super::{LIST, address, code};
use crate::platform::PscExit;
use crate::pool::ChunkState;
use crate::test_platform::{CHUNK, Guest, Manner, TestPlatform, service, service_on};
use crate::{Service, WORK_UNITS};

#[test]
fn p_3_1_a_chunk_is_the_unit_of_every_grant() {
    let (_, service) = service(8);
    let describe = Request::Describe {
        window: 0,
        item: DescribeItem::Geometry,
    };
    let geometry = Geometry::decode(service.call(describe).unwrap()).unwrap();
    let chunk = 1_u64 << geometry.attributes.log2_chunk();
    assert_eq!(chunk, CHUNK);
    assert!(geometry.base.is_aligned(chunk) && geometry.bytes.is_multiple_of(chunk));
    let epoch = service.guest_attach();
    for chunks in 1..4 {
        let granted = service.guest_grow(epoch, 1, chunks).unwrap();
        assert!(granted.rcx.is_multiple_of(chunk));
        assert_eq!(granted.rdx, chunks * chunk);
    }
}

/// The service whose states the gate looks at from inside a VMGEXIT, and what it saw of chunk 0.
static WATCHED: OnceLock<Service<'static, TestPlatform>> = OnceLock::new();
static SEEN: Mutex<Vec<ChunkState>> = Mutex::new(Vec::new());

#[test]
fn p_3_8_p_3_9_every_arrow_between_the_states_of_a_chunk() {
    let mut platform = TestPlatform::new();
    platform.gate = Some(Box::new(|| {
        let state = WATCHED.get().unwrap().pool().records().state(0);
        SEEN.lock().unwrap().push(state);
    }));
    let (platform, service) = service_on(platform, 1);
    assert!(WATCHED.set(service).is_ok());
    let service = WATCHED.get().unwrap();
    let state = || service.pool().records().state(0);
    let seen = || SEEN.lock().unwrap().pop().unwrap();
    let epoch = service.guest_attach();
    assert_eq!(state(), ChunkState::Free);

    platform.script(&[Manner::Refuse(0, error::GENERIC)]);
    assert!(service.guest_grow(epoch, 1, 1).is_err());
    assert_eq!((seen(), state()), (ChunkState::Granting, ChunkState::Free));

    let granted = service.guest_grow(epoch, 1, 1).unwrap();
    let held = state();
    assert!(matches!(held, ChunkState::Held(holder)
        if holder.epoch.number() == epoch && u64::from(holder.generation.number()) == granted.r8));
    assert_eq!(seen(), ChunkState::Granting);

    let release = |generation| service.guest_release(granted.rcx, granted.rdx, epoch, generation);
    release(granted.r8).unwrap();
    assert!(matches!(seen(), ChunkState::Releasing(_)));
    assert_eq!(state(), ChunkState::Free);

    let broken = PscHeader {
        cur_entry: 7,
        ..PscHeader::default()
    };
    let again = service.guest_grow(epoch, 1, 1).unwrap();
    platform.script(&[Manner::Reply(broken, PscExit::default())]);
    release(again.r8).unwrap();
    assert!(matches!(seen(), ChunkState::Releasing(_)));
    assert_eq!(state(), ChunkState::Quarantined);

    // The other way into quarantine needs a chunk that is not there yet.
    let (platform, other) = fresh();
    let epoch = other.guest_attach();
    platform.script(&[Manner::Reply(broken, PscExit::default())]);
    assert_eq!(code(other.guest_grow(epoch, 1, 1)), result::HOST_MISBEHAVED);
    assert_eq!(other.pool().records().state(0), ChunkState::Quarantined);
}

fn fresh() -> (&'static TestPlatform, Service<'static, TestPlatform>) {
    service(1)
}

#[test]
fn p_5_2_2_a_grant_that_completes_after_an_attach_is_an_orphan_and_counted() {
    static SERVICE: OnceLock<Service<'static, TestPlatform>> = OnceLock::new();
    static ATTACHED: Mutex<Option<Attached>> = Mutex::new(None);
    let mut platform = TestPlatform::new();
    platform.gate = Some(Box::new(|| {
        let answer = SERVICE.get().unwrap().call(Request::Attach { version: 1 });
        *ATTACHED.lock().unwrap() = Attached::decode(answer.unwrap()).ok();
    }));
    assert!(SERVICE.set(service_on(platform, 2).1).is_ok());
    let service = SERVICE.get().unwrap();
    let old = service.guest_attach();
    // Another processor attaches while this one's growth is out at the host.
    assert_eq!(service.guest_grow(old, 1, 1).unwrap().rdx, CHUNK);
    let attached = ATTACHED.lock().unwrap().unwrap();
    assert_eq!((attached.fresh, attached.orphaned_bytes), (false, CHUNK));
    assert!(
        matches!(service.pool().records().state(0), ChunkState::Held(holder)
            if holder.epoch.number() == old)
    );
    assert_eq!(code(service.guest_grow(old, 1, 1)), result::STALE_EPOCH);
}

#[test]
#[cfg_attr(miri, ignore = "more chunks than Miri gets through")]
fn p_6_4_p_6_5_a_list_call_looks_at_no_more_records_than_its_work_units() {
    let chunks = 2 * WORK_UNITS as u64 + 3;
    let (platform, service) = service(chunks);
    let epoch = service.guest_attach();
    let header = ListHeader {
        capacity: 1,
        ..ListHeader::default()
    };
    platform.poke(LIST, header.as_bytes());
    let list = address(LIST);
    let mut cursors = Vec::new();
    loop {
        let answer = service.call(Request::ListGranted { list, epoch });
        let header = ListHeader::read_from_bytes(&platform.peek(LIST, 8)).unwrap();
        assert_eq!(header.written, 0);
        cursors.push(u64::from(header.cursor));
        match answer {
            Ok(_) => break,
            Err(refusal) => assert_eq!(refusal.code, ResultCode::INCOMPLETE),
        }
    }
    assert_eq!(cursors, [WORK_UNITS as u64, 2 * WORK_UNITS as u64, chunks]);
}

#[test]
fn p_8_3_granted_counts_orphans_and_what_is_in_transit_and_the_peak_a_refused_growth() {
    let (platform, service) = service(8);
    let old = service.guest_attach();
    service.guest_grow(old, 2, 2).unwrap();
    let epoch = service.guest_attach();
    platform.script(&[Manner::Refuse(0, error::GENERIC)]);
    assert_eq!(code(service.guest_grow(epoch, 3, 3)), result::HOST_REFUSED);
    let statistics = service.statistics();
    assert_eq!(
        (statistics.granted_bytes, statistics.peak_granted_bytes),
        (2 * CHUNK, 5 * CHUNK)
    );
}

#[test]
fn p_8_6_counters_run_on_over_attachments() {
    let (_, service) = service(4);
    for round in 1..=3 {
        let epoch = service.guest_attach();
        let granted = service.guest_grow(epoch, 1, 1).unwrap();
        service
            .guest_release(granted.rcx, granted.rdx, epoch, granted.r8)
            .unwrap();
        let statistics = service.statistics();
        let count = |call: Call| statistics.calls[call.index()];
        assert_eq!(
            [Call::Attach, Call::Grow, Call::Release].map(count),
            [round; 3]
        );
        assert_eq!(statistics.psc_exits, 2 * round);
        assert_eq!(statistics.released_bytes, round * CHUNK);
    }
}
