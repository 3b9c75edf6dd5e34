// SPDX-License-Identifier: MIT OR Apache-2.0
//! Another processor acts before each platform call.

use reference_model::Event;
use snp::svsm::core_protocol as call;
use svsm_swiotlb::page_state::PageState;

use super::attacks::ATTACKS;
use super::prepared::{FIRST, SECOND, TARGET, core, interrupted, prepared};
use super::victims::VICTIMS;
use crate::conversions;
use crate::core_world::{AREA, FRESH, LARGE, SUCCESS, documented, page, small, world};

#[test]
fn p5_another_processor_acts_before_every_platform_call() {
    let mut points = 0;
    for victim in VICTIMS {
        let mut of_victim = 0;
        for attack in ATTACKS {
            for nth in 1.. {
                let mut reached = false;
                prepared(|world| {
                    (victim.prepare)(world);
                    let act = || {
                        let held = |page| world.state(page) == Some(PageState::Busy);
                        let before = attack.needs.is_some_and(held);
                        let code = (attack.doing)(world);
                        (before, code, attack.needs.is_some_and(held))
                    };
                    let (code, attacked) = interrupted(world, nth, || (victim.call)(world), act);
                    reached = attacked.is_some();
                    let case = format!("{} before call {nth} of {}", attack.name, victim.name);
                    assert!(documented(code), "{case}: {code}");
                    let Some((before, attacked, after)) = attacked else {
                        return;
                    };
                    assert!(documented(attacked), "{case}: {attacked}");
                    // What the victim has in its hands is nobody else's. The attack may be refused for what it found
                    // before it came to the page.
                    let of_list = victim.holds_the_list() && attack.needs == Some(TARGET);
                    assert!(!before && !of_list || attacked != SUCCESS, "{case}");
                    assert!(before || !of_list, "{case}: the list was let go");
                    assert_eq!(before, after, "{case}: the word changed hands");
                    assert!(!world.service.has_stopped(), "{case}");
                });
                if !reached {
                    break;
                }
                of_victim += 1;
            }
        }
        println!("{}: {of_victim} points", victim.name);
        let alone = matches!(victim.name, "ADOPT" | "DETACH");
        assert_eq!(alone, of_victim == 0, "these two need nobody");
        points += of_victim;
    }
    println!("{points} points at which another processor acts");
    assert!(points > 3000, "{points}");
}

#[test]
fn p2_f_a_page_on_its_way_is_nobodys_until_the_flush() {
    // At each platform call of a rescind the page's word is taken; published earlier, a third processor could validate
    // the page while others still write to it through an old translation.
    for nth in 2.. {
        let mut seen = None;
        world(|world| {
            world.put_list(TARGET, &[small(page(4), false)]);
            let victim = || core(world, call::PVALIDATE, TARGET, 0, 0);
            let (code, state) = interrupted(world, nth, victim, || world.state(page(4)));
            assert_eq!(code, SUCCESS);
            seen = state.flatten();
            assert_eq!(world.state(page(4)), Some(PageState::Invalid));
        });
        // list header, entries, three revocations, PVALIDATE, flush, cursor
        match nth {
            2 => assert_eq!(seen, Some(PageState::Valid)),
            3..=7 => assert_eq!(seen, Some(PageState::Busy), "call {nth}"),
            8 => assert_eq!(seen, Some(PageState::Invalid)),
            _ => {
                assert_eq!(seen, None);
                break;
            }
        }
    }
}

#[test]
fn p2_p5_a_page_on_its_way_through_convert_is_nobodys() {
    // header, entries, three revocations, flush, PVALIDATE, page-state change, cursor
    let mut seen = Vec::new();
    let mut order = Vec::new();
    for nth in 1.. {
        let mut state = None;
        prepared(|world| {
            world.platform.recorder.take();
            let list = [conversions::small(FIRST, true)];
            let victim = || world.convert(TARGET, &list);
            let (code, found) = interrupted(world, nth, victim, || {
                [FIRST, TARGET, SECOND].map(|page| world.state(page).unwrap())
            });
            assert_eq!(code, SUCCESS);
            order = world.platform.recorder.take();
            state = found;
        });
        let Some(state) = state else { break };
        seen.push(state);
    }
    let (valid, busy) = (PageState::Valid, PageState::Busy);
    let mut expected = vec![[valid, busy, valid]; 2];
    expected.extend([[busy, busy, valid]; 6]);
    expected.push([PageState::Shared, busy, valid]);
    assert_eq!(seen, expected);
    let flush = Event::Instruction("flush", 0);
    let flushed = order.iter().position(|event| *event == flush);
    let rescind = Event::Instruction("PVALIDATE", FIRST);
    let rescinded = order.iter().position(|event| *event == rescind);
    let asked = order
        .iter()
        .position(|event| matches!(event, Event::Psc { .. }));
    assert!(flushed < rescinded && rescinded < asked, "P2: {order:?}");
    assert_eq!(order.iter().filter(|event| **event == flush).count(), 1);
}

/// Pages of guest RAM that a platform call names.
fn named(event: &Event) -> Vec<u64> {
    match event {
        Event::Read(at, ..) | Event::Write(at, ..) => vec![at & !0xFFF],
        Event::Instruction("flush", _) => Vec::new(),
        Event::Instruction(_, page) => vec![*page],
        Event::Psc { entries, .. } => entries.iter().map(|entry| entry.page().bits()).collect(),
        _ => Vec::new(),
    }
}

/// Whether it is a platform call, and not what is noted of one besides.
fn is_call(event: &Event) -> bool {
    matches!(
        event,
        Event::Read(..)
            | Event::Write(..)
            | Event::Instruction(..)
            | Event::Psc { .. }
            | Event::Foreign(_)
    )
}

#[test]
fn p5_no_platform_call_names_a_page_whose_word_is_not_taken() {
    let mut looked_at = 0;
    for victim in VICTIMS {
        for nth in 1.. {
            let mut reached = false;
            prepared(|world| {
                (victim.prepare)(world);
                world.platform.recorder.take();
                let pages: Vec<_> = (0..16)
                    .map(page)
                    .chain([FRESH, FRESH + 0x1000, LARGE, AREA])
                    .collect();
                let look = || {
                    pages
                        .iter()
                        .map(|page| world.state(*page))
                        .collect::<Vec<_>>()
                };
                let (_, seen) = interrupted(world, nth, || (victim.call)(world), look);
                let Some(states) = seen else { return };
                reached = true;
                let list = states[0] == Some(PageState::Busy);
                assert_eq!(
                    list,
                    victim.holds_the_list_before(nth),
                    "call {nth} of {}",
                    victim.name
                );
                let events = world.platform.recorder.take().into_iter().filter(is_call);
                let call = events.into_iter().nth(usize::try_from(nth).unwrap() - 1);
                let call = call.expect("the call before which it was stopped");
                for name in named(&call) {
                    let position = pages.iter().position(|page| *page == name);
                    let Some(position) = position else {
                        // A page of the window: it has no word.
                        assert_eq!(world.state(name), None, "{}: {call:?}", victim.name);
                        continue;
                    };
                    let held = states[position] == Some(PageState::Busy);
                    assert!(held, "call {nth} of {}: {call:?}", victim.name);
                    looked_at += 1;
                }
            });
            if !reached {
                break;
            }
        }
    }
    println!("{looked_at} accesses to guest pages, each under its word");
    assert!(looked_at > 60, "{looked_at}");
}
