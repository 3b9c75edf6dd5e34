// SPDX-License-Identifier: MIT OR Apache-2.0
//! CONVERT of pages that the host remaps, takes away or splits at any platform call.

use std::cell::Cell;

use protocol::convert::{ConvertEntry, Outcome};
use protocol::result::{HOST_MISBEHAVED, PAGE_LOST};
use reference_model::guest;
use reference_model::world::SECRET;
use snp::address::Vmpl;
use snp::svsm::ResultCode;
use snp_model::access::AccessOutcome;
use snp_model::machine::AccessFault;
use svsm_swiotlb::page_state::PageState;

use super::conversion_replies::{LIST, PAGES, attach, outcomes, smalls};
use super::pages::seen;
use crate::conversions::{convert, large, small};
use crate::core_world::{
    ADDRESS, FRESH, LARGE, OWN, SUCCESS, World, page, world, world_in_plain_sight,
};
use crate::platform::{Act, Surprise, gpa};

use Outcome::{Converted, Quarantined};

/// The host acts before each platform call of a CONVERT, or the first of them; how many that were.
fn at_any_call(
    entries: &[ConvertEntry],
    acts: &[Act],
    most: u64,
    prepare: fn(&World<'_>),
    judge: impl Fn(&World<'_>, ResultCode, &str),
) -> u64 {
    let mut points = 0;
    for act in acts {
        for nth in 1..=most {
            let mut calls = 0;
            world(|world| {
                attach(world);
                prepare(world);
                for entry in entries {
                    world.touch(entry.page().bits());
                }
                world.touch(LIST);
                let before = world.platform.calls();
                world.platform.act_before(before + nth, *act);
                let code = world.convert(LIST, entries);
                calls = world.platform.calls() - before;
                let case = format!("{act:?} before call {nth}: {code}");
                assert!(!world.service.has_stopped(), "{case}");
                world.check();
                judge(world, code, &case);
            });
            if nth > calls {
                break;
            }
            points += 1;
        }
    }
    points
}

pub fn remaps(_: &World<'_>) {
    // Header, entries, page-state change, PVALIDATE, eviction, zeroing, RMPADJUST, cursor.
    let secret = OWN + 0x3000;
    let acts = [
        Act::Remap(FRESH, secret),
        Act::Remap(FRESH, page(12)),
        Act::Renew(FRESH),
    ];
    let renewed = |world: &World<'_>| {
        world.touch(page(12));
        world.platform.perform(Act::Renew(FRESH));
    };
    let points = at_any_call(
        &[small(FRESH, false)],
        &acts,
        u64::MAX,
        renewed,
        |world, code, case| {
            // Either way nobody sees what lay there.
            match (code, world.state(FRESH)) {
                (SUCCESS, Some(PageState::Valid)) => {
                    let zeros = seen(world, FRESH).is_ok_and(|bytes| bytes == [0; 16]);
                    let gone = seen(world, FRESH).is_err();
                    assert!(zeros || gone, "{case}");
                }
                (PAGE_LOST, Some(PageState::Quarantined)) => {
                    assert_eq!(outcomes(world, 1), [Quarantined], "{case}");
                    assert!(seen(world, FRESH).is_err(), "{case}");
                }
                other => panic!("{case}: {other:?}"),
            }
        },
    );
    assert_eq!(points, 3 * 8);
}

pub fn double_mapping(world: &World<'_>) {
    attach(world);
    world.touch(page(12));
    world.touch(page(4));
    assert_eq!(world.convert(LIST, &[small(page(4), true)]), SUCCESS);
    // Between page-state change and PVALIDATE the memory of another valid page is put there, and later put back.
    let before = world.platform.calls();
    world
        .platform
        .act_before(before + 4, Act::Remap(page(4), page(12)));
    assert_eq!(world.convert(LIST, &[small(page(4), false)]), SUCCESS);
    assert_eq!(seen(world, page(4)), Ok([0; 16]));
    let refused = Err(AccessFault::Refused(AccessOutcome::NotValidated));
    world.platform.perform(Act::Remap(page(12), page(4)));
    assert_eq!(
        seen(world, page(12)),
        refused,
        "not validated a second time"
    );
    assert_eq!(
        world.convert(LIST, &[small(page(12), false)]),
        ADDRESS,
        "nor by us"
    );
}

pub fn rescinds(_: &World<'_>) {
    let valid = |_: &World<'_>| {};
    let shared = |world: &World<'_>| {
        assert_eq!(world.convert(LIST, &smalls(true)), SUCCESS);
    };
    let acts = [
        Act::Rescind(PAGES[0]),
        Act::Rescind(PAGES[1]),
        Act::Renew(PAGES[1]),
        Act::Rescind(LIST),
        Act::Renew(LIST),
    ];
    let judge = |world: &World<'_>, code: ResultCode, case: &str| {
        if world.state(LIST) == Some(PageState::Quarantined) {
            assert_eq!(code, ADDRESS, "{case}");
            return;
        }
        let lost = PAGES.map(|page| world.state(page) == Some(PageState::Quarantined));
        let wanted = if lost.contains(&true) {
            PAGE_LOST
        } else {
            SUCCESS
        };
        assert_eq!(code, wanted, "{case}");
        // A page that is lost costs nobody else's.
        assert!(lost.iter().filter(|lost| **lost).count() <= 1, "{case}");
        assert!(!lost[2], "{case}");
    };
    let points = at_any_call(&smalls(true), &acts, u64::MAX, valid, judge)
        + at_any_call(&smalls(false), &acts, u64::MAX, shared, judge);
    println!("{points} points at which a page of a CONVERT is taken away");
    assert!(points > 100);
}

