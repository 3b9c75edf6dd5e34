// SPDX-License-Identifier: MIT OR Apache-2.0
//! The worked example at work: three protocols, the window, the state words, an unfriendly host.

mod conversions;
mod from_memory;
mod later_kernel;
mod memory;
mod model;

use foreign_paravisor::boot::{BootError, Plan};
use foreign_paravisor::calling_areas::Cpu;
use foreign_paravisor::dispatcher::Next;
use foreign_paravisor::echo;
use foreign_paravisor::watch::{Alarm, alarm};
use model::{
    AREA, FREE, Guest, IMAGE, LAUNCHED, LIST, MIB, RAM_BYTES, WINDOW, WINDOW_BYTES, at, boot,
    paravisor, range,
};
use protocol::identity::PROTOCOL_UUID;
use protocol::{Call, DEFAULT_PROTOCOL_NUMBER as POOL, result};
use snp::address::{PageSize, Vmpl};
use snp::psc::PscOperation;
use snp::svsm::{CallRegisters, PvalidateListEntry, ResultCode, core_protocol};
use snp_model::psc::HostManner;
use svsm_swiotlb::page_state::{PageState, RamRange, RangeError};

const SUCCESS: ResultCode = ResultCode::SUCCESS;
const ADDRESS: ResultCode = ResultCode::INVALID_ADDRESS;
const CORE: u32 = core_protocol::NUMBER;

fn small(page: u64, validate: bool) -> PvalidateListEntry {
    PvalidateListEntry::request(at(page), PageSize::Size4K, validate)
}

/// The host makes pages private, as a guest asks before it validates.
fn assign(paravisor: &model::Paravisor, page: u64, size: PageSize) {
    let machine = &paravisor.hardware().machine;
    assert!(machine.host_changes(at(page), size, PscOperation::Private));
}

#[test]
fn p_1_3_each_of_the_three_protocols_is_found_and_answers() {
    let paravisor = paravisor();
    let query = |protocol: u32, version: u64| {
        let asked = u64::from(protocol) << 32 | version;
        let (code, [rcx, ..]) = paravisor.call(CORE, core_protocol::QUERY_PROTOCOL, [asked, 0, 0]);
        assert_eq!(code, SUCCESS);
        rcx
    };
    for protocol in [CORE, echo::NUMBER, POOL] {
        assert_eq!((query(protocol, 1), query(protocol, 2)), (1 << 32 | 1, 0));
    }
    assert_eq!(query(7, 1), 0);
    let (code, [high, low, _]) = paravisor.call(POOL, Call::Identify.number(), [0; 3]);
    assert_eq!(code, SUCCESS);
    assert_eq!(u128::from(high) << 64 | u128::from(low), PROTOCOL_UUID);
    assert_eq!(
        paravisor.call(echo::NUMBER, 0, [1, 2, 3]),
        (SUCCESS, [1, 2, 3])
    );
    assert_eq!(
        paravisor.call(echo::NUMBER, 1, [0; 3]),
        (SUCCESS, [1, 0, 0])
    );
    assert_eq!(
        paravisor.call(7, 0, [1, 2, 3]),
        (ResultCode::UNSUPPORTED_PROTOCOL, [1, 2, 3])
    );
    assert_eq!(
        paravisor.call(CORE, core_protocol::CREATE_VCPU, [0; 3]).0,
        ResultCode::UNSUPPORTED_CALL
    );
}

#[test]
fn a_return_without_a_call_runs_the_guest_on() {
    let paravisor = paravisor();
    let registers = CallRegisters::default();
    assert_eq!(paravisor.returned(Cpu(0), &registers), Next::RunOn);
    assert_eq!(paravisor.returned(Cpu(1), &registers), Next::RunOn);
    // And a call is taken once.
    paravisor.poke(AREA, &[1]);
    assert!(matches!(
        paravisor.returned(Cpu(0), &registers),
        Next::Resume(_)
    ));
    assert_eq!(paravisor.returned(Cpu(0), &registers), Next::RunOn);
}

