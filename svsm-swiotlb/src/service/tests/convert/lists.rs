// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lists and entries of a hostile guest.

use protocol::Request;
use protocol::convert::ConvertEntry;
use protocol::result::STALE_EPOCH;
use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use snp::svsm::{ListHeader, ResultCode};
use zerocopy::IntoBytes;

use super::machine::{ConvertMachine, RAM, RAM_BYTES};
use super::world::{LIST, WINDOW, World, large, small, smalls};
use crate::page_state::PageState;

const SUCCESS: ResultCode = ResultCode::SUCCESS;
const PARAMETER: ResultCode = ResultCode::INVALID_PARAMETER;
const ADDRESS: ResultCode = ResultCode::INVALID_ADDRESS;
const PAGE: u64 = RAM + 0x10_000;

fn header(entries: u16, next: u16, reserved: u32) -> ListHeader {
    ListHeader {
        entries,
        next,
        reserved,
    }
}

fn call_at(world: &World, list: u64, epoch: u32) -> ResultCode {
    let list = GuestPhysicalAddress::new(list);
    world
        .answer(Request::Convert { list, epoch })
        .map_or_else(|refusal| refusal.code, |_| SUCCESS)
}

#[test]
fn p_3_5_the_epoch_is_checked() {
    let world = World::new();
    world.put(&[small(PAGE, true)]);
    assert_eq!(call_at(&world, LIST, world.epoch + 1), STALE_EPOCH);
    assert_eq!(call_at(&world, LIST, 0), STALE_EPOCH);
    assert_eq!(world.state(PAGE), PageState::Valid);
    let epoch = world.epoch;
    world.answer(Request::Attach { version: 1 }).unwrap();
    assert_eq!(call_at(&world, LIST, epoch), STALE_EPOCH);
}

#[test]
fn p_5_9_1_a_malformed_header_is_refused_and_nothing_is_written() {
    let world = World::new();
    let cases = [
        (LIST, header(0, 0, 0)),
        (LIST, header(1, 1, 0)),
        (LIST, header(1, 2, 0)),
        (LIST, header(1, u16::MAX, 0)),
        (LIST, header(1, 0, 1)),
        (LIST, header(512, 0, 0)),
        (LIST, header(u16::MAX, 0, 0)),
        (LIST, header(u16::MAX, u16::MAX - 1, 0)),
        (LIST + 8, header(511, 0, 0)),
        (LIST + PAGE_SIZE - 8, header(1, 0, 0)),
    ];
    for (at, header) in cases {
        world.machine.poke(at, header.as_bytes());
        assert_eq!(call_at(&world, at, world.epoch), PARAMETER, "{header:?}");
        assert_eq!(world.machine.header(at), header);
        assert_eq!(world.state(LIST), PageState::Valid);
    }
    let misaligned = Request::Convert {
        list: GuestPhysicalAddress::new(LIST + 4),
        epoch: world.epoch,
    };
    assert_eq!(world.answer(misaligned).unwrap_err().code, PARAMETER);
    assert!(world.machine.steps().is_empty());
}

#[test]
fn p_7_5_a_list_lies_in_a_page_the_guest_may_use() {
    let world = World::new();
    for state in [
        PageState::Invalid,
        PageState::Shared,
        PageState::Vmsa,
        PageState::Paravisor,
        PageState::Quarantined,
    ] {
        world.set(LIST, state);
        assert_eq!(world.convert(&[small(PAGE, true)]), (ADDRESS, 0));
        assert_eq!(world.state(LIST), state);
    }
    for outside in [0, WINDOW, RAM + RAM_BYTES, 1 << 51, !0xFFF] {
        assert_eq!(call_at(&world, outside, world.epoch), ADDRESS);
    }
    // Another processor's calling area, and the caller's own.
    world.set(LIST, PageState::CallingArea);
    assert_eq!(world.convert(&[small(PAGE, true)]), (ADDRESS, 0));
    let (list, epoch) = (GuestPhysicalAddress::new(LIST), world.epoch);
    let registers = Request::Convert { list, epoch }.encode(world.service.protocol_number());
    let answer = world.service.dispatch(&registers, Some(list));
    assert_eq!(answer.rax, SUCCESS.to_rax());
    assert_eq!(world.machine.header(LIST).next, 1);
    assert_eq!(world.state(LIST), PageState::CallingArea);
}

