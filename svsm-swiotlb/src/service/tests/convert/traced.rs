// SPDX-License-Identifier: MIT OR Apache-2.0
//! What CONVERT leaves in the trace.

use std::vec::Vec;

use protocol::result::{HOST_MISBEHAVED, PAGE_LOST};
use protocol::statistics::HostAnomaly;
use protocol::trace::{QUARANTINED_PAGE, TraceKind};
use snp::psc::PscOperation;
use snp::svsm::ResultCode;

use super::machine::{Failure, RAM};
use super::world::{World, broken, large, small, smalls};

const MIB: u64 = 1 << 20;

/// Kind, code, detail, address and bytes of every event but refusals, which are `dispatch`'s.
fn events(world: &World) -> Vec<(u16, u16, u32, u64, u64)> {
    let trace = world.service.trace();
    (trace.oldest()..trace.next())
        .filter_map(|number| trace.record(number))
        .filter(|record| {
            record.kind != TraceKind::Refused.number()
                && record.kind != TraceKind::Attached.number()
        })
        .map(|one| (one.kind, one.code, one.detail, one.address, one.bytes))
        .collect()
}

#[test]
#[cfg_attr(miri, ignore = "more pages than Miri gets through")]
fn p_12_2_a_batch_is_one_event() {
    let world = World::new();
    let there = [small(RAM + 0x3000, true), large(RAM + 2 * MIB, true)];
    assert_eq!(world.convert(&there).0, ResultCode::SUCCESS);
    let back = [large(RAM + 2 * MIB, false)];
    assert_eq!(world.convert(&back).0, ResultCode::SUCCESS);
    let kind = TraceKind::Converted.number();
    let expected = [
        (kind, 1, 2, RAM + 0x3000, 0x1000 + 2 * MIB),
        (kind, 0, 1, RAM + 2 * MIB, 2 * MIB),
    ];
    assert_eq!(events(&world), expected);
}

#[test]
fn p_12_2_a_lost_page_and_a_broken_reply_are_events() {
    let world = World::new();
    let list = smalls(RAM + 0x3000, 3, true);
    world
        .machine
        .fail_pvalidate(RAM + 0x4000, false, Failure::Unchanged);
    assert_eq!(world.convert(&list).0, PAGE_LOST);
    let lost = TraceKind::Quarantined.number();
    let done = TraceKind::Converted.number();
    let expected = [
        (lost, QUARANTINED_PAGE, 0, RAM + 0x4000, 0x1000),
        (done, 1, 2, RAM + 0x3000, 0x2000),
    ];
    assert_eq!(events(&world), expected);

    let world = World::new();
    world.machine.script(&[broken()]);
    assert_eq!(world.convert(&list).0, HOST_MISBEHAVED);
    let events = events(&world);
    let (kind, operation, anomaly, address, bytes) = events[0];
    assert_eq!(kind, TraceKind::HostAnomaly.number());
    assert_eq!(operation, PscOperation::Shared as u16);
    assert_eq!(anomaly, HostAnomaly::EndEntryChanged as u32);
    assert_eq!((address, bytes), (RAM + 0x3000, 0x3000));
    assert_eq!(events.len(), 4, "and three pages were lost");
}
