// SPDX-License-Identifier: MIT OR Apache-2.0
//! CONVERT and TRACE through this paravisor's dispatcher.

use foreign_paravisor::dispatcher::Next;
use protocol::convert::ConvertEntry;
use protocol::identity::Identity;
use protocol::trace::{RECORD_BYTES, TraceKind, TraceRecord};
use protocol::{Call, DEFAULT_PROTOCOL_NUMBER as POOL, ResultRegisters};
use snp::address::{PageSize, Vmpl};
use snp::svsm::{PvalidateListEntry, ResultCode};
use svsm_swiotlb::page_state::PageState;
use zerocopy::FromBytes;

use crate::model::{FREE, Guest, LAUNCHED, LIST, Paravisor, at, paravisor};

const SUCCESS: ResultCode = ResultCode::SUCCESS;

pub fn attach(paravisor: &Paravisor) -> u64 {
    let (code, [epoch, ..]) = paravisor.call(POOL, Call::Attach.number(), [1, 0, 0]);
    assert_eq!(code, SUCCESS);
    epoch
}

/// Writes a list of these pages for CONVERT.
pub fn write_list(paravisor: &Paravisor, pages: &[u64], to_shared: bool) {
    paravisor.poke(LIST, &u64::try_from(pages.len()).unwrap().to_le_bytes());
    for (page, offset) in pages.iter().zip((8..).step_by(8)) {
        let entry = ConvertEntry::request(at(*page), PageSize::Size4K, to_shared);
        paravisor.poke(LIST + offset, &entry.into_bits().to_le_bytes());
    }
}

fn convert(paravisor: &Paravisor, epoch: u64, page: u64, to_shared: bool) -> ResultCode {
    write_list(paravisor, &[page], to_shared);
    let arguments = [LIST, epoch, 0];
    paravisor.call(POOL, Call::Convert.number(), arguments).0
}

#[test]
fn p2_p_5_9_5_p_5_9_6_p_5_9_13_a_page_is_shared_and_comes_back_zero() {
    let paravisor = paravisor();
    let machine = &paravisor.hardware().machine;
    let (_, [rcx, rdx, r8]) = paravisor.call(POOL, Call::Identify.number(), [0; 3]);
    let identity = Identity::decode(ResultRegisters { rcx, rdx, r8 }).unwrap();
    assert!(identity.features.convert() && identity.features.trace());

    let epoch = attach(&paravisor);
    let page = LAUNCHED + 0x5000;
    paravisor.poke(page, b"private");
    let flushes = machine.counters().flushes;
    assert_eq!(convert(&paravisor, epoch, page, true), SUCCESS);
    assert_eq!(machine.counters().flushes, flushes + 1);
    assert_eq!(paravisor.state(page), Some(PageState::Shared));
    assert!(!machine.any_validated(at(page), 0x1000));
    machine.device_write(at(page), b"from the disk").unwrap();
    let mut seen = [0; 13];
    machine
        .guest_read(Vmpl::Vmpl2, false, at(page), &mut seen)
        .unwrap();
    assert_eq!(&seen, b"from the disk");
    // The core protocol leaves it alone.
    for validate in [true, false] {
        let entry = PvalidateListEntry::request(at(page), PageSize::Size4K, validate);
        let refused = (ResultCode::INVALID_ADDRESS, 0);
        assert_eq!(paravisor.pvalidate(&[entry]), refused);
    }

    assert_eq!(convert(&paravisor, epoch, page, false), SUCCESS);
    assert_eq!(paravisor.state(page), Some(PageState::Valid));
    assert_eq!(paravisor.peek(page, 16), [0; 16]);
}

#[test]
fn p_5_11_2_p_12_2_the_trace_tells_what_happened() {
    let paravisor = paravisor();
    let epoch = attach(&paravisor);
    let (page, buffer) = (LAUNCHED + 0x5000, LAUNCHED + 0x6000);
    assert_eq!(convert(&paravisor, epoch, page, true), SUCCESS);
    assert_eq!(
        convert(&paravisor, epoch + 1, page, true),
        protocol::result::STALE_EPOCH
    );
    let trace = [buffer, 4 * RECORD_BYTES, 0];
    let (code, [bytes, next, oldest]) = paravisor.call(POOL, Call::Trace.number(), trace);
    assert_eq!(
        (code, bytes, next, oldest),
        (SUCCESS, 3 * RECORD_BYTES, 3, 0)
    );
    let bytes = paravisor.peek(buffer, usize::try_from(bytes).unwrap());
    let records: Vec<_> = bytes
        .chunks(usize::try_from(RECORD_BYTES).unwrap())
        .map(|record| TraceRecord::read_from_bytes(record).unwrap())
        .collect();
    let kinds = records
        .iter()
        .map(|record| TraceKind::try_from(record.kind));
    let expected = [
        TraceKind::Attached,
        TraceKind::Converted,
        TraceKind::Refused,
    ];
    assert!(kinds.eq(expected.map(Ok)));
    assert_eq!((records[1].address, records[1].bytes), (page, 0x1000));
    // The console has the same.
    assert_eq!(paravisor.core.service.trace().record(1), Some(records[1]));
}

#[test]
fn p1_p_5_9_11_a_page_that_convert_finds_valid_ends_the_vm() {
    let paravisor = paravisor();
    let epoch = attach(&paravisor);
    write_list(&paravisor, &[FREE], false);
    *paravisor.hardware().validated_meanwhile.lock().unwrap() = Some(FREE);
    let made = paravisor.make(POOL, Call::Convert.number(), [LIST, epoch, 0]);
    assert_eq!(made, Next::End);
    assert_eq!(paravisor.state(FREE), Some(PageState::Quarantined));
    // No call is served from then on, on no processor.
    let identify = paravisor.make(POOL, Call::Identify.number(), [0; 3]);
    assert_eq!(identify, Next::End);
}