#[test]
#[cfg_attr(miri, ignore = "more pages than Miri gets through")]
fn c2_p_5_9_2_a_wrong_entry_is_refused_where_the_cursor_is() {
    let world = World::new();
    for (page, state) in [
        (0, PageState::Invalid),
        (1, PageState::Vmsa),
        (2, PageState::CallingArea),
        (3, PageState::Paravisor),
        (4, PageState::Quarantined),
        (5, PageState::Shared),
    ] {
        world.set(PAGE + page * PAGE_SIZE, state);
    }
    let entry = |bits| ConvertEntry::from_bits(bits);
    let valid = RAM + 0x100_0000;
    let mut cases = std::vec![
        (entry(valid | 6), PARAMETER),
        (entry(valid | 7), PARAMETER),
        (large(valid + 0x1000, true), PARAMETER),
        (large(valid + 0x10_0000, true), PARAMETER),
    ];
    cases.extend((3..12).map(|bit| (entry(valid | 4 | 1 << bit), PARAMETER)));
    let addresses = [
        small(WINDOW, true),
        large(WINDOW, true),
        small(WINDOW, false),
        large(WINDOW + 0x20_0000, false),
        small(0, true),
        small(RAM - PAGE_SIZE, true),
        small(RAM + RAM_BYTES, true),
        large(RAM + RAM_BYTES, true),
        entry(!0xFFF | 4),
        entry(!0xFFF),
        entry(0xFFFF_FFFF_FFE0_0005),
        entry(1 << 52 | 4),
        small(LIST, true),
        small(LIST, false),
        large(LIST & !0x1F_FFFF, true),
        small(PAGE, true),
        small(PAGE + 0x1000, true),
        small(PAGE + 0x1000, false),
        small(PAGE + 0x2000, true),
        small(PAGE + 0x2000, false),
        small(PAGE + 0x3000, true),
        small(PAGE + 0x3000, false),
        small(PAGE + 0x4000, true),
        small(PAGE + 0x4000, false),
        small(PAGE + 0x5000, true),
        small(PAGE + 0x6000, false),
        large(RAM, true),
        large(RAM, false),
    ];
    cases.extend(addresses.map(|entry| (entry, ADDRESS)));
    for (number, (wrong, code)) in cases.into_iter().enumerate() {
        assert_eq!(world.convert(&[wrong]), (code, 0), "{wrong:?}");
        // Behind a good entry it ends the batch, and is named by the next call.
        let good = small(RAM + 0x200_0000 + number as u64 * PAGE_SIZE, true);
        assert_eq!(world.convert(&[good, wrong]), (ResultCode::INCOMPLETE, 1));
        assert_eq!(world.call(), code, "{wrong:?}");
        assert_eq!(world.machine.header(LIST).next, 1);
    }
    assert_eq!(world.state(LIST), PageState::Valid);
    assert_eq!(world.state(PAGE + 0x1000), PageState::Vmsa);
}

#[test]
#[cfg_attr(miri, ignore = "more pages than Miri gets through")]
fn p_5_9_3_a_page_named_twice_is_converted_once() {
    let world = World::new();
    let twice = [small(PAGE, true), small(PAGE, true)];
    assert_eq!(world.convert(&twice), (ResultCode::INCOMPLETE, 1));
    assert_eq!(world.call(), ADDRESS);
    assert_eq!(world.state(PAGE), PageState::Shared);
    let inside = [large(RAM + 0x20_0000, true), small(RAM + 0x20_3000, true)];
    assert_eq!(world.convert(&inside), (ResultCode::INCOMPLETE, 1));
    assert_eq!(world.call(), ADDRESS);
    let there_and_back = [small(PAGE + 0x1000, true), small(PAGE + 0x1000, false)];
    assert_eq!(world.convert(&there_and_back), (ResultCode::INCOMPLETE, 1));
    assert_eq!(world.call(), SUCCESS);
    assert_eq!(world.state(PAGE + 0x1000), PageState::Valid);
}

#[test]
fn p_6_6_a_busy_page_is_named_and_nothing_changes() {
    let world = World::new();
    let busy = GuestPhysicalAddress::new(PAGE);
    let held = world.service.page_states().hold(busy, &[PageState::Valid]);
    let held = held.unwrap();
    for entry in [small(PAGE, true), small(PAGE, false), large(RAM, true)] {
        assert_eq!(world.convert(&[entry]), (ResultCode::BUSY, 0));
    }
    assert!(world.machine.steps().is_empty(), "nothing was touched");
    assert_eq!(world.state(RAM), PageState::Valid);
    let list = [small(PAGE + 0x1000, true), small(PAGE, true)];
    assert_eq!(world.convert(&list), (ResultCode::INCOMPLETE, 1));
    assert_eq!(world.call(), ResultCode::BUSY);
    held.keep();
    assert_eq!(world.call(), SUCCESS);
    world.set(LIST, PageState::Busy);
    assert_eq!(call_at(&world, LIST, world.epoch), ResultCode::BUSY);
}

#[test]
#[cfg_attr(miri, ignore = "more pages than Miri gets through")]
fn c2_a_list_that_changes_during_the_call_is_not_read_again() {
    let world = World::new();
    let gate = |machine: &ConvertMachine| {
        let entries = smalls(RAM + 0x80_0000, 511, false);
        machine.put_list(LIST, header(511, 400, 7), &entries);
    };
    *world.machine.gate.lock().unwrap() = Some(std::boxed::Box::new(gate));
    world.machine.script(&[
        crate::test_platform::Manner::Early(1),
        crate::test_platform::Manner::Honest,
    ]);
    world.put(&smalls(PAGE, 3, true));
    assert_eq!(
        world.call(),
        SUCCESS,
        "the length is the one that was fetched"
    );
    for number in 0..3 {
        assert_eq!(world.state(PAGE + number * 0x1000), PageState::Shared);
    }
    assert_eq!(world.state(RAM + 0x80_0000), PageState::Valid);
    assert_eq!(
        world.machine.header(LIST),
        header(511, 3, 7),
        "only the cursor"
    );
}

#[test]
fn p5_the_words_are_held_across_the_exit() {
    let world: &'static World = std::boxed::Box::leak(std::boxed::Box::new(World::new()));
    let gate = |_: &ConvertMachine| {
        assert_eq!(world.state(PAGE), PageState::Busy);
        assert_eq!(world.state(LIST), PageState::Busy);
    };
    *world.machine.gate.lock().unwrap() = Some(std::boxed::Box::new(gate));
    assert_eq!(world.convert(&[small(PAGE, true)]), (SUCCESS, 1));
    assert_eq!(world.convert(&[small(PAGE, false)]), (SUCCESS, 1));
}
