// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two processors that convert the same pages: the second acts before each platform call of the first.

use protocol::convert::ConvertEntry;
use protocol::result;
use reference_model::guest;
use snp::address::Vmpl;
use snp::svsm::{ListHeader, ResultCode, core_protocol as call};
use svsm_swiotlb::page_state::PageState;
use zerocopy::FromBytes;

use super::prepared::{
    Doing, FIRST, OTHER_LIST, SECOND, TARGET, THIRD, core, give_large, interrupted, prepared,
    window,
};
use crate::conversions::{convert, large, small};
use crate::core_world::{self, ADDRESS, BUSY, FRESH, LARGE, SUCCESS, World, page};
use crate::platform::gpa;

const INCOMPLETE: ResultCode = ResultCode::INCOMPLETE;

/// Two lists with a page in common, and what it takes for them.
struct Overlap {
    name: &'static str,
    prepare: fn(&World<'_>),
    first: &'static [ConvertEntry],
    second: &'static [ConvertEntry],
    /// The page in common.
    common: u64,
}

const OVERLAPS: [Overlap; 7] = [
    Overlap {
        name: "4 KiB, both to shared",
        prepare: |_| {},
        first: &[small(FIRST, true), small(SECOND, true), small(THIRD, true)],
        second: &[small(SECOND, true)],
        common: SECOND,
    },
    Overlap {
        name: "4 KiB, there and back",
        prepare: |_| {},
        first: &[small(FIRST, true), small(SECOND, true)],
        second: &[small(SECOND, false)],
        common: SECOND,
    },
    Overlap {
        name: "4 KiB, both to private",
        prepare: |_| {},
        first: &[small(FRESH, false), small(FRESH + 0x1000, false)],
        second: &[small(FRESH + 0x1000, false)],
        common: FRESH + 0x1000,
    },
    Overlap {
        name: "4 KiB inside 2 MiB",
        prepare: give_large,
        first: &[small(FIRST, true), large(LARGE, true)],
        second: &[small(LARGE + 0x3000, true)],
        common: LARGE + 0x3000,
    },
    Overlap {
        name: "2 MiB around 4 KiB",
        prepare: give_large,
        first: &[small(FIRST, true), small(LARGE + 0x3000, true)],
        second: &[large(LARGE, true)],
        common: LARGE + 0x3000,
    },
    Overlap {
        name: "2 MiB, both to private",
        prepare: |_| {},
        first: &[large(LARGE, false)],
        second: &[large(LARGE, false)],
        common: LARGE,
    },
    Overlap {
        name: "2 MiB to private around 4 KiB",
        prepare: |_| {},
        first: &[small(FRESH, false), small(LARGE + 0x1F_F000, false)],
        second: &[large(LARGE, false)],
        common: LARGE + 0x1F_F000,
    },
];

fn cursor(world: &World<'_>, list: u64) -> u16 {
    let mut bytes = [0; 8];
    let machine = world.platform.machine();
    let read = machine.guest_read(Vmpl::Vmpl2, true, gpa(list), &mut bytes);
    assert_eq!(read, Ok(()));
    ListHeader::read_from_bytes(&bytes).unwrap().next
}

#[test]
fn p5_p_6_6_two_processors_convert_the_same_page() {
    let mut points = 0;
    let mut busy = 0;
    for overlap in OVERLAPS {
        for nth in 1.. {
            let mut reached = false;
            prepared(|world| {
                (overlap.prepare)(world);
                let before = world.state(overlap.common);
                let victim = || world.convert(TARGET, overlap.first);
                let (code, attacked) = interrupted(world, nth, victim, || {
                    let state = world.state(overlap.common);
                    (state, world.convert(OTHER_LIST, overlap.second))
                });
                let case = format!("{} before call {nth}: {code}, {attacked:?}", overlap.name);
                let Some((state, second)) = attacked else {
                    assert_eq!(code, SUCCESS, "{case}");
                    return;
                };
                reached = true;
                let opposite = overlap.second[0].to_shared() != overlap.first[0].to_shared();
                let length = u16::try_from(overlap.first.len()).unwrap();
                match state {
                    // The first has it. The other is told so, and finds nothing changed.
                    Some(PageState::Busy) => {
                        assert_eq!((second, code), (BUSY, SUCCESS), "{case}");
                        assert_eq!(cursor(world, OTHER_LIST), 0, "{case}");
                        busy += 1;
                    }
                    // Nobody has it yet. Who comes second finds it converted.
                    state if state == before && !opposite => {
                        assert_eq!(second, SUCCESS, "{case}");
                        let done = cursor(world, TARGET);
                        assert!(done < length, "{case}: {done}");
                        let wanted = if done == 0 { ADDRESS } else { INCOMPLETE };
                        assert_eq!(code, wanted, "{case}");
                        let again = world.pool(&convert(1, TARGET)).0;
                        assert_eq!(again, ADDRESS, "{case}");
                    }
                    state if state == before => assert_eq!((second, code), (ADDRESS, SUCCESS)),
                    _ if opposite => assert_eq!((second, code), (SUCCESS, SUCCESS), "{case}"),
                    _ => assert_eq!((second, code), (ADDRESS, SUCCESS), "{case}"),
                }
            });
            if !reached {
                break;
            }
            points += 1;
        }
    }
    println!("{points} points at which two processors meet, {busy} at a page in hand");
    assert!(points > 70 && busy > 30, "{points} {busy}");
}

/// What else another processor does with the pages and the pool meanwhile.
const OTHERS: [(&str, Doing); 7] = [
    ("GROW", |world| world.pool(&guest::grow(1, 1, 2, true)).0),
    ("RELEASE", |world| {
        world.pool(&guest::release(window(world), 1, 1, 1)).0
    }),
    ("a VMSA of a page", |world| {
        world.put_vmsa(FIRST);
        core(world, call::CREATE_VCPU, FIRST, page(2), 3)
    }),
    ("a calling area of a page", |world| {
        core(world, call::REMAP_CA, FIRST, 0, 0)
    }),
    ("PVALIDATE(0) of a page", |world| {
        world.put_list(OTHER_LIST, &[core_world::small(FIRST, false)]);
        core(world, call::PVALIDATE, OTHER_LIST, 0, 0)
    }),
    ("PVALIDATE(1) of a page", |world| {
        world.put_list(OTHER_LIST, &[core_world::small(FIRST, true)]);
        core(world, call::PVALIDATE, OTHER_LIST, 0, 0)
    }),
    ("a list of the page", |world| {
        world.pool(&guest::statistics(FIRST, 64)).0
    }),
];

#[test]
fn w2_p5_one_converts_while_another_grows_releases_or_names_the_page_otherwise() {
    for (name, other) in OTHERS {
        for nth in 1.. {
            let mut reached = false;
            prepared(|world| {
                let list = [small(FIRST, true), small(SECOND, true)];
                let victim = || world.convert(TARGET, &list);
                let (code, attacked) = interrupted(world, nth, victim, || {
                    let state = world.state(FIRST);
                    (state, other(world))
                });
                let case = format!("{name} before call {nth}: {code}, {attacked:?}");
                let Some((state, code_of_other)) = attacked else {
                    return;
                };
                reached = true;
                match (name, state) {
                    ("GROW" | "RELEASE", _) => {
                        assert_eq!((code_of_other, code), (SUCCESS, SUCCESS), "{case}");
                    }
                    (_, Some(PageState::Busy)) => {
                        assert_eq!((code_of_other, code), (BUSY, SUCCESS), "{case}");
                    }
                    // Before the list is fetched or after the page has become shared.
                    (_, Some(PageState::Shared)) => {
                        assert_eq!((code_of_other, code), (ADDRESS, SUCCESS), "{case}");
                    }
                    ("a list of the page", _) => {
                        assert_eq!((code_of_other, code), (SUCCESS, SUCCESS), "{case}");
                    }
                    ("PVALIDATE(1) of a page", _) => {
                        let no_change = ResultCode(call::ERROR_NO_CHANGE);
                        assert_eq!((code_of_other, code), (no_change, SUCCESS), "{case}");
                    }
                    // It is something else by the time that the list is worked off.
                    _ => assert_eq!((code_of_other, code), (SUCCESS, ADDRESS), "{case}"),
                }
                if code == SUCCESS {
                    assert_eq!(world.state(FIRST), Some(PageState::Shared), "{case}");
                }
                assert_ne!(code_of_other, result::HOST_MISBEHAVED, "{case}");
            });
            if !reached {
                break;
            }
        }
    }
}