#[test]
fn the_pool_grows_and_shrinks_and_devices_reach_it() {
    let paravisor = paravisor();
    let pool = |call: Call, arguments| paravisor.call(POOL, call.number(), arguments);
    let (_, [epoch, ..]) = pool(Call::Attach, [1, 0, 0]);
    let in_use = epoch << 32;
    let (code, [base, bytes, generation]) = pool(Call::Grow, [in_use, 2 * MIB, 4 * MIB]);
    assert_eq!((code, base, bytes), (SUCCESS, WINDOW, WINDOW_BYTES));
    let machine = &paravisor.hardware().machine;
    machine.device_write(at(base), b"from the disk").unwrap();
    let mut seen = [0; 13];
    machine
        .guest_read(Vmpl::Vmpl2, false, at(base), &mut seen)
        .unwrap();
    assert_eq!(&seen, b"from the disk");
    let refused = pool(Call::Grow, [in_use, 2 * MIB, 2 * MIB]);
    assert_eq!(refused.0, result::CAP_REACHED);
    assert_eq!(
        pool(Call::Release, [base, bytes, in_use | generation]),
        (SUCCESS, [bytes, bytes, 0])
    );
}

#[test]
fn w1_p_3_3_p_3_4_no_call_reaches_the_window_or_what_is_ours() {
    let paravisor = paravisor();
    let storage = paravisor.core.service.window().base().bits() - 0x1000;
    for page in [
        WINDOW,
        WINDOW + WINDOW_BYTES - 0x1000,
        IMAGE,
        storage,
        RAM_BYTES,
    ] {
        let before = paravisor.state(page);
        for validate in [true, false] {
            assert_eq!(paravisor.pvalidate(&[small(page, validate)]), (ADDRESS, 0));
        }
        let remap = paravisor.call(CORE, core_protocol::REMAP_CA, [page, 0, 0]);
        assert_eq!(remap.0, ADDRESS, "{page:#x}");
        let list = paravisor.call(CORE, core_protocol::PVALIDATE, [page, 0, 0]);
        assert_eq!(list.0, ADDRESS, "{page:#x}");
        assert_eq!(paravisor.state(page), before, "{page:#x}");
    }
    // A large entry that begins below the window and would reach into it is misaligned; the whole window is not.
    let large = PvalidateListEntry::request(at(WINDOW), PageSize::Size2M, true);
    assert_eq!(paravisor.pvalidate(&[large]), (ADDRESS, 0));
    let machine = &paravisor.hardware().machine;
    assert!(!machine.any_validated(at(WINDOW), WINDOW_BYTES));
    assert_eq!(machine.counters().pvalidate, 0);
}

#[test]
fn p1_p2_pages_change_hands_zeroed_flushed_and_once() {
    let paravisor = paravisor();
    let machine = &paravisor.hardware().machine;
    assign(&paravisor, FREE, PageSize::Size4K);
    assert_eq!(paravisor.pvalidate(&[small(FREE, true)]), (SUCCESS, 1));
    assert_eq!(paravisor.peek(FREE, 16), [0; 16]);
    let executed = machine.counters().pvalidate;
    let again = paravisor.pvalidate(&[small(FREE, true)]);
    assert_eq!(again, (ResultCode(core_protocol::ERROR_NO_CHANGE), 0));
    let ignored = small(FREE, true).with_ignore_no_change(true);
    assert_eq!(paravisor.pvalidate(&[ignored]), (SUCCESS, 1));
    assert_eq!(
        machine.counters().pvalidate,
        executed,
        "answered from the account"
    );

    let flushes = machine.counters().flushes;
    assert_eq!(paravisor.pvalidate(&[small(FREE, false)]), (SUCCESS, 1));
    assert_eq!(machine.counters().flushes, flushes + 1);
    assert_eq!(paravisor.state(FREE), Some(PageState::Invalid));
    assert!(!machine.any_validated(at(FREE), 0x1000));
    // The list's own page and the calling area stay the guest's.
    assert_eq!(paravisor.pvalidate(&[small(LIST, false)]), (ADDRESS, 0));
    assert_eq!(paravisor.pvalidate(&[small(AREA, false)]), (ADDRESS, 0));
}