pub fn splits(_: &World<'_>) {
    let shared = |world: &World<'_>| {
        world.give_large(LIST);
        assert_eq!(world.convert(LIST, &[large(LARGE, true)]), SUCCESS);
    };
    let valid = |world: &World<'_>| world.give_large(LIST);
    // The whole, or a part of it, which is taken away besides.
    let part = LARGE + 0x5000;
    let taken = [Act::Rescind(part), Act::Renew(part)];
    let losses = Cell::new(0);
    let judge = |world: &World<'_>, code: ResultCode, case: &str| {
        let states: Vec<_> = (0..512)
            .map(|number| world.state(LARGE + number * 4096).unwrap())
            .collect();
        assert!(states.iter().all(|state| *state == states[0]), "{case}");
        let lost = states[0] == PageState::Quarantined;
        losses.set(losses.get() + u64::from(lost));
        assert_eq!(code, if lost { PAGE_LOST } else { SUCCESS }, "{case}");
    };
    // One that was split has thousands of calls. Split between two of the three revocations it is lost; split at any
    // other time it is done in parts.
    for (to_shared, prepare, lost) in [(true, valid as fn(&World<'_>), 2), (false, shared, 0)] {
        let entries = [large(LARGE, to_shared)];
        losses.set(0);
        let split = at_any_call(&entries, &[Act::Smash(LARGE)], 9, prepare, judge);
        assert!(split >= 7, "{split}");
        assert_eq!(losses.get(), lost, "to shared: {to_shared}");
        let points = at_any_call(&entries, &taken, 9, prepare, judge);
        assert!(points >= 2 * 7 && losses.get() > lost, "{points}");
    }
}

pub fn surprises(_: &World<'_>) {
    for (surprise, to_shared, code) in [
        (Surprise::ValidAlready, false, HOST_MISBEHAVED),
        (Surprise::InvalidAlready, true, PAGE_LOST),
        (Surprise::SizeMismatch, true, PAGE_LOST),
        (Surprise::SizeMismatch, false, PAGE_LOST),
    ] {
        world(|world| {
            attach(world);
            if !to_shared {
                assert_eq!(world.convert(LIST, &smalls(true)), SUCCESS);
            }
            PAGES.iter().for_each(|page| world.touch(*page));
            world.platform.surprise(surprise);
            let case = format!("{surprise:?}, to shared: {to_shared}");
            assert_eq!(world.convert(LIST, &smalls(to_shared)), code, "{case}");
            assert_eq!(
                world.state(PAGES[0]),
                Some(PageState::Quarantined),
                "{case}"
            );
            let stops = surprise == Surprise::ValidAlready;
            assert_eq!(world.service.has_stopped(), stops, "{case}");
            if stops {
                // P-5.9.11: no call of any number is served any more, and nothing is touched.
                let before = world.platform.calls();
                for number in 0..17 {
                    let code = world.pool(&guest::raw(number, LIST, 1, 0)).0;
                    assert_eq!(code, HOST_MISBEHAVED, "call {number}");
                }
                assert_eq!(world.platform.calls(), before);
            } else {
                assert_eq!(outcomes(world, 3)[1..], [Converted; 2], "{case}");
            }
        });
    }
}

pub fn residual(world: &World<'_>) {
    attach(world);
    let machine = world.platform.machine();
    let host_reads = |page| {
        let mut bytes = [0; 4096];
        machine.device_read(gpa(page), &mut bytes).unwrap();
        bytes
    };
    for page in PAGES {
        world.put(page, &SECRET.repeat(512));
    }
    let encrypted = PAGES.map(host_reads);
    assert_eq!(world.convert(LIST, &smalls(true)), SUCCESS);
    // CONVERT does not zero what it shares (P-5.9.12): it is the guest's key that keeps it from the host.
    assert!(PAGES.map(host_reads) == encrypted);
    assert_eq!(machine.host_finds(&SECRET), None);
    // What the host leaves there, or finds there and leaves, is not what the guest finds.
    machine.device_write(gpa(PAGES[1]), &[0xEE; 4096]).unwrap();
    assert_eq!(world.convert(LIST, &smalls(false)), SUCCESS);
    for page in PAGES {
        let mut bytes = [0xFF; 4096];
        machine
            .guest_read(Vmpl::Vmpl2, true, gpa(page), &mut bytes)
            .unwrap();
        assert!(bytes == [0; 4096], "{page:#x}: {:x?}", &bytes[..16]);
    }
    let again = world.pool(&convert(1, LIST)).0;
    assert_eq!(again, ResultCode::INVALID_PARAMETER, "the list is done");
    // The search for private bytes looks where it should: on a machine without that key it finds them.
    world_in_plain_sight(|world| {
        attach(world);
        assert_eq!(world.convert(LIST, &smalls(true)), SUCCESS);
        for number in 0..16 {
            let other = page(number);
            if !PAGES.contains(&other) {
                world.put(other, &[0; 4096]);
            }
        }
        for number in 0..4 {
            let own = gpa(OWN + number * 4096);
            let machine = world.platform.machine();
            machine
                .guest_write(Vmpl::Vmpl0, true, own, &[0; 4096])
                .unwrap();
        }
        let found = world.platform.machine().host_finds(&SECRET);
        assert!(found.is_some_and(|page| PAGES.contains(&page)), "{found:?}");
    });
}

#[test]
fn l_p_5_9_12_what_a_converted_page_held_is_seen_by_nobody() {
    world(residual);
}
