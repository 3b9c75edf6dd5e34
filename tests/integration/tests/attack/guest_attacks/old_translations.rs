// SPDX-License-Identifier: MIT OR Apache-2.0
//! A processor that goes on by the translation it has kept of a page, until somebody flushes: invariant P2 and row F of the
//! catalogue.

use snp::address::Vmpl;
use snp::svsm::core_protocol as call;
use svsm_swiotlb::page_state::PageState;

use super::prepared::{FIRST, SECOND, TARGET, core, interrupted, prepared};
use crate::conversions;
use crate::core_world::{SUCCESS, World, page, small};
use crate::platform::gpa;

/// The other processor writes to a page; whether it can.
fn writes(world: &World<'_>, page: u64) -> bool {
    let other = world.platform.machine().processor(1);
    let write = |bytes: &[u8]| other.write(Vmpl::Vmpl2, true, gpa(page), bytes);
    write(b"from an old translation").is_ok()
}

/// Before each platform call of `victim`, whether the other processor, which has written to `page` before, still can.
fn can_write(
    page: u64,
    victim: fn(&World<'_>),
    after: fn(&World<'_>),
) -> Vec<(&'static str, bool)> {
    let mut found = Vec::new();
    for nth in 1.. {
        let mut reached = None;
        prepared(|world| {
            assert!(writes(world, page));
            let machine = world.platform.machine();
            assert_eq!(machine.stronger_translation(), None);
            let first = world.platform.names().len();
            let (_, can) = interrupted(world, nth, || victim(world), || writes(world, page));
            let name = world.platform.names().get(first + found.len()).copied();
            reached = can.map(|can| (name.expect("a call"), can));
            assert_eq!(machine.stronger_translation(), None, "before call {nth}");
            after(world);
        });
        match reached {
            Some(point) => found.push(point),
            None => break,
        }
    }
    found
}

#[test]
fn p2_f_p_5_9_5_convert_shares_a_page_when_no_old_translation_reaches_it() {
    let convert = |world: &World<'_>| {
        let pages = [FIRST, SECOND].map(|page| conversions::small(page, true));
        assert_eq!(world.convert(TARGET, &pages), SUCCESS);
    };
    let found = can_write(FIRST, convert, |world| {
        let machine = world.platform.machine();
        let mut seen = [0; 32];
        machine.device_write(gpa(FIRST), &[0xEE; 32]).unwrap();
        assert!(!writes(world, FIRST), "into what is shared");
        machine.device_read(gpa(FIRST), &mut seen).unwrap();
        assert_eq!(seen, [0xEE; 32]);
    });
    let before = ["read", "read"].into_iter().chain(["rmpadjust"; 6]);
    let before = before.chain(["flush"]).map(|name| (name, true));
    let after = ["pvalidate", "pvalidate", "page_state_change"];
    // The host of this world returns early.
    let after = after.into_iter().chain(["page_state_change", "write"]);
    let expected: Vec<_> = before.chain(after.map(|name| (name, false))).collect();
    assert_eq!(found, expected);
}

#[test]
fn p2_f_a_rescinded_page_is_let_go_when_no_old_translation_reaches_it() {
    let rescind = |world: &World<'_>| {
        world.put_list(TARGET, &[small(FIRST, false), small(FIRST, true)]);
        assert_eq!(core(world, call::PVALIDATE, TARGET, 0, 0), SUCCESS);
    };
    let found = can_write(FIRST, rescind, |world| {
        assert_eq!(world.state(FIRST), Some(PageState::Valid));
    });
    let expected = [
        ("read", true),
        ("read", true),
        ("rmpadjust", true),
        ("rmpadjust", true),
        ("rmpadjust", true),
        ("pvalidate", true),
        ("flush", true),
        // It is validated and zeroed behind everybody's back.
        ("pvalidate", false),
        ("evict", false),
        ("zero", false),
        ("rmpadjust", false),
        // Granted again.
        ("write", true),
    ];
    assert_eq!(found, expected);
    let rescind = |world: &World<'_>| {
        world.put_list(TARGET, &[small(FIRST, false)]);
        assert_eq!(core(world, call::PVALIDATE, TARGET, 0, 0), SUCCESS);
    };
    let found = can_write(FIRST, rescind, |world| {
        assert_eq!(world.state(FIRST), Some(PageState::Invalid));
        assert!(!writes(world, FIRST), "to what may be anybody's");
    });
    let last = [("pvalidate", true), ("flush", true), ("write", false)];
    assert_eq!(found[5..], last);
}

#[test]
fn p2_f_a_vmsa_is_looked_at_when_no_old_translation_reaches_it() {
    let create = |world: &World<'_>| {
        world.put_vmsa(page(7));
        assert_eq!(core(world, call::CREATE_VCPU, page(7), page(8), 3), SUCCESS);
    };
    let found = can_write(page(7), create, |world| {
        assert_eq!(world.state(page(7)), Some(PageState::Vmsa));
        assert!(!writes(world, page(7)), "into what a processor runs by");
    });
    let flush = found.iter().position(|(name, _)| *name == "flush");
    let flush = flush.expect("a flush");
    for (number, (name, can)) in found.iter().enumerate() {
        assert_eq!(*can, number <= flush, "{name} of {found:?}");
    }
    assert!(found[flush..].len() > 3, "{found:?}");
}