#[test]
fn large_pages_change_hands_whole() {
    let paravisor = paravisor();
    let page = 2 * MIB;
    let entry = |validate| PvalidateListEntry::request(at(page), PageSize::Size2M, validate);
    assign(&paravisor, page, PageSize::Size2M);
    assert_eq!(paravisor.pvalidate(&[entry(true)]), (SUCCESS, 1));
    assert_eq!(paravisor.peek(page + 2 * MIB - 8, 8), [0; 8]);
    // Nine of them are more than the work of one call; the cursor says where to go on.
    let many = [entry(true).with_ignore_no_change(true); 9];
    assert_eq!(paravisor.pvalidate(&many), (ResultCode::INCOMPLETE, 8));
    assert_eq!(paravisor.pvalidate(&[small(page, false)]), (SUCCESS, 1));
    let mixed = ResultCode::protocol_error(6);
    assert_eq!(paravisor.pvalidate(&[entry(false)]), (mixed, 0));
}

#[test]
fn p1_a_page_validated_behind_our_back_ends_the_vm() {
    let paravisor = paravisor();
    let machine = &paravisor.hardware().machine;
    assign(&paravisor, FREE, PageSize::Size4K);
    machine.launch(at(FREE), 0x1000);
    paravisor.poke(LIST, &1_u16.to_le_bytes());
    paravisor.poke(LIST + 2, &[0; 6]);
    paravisor.poke(LIST + 8, &small(FREE, true).into_bits().to_le_bytes());
    assert_eq!(
        paravisor.make(CORE, core_protocol::PVALIDATE, [LIST, 0, 0]),
        Next::End
    );
}

#[test]
fn p3_a_page_that_is_lost_is_quarantined() {
    let paravisor = paravisor();
    let machine = &paravisor.hardware().machine;
    let lost = LAUNCHED + 0x3000;
    assert!(machine.host_changes(at(lost), PageSize::Size4K, PscOperation::Shared));
    assert_eq!(paravisor.pvalidate(&[small(lost, false)]), (ADDRESS, 0));
    assert_eq!(paravisor.state(lost), Some(PageState::Quarantined));
    assert_eq!(paravisor.pvalidate(&[small(lost, true)]), (ADDRESS, 0));
    // A calling area that is lost is the guest's loss: it cannot call any more.
    assert!(machine.host_changes(at(AREA), PageSize::Size4K, PscOperation::Shared));
    assert_eq!(paravisor.make(echo::NUMBER, 0, [0; 3]), Next::RunOn);
    assert_eq!(paravisor.state(AREA), Some(PageState::Quarantined));
}

#[test]
fn p5_a_taken_word_answers_busy() {
    let paravisor = paravisor();
    let states = paravisor.core.service.page_states();
    let page = LAUNCHED + 0x2000;
    let held = states.hold(at(page), &[PageState::Valid]).unwrap();
    let busy = ResultCode::BUSY;
    assert_eq!(paravisor.pvalidate(&[small(page, false)]), (busy, 0));
    let remap = [page, 0, 0];
    assert_eq!(paravisor.call(CORE, core_protocol::REMAP_CA, remap).0, busy);
    let statistics = paravisor.call(POOL, Call::Statistics.number(), [page, 8, 0]);
    assert_eq!(statistics.0, busy);
    held.keep();
    assert_eq!(
        paravisor.call(CORE, core_protocol::REMAP_CA, remap).0,
        SUCCESS
    );
    assert_eq!(
        (paravisor.state(page), paravisor.state(AREA)),
        (Some(PageState::CallingArea), Some(PageState::Valid))
    );
    // The calling area itself: nobody can tell whether this is a call, so nothing is touched.
    let held = states.hold(at(page), &[PageState::CallingArea]).unwrap();
    assert_eq!(paravisor.make(echo::NUMBER, 0, [5, 6, 7]), Next::RunOn);
    held.keep();
    assert_eq!(paravisor.call(echo::NUMBER, 1, [0; 3]).1[0], 0);
}

#[test]
fn p4_p_9_2_the_entries_are_written_once_however_often_the_host_returns() {
    let paravisor = paravisor();
    let hardware = paravisor.hardware();
    *hardware.manner.lock().unwrap() = HostManner::StopInside(100);
    let (_, [epoch, ..]) = paravisor.call(POOL, Call::Attach.number(), [1, 0, 0]);
    let grow = [epoch << 32, 4 * MIB, 4 * MIB];
    let grown = paravisor.call(POOL, Call::Grow.number(), grow);
    assert_eq!((grown.0, grown.1[1]), (SUCCESS, 4 * MIB));
    let exits = paravisor.core.service.statistics().psc_exits;
    assert_eq!(exits, 11, "100 of 1024 pages of 4 KiB an exit");
    let written = hardware.written.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(written, exits + 2, "a header each, and two entries");
}

