// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses that are not the guest's to name.

use paravisor::layout::{BOOT_CALLING_AREA, LAUNCH_VMSA};
use reference_model::{Event, guest};
use snp::address::PAGE_SIZE;
use snp::svsm::{ResultCode, core_protocol as call};
use svsm_swiotlb::page_state::PageState;

use super::prepared::{FIRST, OTHER_LIST, SECOND, core, give_large, prepared};
use crate::conversions::{convert, large, small as convert_small, trace};
use crate::core_world::{ADDRESS, FRESH, LARGE, MEMORY, MIB, OWN, SUCCESS, World, page, small};
use crate::platform::Act;

const NO_CHANGE: ResultCode = ResultCode(call::ERROR_NO_CHANGE);

/// Addresses that a guest must not name, as what they are.
fn forbidden(world: &World<'_>) -> Vec<(&'static str, u64)> {
    let placement = &world.plan.placement;
    let [_, low] = placement.windows;
    vec![
        ("the window", placement.window().start),
        ("the window's last page", placement.window().end - PAGE_SIZE),
        ("the low window", low.start),
        ("the low window's last page", low.end - PAGE_SIZE),
        ("the service's storage", placement.storage.start),
        ("the paravisor", OWN),
        ("the launch VMSA", LAUNCH_VMSA),
        ("a VMSA", page(9)),
        ("below RAM", 0x9_F000),
        ("a device", 0xFEE0_0000),
        ("behind RAM", MEMORY),
        ("the last page there is", (1 << 52) - PAGE_SIZE),
        ("beyond physical addresses", 1 << 52),
        ("with a C-bit of its own", 1 << 51 | page(3)),
        ("wrapping", !0xFFF),
        ("the sign bit", 1 << 63),
    ]
}

#[test]
fn c2_j_forbidden_addresses_are_refused_without_a_platform_call() {
    let mut tried = 0;
    prepared(|world| {
        world.platform.perform(Act::Rescind(page(11)));
        world.touch(page(11));
        assert_eq!(world.pool(&guest::statistics(page(11), 8)).0, ADDRESS);
        assert_eq!(world.state(page(11)), Some(PageState::Quarantined));
        let mut addresses = forbidden(world);
        addresses.push(("a quarantined page", page(11)));
        addresses.push(("an invalid page", FRESH + 0x1000));
        let before = world.platform.calls();
        for (what, address) in addresses {
            let codes = [
                world.pool(&guest::list(1, address)).0,
                world.pool(&guest::list(1, address + 0xFF0)).0,
                world.pool(&guest::statistics(address, 8)).0,
                world.pool(&guest::statistics(address + 0xFF8, 8)).0,
                world.pool(&trace(address, 1, 0)).0,
                world.pool(&trace(address + 0xFE0, 1, 0)).0,
                world.pool(&convert(1, address)).0,
                world.pool(&convert(1, address + 0xFF0)).0,
                core(world, call::PVALIDATE, address, 0, 0),
                core(world, call::PVALIDATE, address + 0xFF0, 0, 0),
                core(world, call::REMAP_CA, address, 0, 0),
                core(world, call::CREATE_VCPU, address, page(3), 3),
                core(world, call::CREATE_VCPU, page(3), address, 3),
            ];
            tried += codes.len();
            for (number, code) in codes.into_iter().enumerate() {
                assert_eq!(code, ADDRESS, "call {number} with {what}");
            }
            let releases = address - address % (2 * MIB);
            let released = world.pool(&guest::release(releases, 1, 1, 7)).0;
            assert_ne!(released, SUCCESS, "RELEASE of {what}");
            if world.state(address) != Some(PageState::Vmsa) {
                assert_eq!(
                    core(world, call::DELETE_VCPU, address, 0, 0),
                    ADDRESS,
                    "{what}"
                );
            }
        }
        assert_eq!(world.platform.calls(), before, "something was touched");
        // Entries of a list: the list is read, nothing else happens.
        for (what, address) in forbidden(world) {
            for validate in [true, false] {
                world.platform.recorder.take();
                let code =
                    world.pvalidate(OTHER_LIST, &[small(address & !(0xFFF << 52), validate)]);
                assert_ne!(code, Ok(SUCCESS), "{what}");
                let events = world.platform.recorder.take();
                let executed = events
                    .iter()
                    .any(|event| matches!(event, Event::Instruction(..)));
                assert!(!executed, "{what}: {events:?}");
                tried += 1;
            }
        }
    });
    println!("{tried} calls with forbidden addresses");
}

