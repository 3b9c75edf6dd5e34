// SPDX-License-Identifier: MIT OR Apache-2.0
//! CONVERT under hosts that reply as they like.

use protocol::convert::{ConvertEntry, Outcome};
use protocol::result::{HOST_MISBEHAVED, HOST_REFUSED, PAGE_LOST};
use reference_model::guest;
use snp::address::Vmpl;
use snp::svsm::ResultCode;
use snp_model::psc::HostManner;

use super::pages::seen;
use crate::conversions::{large, small};
use crate::core_world::{ADDRESS, LARGE, SUCCESS, World, page, world};
use crate::platform::gpa;

pub const LIST: u64 = page(0);
pub const PAGES: [u64; 3] = [page(4), page(5), page(6)];

pub fn smalls(to_shared: bool) -> [ConvertEntry; 3] {
    PAGES.map(|page| small(page, to_shared))
}

pub fn outcomes(world: &World<'_>, count: u64) -> Vec<Outcome> {
    let outcome = |number| {
        let mut bytes = [0; 8];
        let at = gpa(LIST + 8 + 8 * number);
        let machine = world.platform.machine();
        machine
            .guest_read(Vmpl::Vmpl2, true, at, &mut bytes)
            .unwrap();
        let entry = ConvertEntry::from_bits(u64::from_le_bytes(bytes));
        entry.outcome().unwrap()
    };
    (0..count).map(outcome).collect()
}

pub fn attach(world: &World<'_>) {
    assert_eq!(world.pool(&guest::attach()).0, SUCCESS);
}

/// A manner, and for each direction the answer and what becomes of three pages of 4 KiB.
type Row = (
    HostManner,
    (ResultCode, [Outcome; 3]),
    (ResultCode, [Outcome; 3]),
);

use Outcome::{Converted, Quarantined, Unchanged, Unvalidated, Zeroed};
const DONE: (ResultCode, [Outcome; 3]) = (SUCCESS, [Converted; 3]);
const BROKEN: (ResultCode, [Outcome; 3]) = (HOST_MISBEHAVED, [Quarantined; 3]);
const DECLINED: (ResultCode, [Outcome; 3]) = (HOST_REFUSED, [Unvalidated; 3]);
const KEPT: (ResultCode, [Outcome; 3]) = (HOST_REFUSED, [Unchanged; 3]);

const MANNERS: [Row; 13] = [
    (HostManner::Honest, DONE, DONE),
    (HostManner::StopAfter(1), DONE, DONE),
    (HostManner::StopAfter(2), DONE, DONE),
    (HostManner::StopInside(1), DONE, DONE),
    (HostManner::Refuse, DECLINED, KEPT),
    (HostManner::NoProgress, DECLINED, KEPT),
    (HostManner::FailAfter(0), DECLINED, KEPT),
    (
        HostManner::FailAfter(1),
        (HOST_REFUSED, [Converted, Zeroed, Unvalidated]),
        (HOST_REFUSED, [Converted, Unchanged, Unchanged]),
    ),
    // To private, PVALIDATE finds it out.
    (HostManner::Lie, DONE, (PAGE_LOST, [Quarantined; 3])),
    (HostManner::CursorBackwards, BROKEN, BROKEN),
    (HostManner::CursorBeyondEnd, BROKEN, BROKEN),
    (HostManner::EnlargeEnd, BROKEN, BROKEN),
    (HostManner::ReservedBits, BROKEN, BROKEN),
];

pub fn replies(_: &World<'_>) {
    replies_of(|_| true);
}

/// The manners that fit, of which there is one at least.
pub fn replies_of(fits: impl Fn(HostManner) -> bool) {
    let fitting = || MANNERS.into_iter().filter(|(manner, ..)| fits(*manner));
    assert_ne!(fitting().count(), 0, "no such manner");
    for (manner, there, back) in fitting() {
        for (to_shared, (code, expected)) in [(true, there), (false, back)] {
            world(|world| {
                attach(world);
                if !to_shared {
                    assert_eq!(world.convert(LIST, &smalls(true)), SUCCESS);
                }
                world.platform.set_manner(manner);
                let case = format!("{manner:?}, to shared: {to_shared}");
                assert_eq!(world.convert(LIST, &smalls(to_shared)), code, "{case}");
                assert_eq!(outcomes(world, 3), expected, "{case}");
                world.check();
                world.platform.set_manner(HostManner::Honest);
                afterwards(world, to_shared, &expected, &case);
            });
        }
    }
}

/// With an honest host again: what is quarantined stays so, everything else can be had back, as zeros.
fn afterwards(world: &World<'_>, to_shared: bool, outcomes: &[Outcome], case: &str) {
    for (page, outcome) in PAGES.into_iter().zip(outcomes) {
        let private = match outcome {
            Converted | Unchanged => to_shared == (*outcome == Unchanged),
            Zeroed => true,
            Unvalidated => false,
            Quarantined => {
                for again in [small(page, true), small(page, false)] {
                    assert_eq!(world.convert(LIST, &[again]), ADDRESS, "{case}");
                }
                continue;
            }
        };
        if !private {
            let back = world.convert(LIST, &[small(page, false)]);
            assert_eq!(back, SUCCESS, "{page:#x}: {case}");
        }
        assert_eq!(seen(world, page), Ok([0; 16]), "{page:#x}: {case}");
        world.check();
    }
}

pub fn replies_to_large_pages(_: &World<'_>) {
    for (manner, there, back) in [
        (
            HostManner::Honest,
            (SUCCESS, Converted),
            (SUCCESS, Converted),
        ),
        (
            HostManner::StopInside(40),
            (SUCCESS, Converted),
            (SUCCESS, Converted),
        ),
        // Too slow: 16 exits inside one entry.
        (
            HostManner::StopInside(20),
            (HOST_REFUSED, Unvalidated),
            (HOST_REFUSED, Unchanged),
        ),
        (
            HostManner::Refuse,
            (HOST_REFUSED, Unvalidated),
            (HOST_REFUSED, Unchanged),
        ),
        (
            HostManner::Lie,
            (SUCCESS, Converted),
            (PAGE_LOST, Quarantined),
        ),
        (
            HostManner::ReservedBits,
            (HOST_MISBEHAVED, Quarantined),
            (HOST_MISBEHAVED, Quarantined),
        ),
    ] {
        for (to_shared, (code, outcome)) in [(true, there), (false, back)] {
            world(|world| {
                attach(world);
                world.give_large(LIST);
                if !to_shared {
                    assert_eq!(world.convert(LIST, &[large(LARGE, true)]), SUCCESS);
                }
                world.platform.set_manner(manner);
                let case = format!("{manner:?}, to shared: {to_shared}");
                assert_eq!(
                    world.convert(LIST, &[large(LARGE, to_shared)]),
                    code,
                    "{case}"
                );
                assert_eq!(outcomes(world, 1), [outcome], "{case}");
                world.check();
                // One state for all of it.
                let state = world.state(LARGE);
                for number in 0..512 {
                    assert_eq!(world.state(LARGE + number * 4096), state, "{case}");
                }
            });
        }
    }
}