#[test]
fn what_the_statistics_say_is_named() {
    let paravisor = paravisor();
    let statistics = || paravisor.core.service.statistics();
    let (_, [epoch, ..]) = paravisor.call(POOL, Call::Attach.number(), [1, 0, 0]);
    let start = statistics();
    assert_eq!(alarm(&start, &statistics()), None);
    let grow = |manner| {
        *paravisor.hardware().manner.lock().unwrap() = manner;
        let grow = [epoch << 32, 2 * MIB, 2 * MIB];
        paravisor.call(POOL, Call::Grow.number(), grow).0
    };
    assert_eq!(grow(HostManner::Refuse), result::HOST_REFUSED);
    assert_eq!(alarm(&start, &statistics()), Some(Alarm::HostDeclined(1)));
    let page = LAUNCHED + 0x4000;
    let machine = &paravisor.hardware().machine;
    assert!(machine.host_changes(at(page), PageSize::Size4K, PscOperation::Shared));
    let lost = paravisor.call(POOL, Call::Statistics.number(), [page, 8, 0]);
    assert_eq!(lost.0, ADDRESS);
    assert_eq!(alarm(&start, &statistics()), Some(Alarm::GuestPagesLost(1)));
    assert_eq!(grow(HostManner::ReservedBits), result::HOST_MISBEHAVED);
    assert_eq!(alarm(&start, &statistics()), Some(Alarm::HostBrokeRules(1)));
    assert_eq!(alarm(&statistics(), &statistics()), None);
}

#[test]
fn w1_boot_refuses_what_cannot_be() {
    let error = boot(|model| model.maps_window = true).map(|_| ());
    assert_eq!(error.unwrap_err(), BootError::WindowIsMapped);
    let plan = |map: &[RamRange], taken: &[_]| {
        Plan::new(&mut map.to_vec(), taken, WINDOW_BYTES).map(|_| ())
    };
    let ram = [range(0, 8 * MIB), range(16 * MIB, 16 * MIB)];
    let swapped = [ram[1], ram[0]];
    let unsorted = BootError::Map(RangeError::Unsorted);
    assert_eq!(plan(&swapped, &[]).unwrap_err(), unsorted);
    let overlapping = [ram[0], range(4 * MIB, 16 * MIB)];
    assert_eq!(plan(&overlapping, &[]).unwrap_err(), unsorted);
    let all = [range(0, 40 * MIB)];
    assert_eq!(plan(&ram, &all).unwrap_err(), BootError::NoRoom);
    assert_eq!(plan(&ram[..0], &[]).unwrap_err(), BootError::NoRoom);
}

#[test]
fn w1_the_window_is_the_top_of_an_entry_and_in_nobodys_way() {
    let ram = [range(0, 8 * MIB), range(16 * MIB, 16 * MIB)];
    let map = || ram.to_vec();
    let plan = Plan::new(&mut map(), &[], WINDOW_BYTES).unwrap();
    assert_eq!(plan.window.base(), at(28 * MIB));
    assert_eq!(plan.storage, range(28 * MIB - 0x2000, 0x2000));
    assert_eq!(plan.ram(), [ram[0], range(16 * MIB, 12 * MIB)]);
    // Something in the way: the next entry down.
    for taken in [30 * MIB, 28 * MIB - 0x1000] {
        let plan = Plan::new(&mut map(), &[range(taken, 0x1000)], WINDOW_BYTES).unwrap();
        assert_eq!(plan.window.base(), at(4 * MIB));
        assert_eq!(plan.ram(), [range(0, 4 * MIB), ram[1]]);
    }
    // An entry that does not end at a chunk keeps its end.
    let plan = Plan::new(&mut [range(0, 9 * MIB)], &[], WINDOW_BYTES).unwrap();
    assert_eq!(plan.ram(), [range(0, 4 * MIB), range(8 * MIB, MIB)]);
}