#[test]
fn p1_what_is_valid_is_never_validated_again() {
    prepared(|world| {
        for target in [page(4), BOOT_CALLING_AREA] {
            world.platform.recorder.take();
            let code = world.pvalidate(OTHER_LIST, &[small(target, true)]).unwrap();
            assert!(matches!(code, NO_CHANGE | ADDRESS), "{code}");
            let events = world.platform.recorder.take();
            let executed = events
                .iter()
                .any(|event| matches!(event, Event::Instruction(..)));
            assert!(!executed, "{events:?}");
        }
    });
}

#[test]
fn p5_p_7_5_a_calling_area_is_one_vcpus() {
    prepared(|world| {
        // Page 10 is the calling area of another vCPU.
        let area = page(10);
        world.put_vmsa(page(7));
        world.put_list(area, &[small(FIRST, false)]);
        let before = world.platform.calls();
        let codes = [
            core(world, call::REMAP_CA, area, 0, 0),
            core(world, call::CREATE_VCPU, page(7), area, 3),
            core(world, call::CREATE_VCPU, area, page(7), 3),
            core(world, call::PVALIDATE, area, 0, 0),
            core(world, call::DELETE_VCPU, area, 0, 0),
        ];
        assert_eq!(codes, [ADDRESS; 5]);
        assert_eq!(world.platform.calls(), before, "something was touched");
        for validate in [true, false] {
            let code = world.pvalidate(OTHER_LIST, &[small(area, validate)]);
            assert_eq!(code, Ok(ADDRESS));
        }
        assert_eq!(world.state(area), Some(PageState::CallingArea));
        // The own one, which is named again, changes nothing; one that was left is an ordinary page.
        assert_eq!(
            core(world, call::REMAP_CA, BOOT_CALLING_AREA, 0, 0),
            SUCCESS
        );
        assert_eq!(core(world, call::REMAP_CA, SECOND, 0, 0), SUCCESS);
        let left = [BOOT_CALLING_AREA, SECOND].map(|page| world.state(page).unwrap());
        assert_eq!(left, [PageState::Valid, PageState::CallingArea]);
    });
}

/// Instructions and page-state changes since the transcript was taken last.
fn done(world: &World<'_>) -> Vec<Event> {
    let events = world.platform.recorder.take().into_iter();
    events
        .filter(|event| !matches!(event, Event::Read(..) | Event::Write(..)))
        .collect()
}

#[test]
fn w1_c2_j_p_5_9_2_convert_of_every_forbidden_kind() {
    let mut tried = 0;
    prepared(|world| {
        world.platform.perform(Act::Rescind(page(11)));
        world.touch(page(11));
        assert_eq!(world.pool(&guest::statistics(page(11), 8)).0, ADDRESS);
        let mut addresses = forbidden(world);
        addresses.extend([
            ("a quarantined page", page(11)),
            ("a calling area", page(10)),
            ("the list itself", OTHER_LIST),
            ("the last page of the address space", !0xFFF),
        ]);
        let states: Vec<_> = addresses.iter().map(|(_, at)| world.state(*at)).collect();
        for (what, address) in &addresses {
            for to_shared in [true, false] {
                let aligned = address & !0x1F_FFFF;
                let entries = [
                    convert_small(*address, to_shared),
                    large(aligned, to_shared),
                ];
                for entry in entries {
                    world.platform.recorder.take();
                    let code = world.convert(OTHER_LIST, &[entry]);
                    assert_eq!(code, ADDRESS, "{what}: {entry:?}");
                    assert_eq!(done(world), [], "{what}: {entry:?}");
                    // Behind a good one it ends the batch, and keeps what is behind it from its turn.
                    let list = [
                        convert_small(FIRST, true),
                        entry,
                        convert_small(SECOND, true),
                    ];
                    let code = world.convert(OTHER_LIST, &list);
                    assert_eq!(code, ResultCode::INCOMPLETE, "{what}");
                    done(world);
                    assert_eq!(world.pool(&convert(1, OTHER_LIST)).0, ADDRESS, "{what}");
                    assert_eq!(done(world), [], "{what}");
                    assert_eq!(world.state(SECOND), Some(PageState::Valid), "{what}");
                    let back = world.convert(OTHER_LIST, &[convert_small(FIRST, false)]);
                    assert_eq!(back, SUCCESS);
                    tried += 2;
                }
                if address % (2 * MIB) != 0 {
                    let entry = large(address & !0xFFF, to_shared);
                    let code = world.convert(OTHER_LIST, &[entry]);
                    assert_eq!(code, ResultCode::INVALID_PARAMETER, "{what}: {entry:?}");
                    tried += 1;
                }
            }
        }
        let after: Vec<_> = addresses.iter().map(|(_, at)| world.state(*at)).collect();
        assert_eq!(after, states);
    });
    println!("{tried} forbidden conversions");
}

