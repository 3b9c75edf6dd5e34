// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding the service, and every reason not to attach.

use protocol::Call;
use snp::svsm::ResultCode;
use std::boxed::Box;

use super::buffer::Buffer;
use super::machine::{Machine, map};
use super::memory::BASE;
use super::service::Service;
use crate::{
    AttachError, CHUNK_BYTES, Config, Direction, MapError, Pool, PressureLevel, find_window,
    metadata_bytes,
};

/// What a test changes about the service.
type Change<'a> = &'a dyn Fn(&mut Service);

fn attach_to(machine: &Machine, chunks: usize) -> Result<Pool<'static, &Machine>, AttachError> {
    let bytes = match chunks {
        0 => 4096,
        chunks => metadata_bytes(chunks as u64 * CHUNK_BYTES, 1),
    };
    let metadata = std::vec![0xa5; bytes].into_boxed_slice();
    Pool::attach(machine, Box::leak(metadata), Config::default())
}

#[test]
fn attach_reports_the_window_and_holds_the_first_chunk() {
    let machine = Machine::new(4);
    let pool = attach_to(&machine, 4).unwrap();
    assert_eq!(
        (pool.window().base(), pool.window().bytes()),
        (BASE, 4 * CHUNK_BYTES)
    );
    assert_eq!(
        (pool.attachment().epoch, pool.attachment().fresh),
        (1, true)
    );
    assert_eq!(pool.attachment().cap_bytes, 4 * CHUNK_BYTES);
    assert_eq!(pool.statistics().granted_bytes, CHUNK_BYTES);
    assert_eq!(machine.granted(), 1);
    assert_eq!(
        pool.statistics().total_calls(),
        machine.total_calls() as u64
    );
}

#[test]
fn p_1_4_p_2_1_each_reason_not_to_attach_has_its_error_and_leaves_the_service_alone() {
    let cases: [(Change<'_>, AttachError); 6] = [
        (&|service| service.offered = false, AttachError::NoService),
        (&|service| service.uuid ^= 1, AttachError::AnotherProtocol),
        (
            &|service| service.log2_chunk = 12,
            AttachError::UnusableWindow,
        ),
        (&|service| service.grow_limit = 4096, AttachError::Malformed),
        (&|service| service.not_run = true, AttachError::NotRun),
        (
            &|service| service.busy = 1000,
            AttachError::Refused(ResultCode::BUSY),
        ),
    ];
    for (change, error) in cases {
        let machine = Machine::new(2);
        machine.set(change);
        assert_eq!(attach_to(&machine, 2).map(|_| ()), Err(error));
        assert_eq!(machine.count(Call::Attach), 0, "{error:?}");
    }
}

#[test]
fn p_1_4_the_window_is_found_before_there_is_metadata_and_nothing_changes() {
    let find = |query_protocol, change: Change<'_>| {
        let machine = Machine::new(4);
        machine.set(change);
        let config = Config {
            query_protocol,
            ..Config::default()
        };
        let window = find_window(&&machine, &config).map(|window| (window.base(), window.bytes()));
        let calls = [Call::Attach, Call::Grow].map(|call| machine.count(call));
        assert_eq!(calls, [0, 0]);
        (window, machine.count(Call::Describe))
    };
    for query in [true, false] {
        assert_eq!(find(query, &|_| ()), (Ok((BASE, 4 * CHUNK_BYTES)), 1));
        let none = find(query, &|service| service.offered = false);
        assert_eq!(none, (Err(AttachError::NoService), 0));
        // Another protocol is asked for its name and for nothing else.
        let other = find(query, &|service| service.uuid ^= 1);
        assert_eq!(other, (Err(AttachError::AnotherProtocol), 0));
        let chunks = find(query, &|service| service.log2_chunk = 20);
        assert_eq!(chunks, (Err(AttachError::UnusableWindow), 1));
    }
}

#[test]
fn without_the_core_protocol_identify_is_the_proof() {
    let attach = |change: Change<'_>| {
        let machine = Machine::new(2);
        machine.set(change);
        let mut metadata = std::vec![0; metadata_bytes(2 * CHUNK_BYTES, 1)];
        let config = Config {
            query_protocol: false,
            ..Config::default()
        };
        let attached = Pool::attach(&machine, &mut metadata, config).map(|_| ());
        let queries = machine.service.lock().unwrap().queries;
        (attached, queries, machine.count(Call::Attach))
    };
    assert_eq!(attach(&|_| ()), (Ok(()), 0, 1));
    let none = attach(&|service| service.offered = false);
    assert_eq!(none, (Err(AttachError::NoService), 0, 0));
    let other = attach(&|service| service.uuid ^= 1);
    assert_eq!(other, (Err(AttachError::AnotherProtocol), 0, 0));
    let machine = Machine::new(2);
    attach_to(&machine, 2).unwrap();
    assert_eq!(machine.service.lock().unwrap().queries, 1);
}

#[test]
fn a_window_that_is_not_mapped_or_has_no_records_is_refused() {
    let machine = Machine::new(2);
    assert_eq!(
        attach_to(&machine, 0).map(|_| ()),
        Err(AttachError::NoRecords)
    );
    let mut machine = Machine::new(2);
    machine.mapped = false;
    assert_eq!(
        attach_to(&machine, 2).map(|_| ()),
        Err(AttachError::NotMapped)
    );
    assert_eq!(machine.count(Call::Attach), 0);
}

#[test]
fn busy_is_waited_for_but_not_for_ever() {
    let machine = Machine::new(2);
    machine.set(|service| service.busy = 3);
    assert!(attach_to(&machine, 2).is_ok());
    let machine = Machine::new(2);
    machine.set(|service| service.busy = u32::MAX);
    assert!(attach_to(&machine, 2).is_err());
    assert!(machine.total_calls() < 32);
}

#[test]
fn a_refused_first_growth_shows_as_pressure_and_not_as_an_error() {
    let machine = Machine::new(2);
    machine.set(|service| service.cap = 0);
    let pool = attach_to(&machine, 2).unwrap();
    assert_eq!(pool.statistics().granted_bytes, 0);
    let pressure = pool.pressure();
    assert_eq!(
        (pressure.level, pressure.cause),
        (PressureLevel::High, Some(MapError::CapReached))
    );
}

#[test]
fn metadata_may_be_anywhere_and_hold_anything() {
    let machine = Machine::new(2);
    let bytes = metadata_bytes(2 * CHUNK_BYTES, 3);
    for start in [0, 1, 63] {
        let mut area = std::vec![0xff_u8; bytes + start];
        let config = Config {
            cpus: 3,
            ..Config::default()
        };
        let pool = Pool::attach(&machine, &mut area[start..], config).unwrap();
        let statistics = pool.statistics();
        assert_eq!(statistics.granted_bytes, CHUNK_BYTES);
        assert_eq!(statistics.metadata_bytes, bytes as u64);
        let mapping = map(&pool, &Buffer::new(64), Direction::ToDevice).unwrap();
        pool.unmap(mapping).unwrap();
        pool.give_back();
    }
}