#[test]
fn p_5_9_1_p_5_9_2_entries_with_anything_undefined() {
    prepared(|world| {
        let good = convert_small(FIRST, true).into_bits();
        let reserved = (3..12).map(|bit| good | 1 << bit);
        let sizes = [2, 3].map(|size| good | size);
        for bits in reserved.chain(sizes) {
            world.platform.recorder.take();
            let entry = protocol::convert::ConvertEntry::from_bits(bits);
            let code = world.convert(OTHER_LIST, &[entry]);
            assert_eq!(code, ResultCode::INVALID_PARAMETER, "{bits:#x}");
            assert_eq!(done(world), [], "{bits:#x}");
        }
        assert_eq!(world.state(FIRST), Some(PageState::Valid));
    });
}

#[test]
fn p1_p_5_9_2_convert_to_private_of_what_is_valid_is_refused_without_an_instruction() {
    prepared(|world| {
        give_large(world);
        let valid = [
            convert_small(FIRST, false),
            convert_small(LARGE, false),
            convert_small(LARGE + 0x1F_F000, false),
            large(LARGE, false),
            convert_small(page(9), false),
            convert_small(page(10), false),
        ];
        for entry in valid {
            world.platform.recorder.take();
            assert_eq!(world.convert(OTHER_LIST, &[entry]), ADDRESS, "{entry:?}");
            assert_eq!(done(world), [], "{entry:?}");
        }
        // A 2 MiB page of which one part is valid and the rest is not: neither way.
        let part = convert_small(LARGE + 0x5000, true);
        assert_eq!(world.convert(OTHER_LIST, &[part]), SUCCESS);
        world.platform.recorder.take();
        for to_shared in [true, false] {
            assert_eq!(
                world.convert(OTHER_LIST, &[large(LARGE, to_shared)]),
                ADDRESS
            );
        }
        assert_eq!(done(world), []);
    });
}

#[test]
fn p_5_9_3_a_page_named_twice_in_a_list() {
    let valid = Some(PageState::Valid);
    let shared = Some(PageState::Shared);
    let next = |world: &World<'_>| world.pool(&convert(1, OTHER_LIST)).0;
    prepared(|world| {
        give_large(world);
        for (list, after) in [
            (
                [convert_small(FIRST, true), convert_small(FIRST, true)],
                FIRST,
            ),
            (
                [large(LARGE, true), convert_small(LARGE + 0x3000, true)],
                LARGE,
            ),
        ] {
            assert_eq!(world.convert(OTHER_LIST, &list), ResultCode::INCOMPLETE);
            assert_eq!(next(world), ADDRESS, "{list:?}");
            assert_eq!(world.state(after), shared);
        }
        let list = [convert_small(FIRST, false), convert_small(FIRST, true)];
        assert_eq!(world.convert(OTHER_LIST, &list), ResultCode::INCOMPLETE);
        assert_eq!(world.state(FIRST), valid);
        assert_eq!(next(world), SUCCESS);
        assert_eq!(world.state(FIRST), shared);
        let list = [convert_small(LARGE, false), large(LARGE, false)];
        assert_eq!(world.convert(OTHER_LIST, &list), ResultCode::INCOMPLETE);
        assert_eq!(next(world), ADDRESS);
        assert_eq!(
            [LARGE, LARGE + 0x1000].map(|page| world.state(page)),
            [valid, shared]
        );
    });
}
