// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lists that another processor rewrites while they are read.

use std::thread;

use protocol::convert::ConvertEntry;
use reference_model::{Event, guest};
use snp::svsm::ListHeader;
use svsm_swiotlb::page_state::PageState;
use zerocopy::IntoBytes;

use super::prepared::{FIRST, SECOND, TARGET, THIRD, interrupted, prepared, window};
use crate::conversions::{convert, large, small};
use crate::core_world::{LARGE, OWN, SUCCESS, World, documented, page};

#[test]
fn p_7_6_a_list_rewritten_during_the_call_changes_nothing() {
    list_granted();
}

/// For the table of hooks: both kinds of lists, rewritten by another processor right after they were fetched.
pub fn after_the_fetch(_: &World<'_>) {
    list_granted();
    for (to_shared, (what, rewrite)) in [true, false]
        .into_iter()
        .flat_map(|to_shared| REWRITES.map(|rewrite| (to_shared, rewrite)))
    {
        let mut reached = false;
        prepared(|world| reached = rewritten(world, to_shared, AFTER_THE_FETCH, what, rewrite));
        assert!(reached, "{what}: nothing was rewritten");
    }
}

fn list_granted() {
    prepared(|world| {
        world.platform.recorder.take();
        let attacker = world.platform.recorder.gate(2);
        thread::scope(|scope| {
            // After the header was fetched: another capacity and cursor, which would lead out of the page.
            let other = scope.spawn(|| attacker.when_reached(|| world.put(TARGET, &[0xFF; 8])));
            assert_eq!(world.pool(&guest::list(1, TARGET)).0, SUCCESS);
            assert!(other.join().unwrap());
        });
        let events = world.platform.recorder.take();
        let reads = events
            .iter()
            .filter(|event| matches!(event, Event::Read(..)));
        assert_eq!(reads.count(), 1, "fetched once");
        let outside = events.iter().any(|event| match event {
            Event::Write(at, bytes, _) => at + bytes.len() as u64 > TARGET + 8 + 4 * 24,
            _ => false,
        });
        assert!(!outside, "written outside the list");
    });
}

/// What another processor makes of the list.
type Rewrite = fn(&World<'_>);

/// The platform call of a CONVERT that follows header and entries.
const AFTER_THE_FETCH: u64 = 3;
/// Entries of the list; another one lies behind its end.
const LENGTH: u16 = 2;

fn header(world: &World<'_>, entries: u16, next: u16) {
    let header = ListHeader {
        entries,
        next,
        reserved: 0,
    };
    world.put(TARGET, header.as_bytes());
}

fn entries(world: &World<'_>, entries: &[ConvertEntry]) {
    world.put(TARGET + 8, entries.as_bytes());
}

const REWRITES: [(&str, Rewrite); 9] = [
    ("pages swapped to forbidden ones, to shared", |world| {
        entries(world, &[small(OWN, true), small(window(world), true)]);
    }),
    ("pages swapped to forbidden ones, to private", |world| {
        entries(world, &[small(page(9), false), small(OWN, false)]);
    }),
    ("pages swapped to others", |world| {
        entries(world, &[small(THIRD, true), small(page(3), true)]);
    }),
    ("sizes changed", |world| {
        entries(world, &[large(LARGE, true), large(LARGE, false)]);
    }),
    ("the list itself named", |world| {
        entries(world, &[small(TARGET, true), small(TARGET, true)]);
    }),
    ("reserved bits set", |world| {
        entries(world, &[ConvertEntry::from_bits(u64::MAX); 3]);
    }),
    ("the count enlarged", |world| header(world, 511, 0)),
    ("the count shrunk", |world| header(world, 0, 0)),
    ("the cursor moved", |world| header(world, LENGTH, 1)),
];

#[test]
fn c2_p5_p_7_6_p_5_9_1_a_list_of_convert_rewritten_before_every_platform_call() {
    let mut points = 0;
    for to_shared in [true, false] {
        for (what, rewrite) in REWRITES {
            for nth in 1.. {
                let mut reached = false;
                prepared(|world| {
                    reached = rewritten(world, to_shared, nth, what, rewrite);
                });
                if !reached {
                    break;
                }
                points += 1;
            }
        }
    }
    println!("{points} points at which a list is rewritten");
    assert!(points > 150, "{points}");
}

/// One such call; whether it has so many platform calls.
fn rewritten(world: &World<'_>, to_shared: bool, nth: u64, what: &str, rewrite: Rewrite) -> bool {
    let both = |to_shared| [FIRST, SECOND].map(|page| small(page, to_shared));
    if !to_shared {
        assert_eq!(world.convert(TARGET, &both(true)), SUCCESS);
    }
    let before = world.state(FIRST);
    world.put_conversions(
        TARGET,
        &[both(to_shared), [small(THIRD, to_shared); 2]].concat(),
    );
    header(world, LENGTH, 0);
    world.platform.recorder.take();
    let call = convert(1, TARGET);
    let victim = || world.pool(&call).0;
    let (code, attacked) = interrupted(world, nth, victim, || rewrite(world));
    let case = format!("{what} before call {nth}, {code}");
    let events = world.platform.recorder.take();
    let reads: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Read(at, bytes, _) => Some((*at, *bytes)),
            _ => None,
        })
        .collect();
    let expected_state = match to_shared {
        true => PageState::Shared,
        false => PageState::Valid,
    };
    if nth > 2 {
        assert_eq!(code, SUCCESS, "{case}");
        assert_eq!(
            reads,
            [(TARGET, 8), (TARGET + 8, 16)],
            "fetched once: {case}"
        );
        for page in [FIRST, SECOND] {
            assert_eq!(world.state(page), Some(expected_state), "{case}");
        }
    } else {
        assert!(reads.len() <= 2, "{case}: {reads:?}");
        assert!(documented(code), "{case}");
        let state = world.state(FIRST);
        assert!(state == before || state == Some(expected_state), "{case}");
    }
    if nth > 1 {
        let written: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Write(at, bytes, _) => Some((*at, bytes.len())),
                _ => None,
            })
            .collect();
        assert!(
            written.is_empty() || written == [(TARGET + 2, 2)],
            "only the cursor: {case}: {written:?}"
        );
    }
    if nth > 2 {
        // What nobody asked for when the list was fetched.
        assert_eq!(world.state(THIRD), Some(PageState::Valid), "{case}");
        assert_eq!(world.state(LARGE), Some(PageState::Invalid), "{case}");
    }
    assert_eq!(world.state(OWN), Some(PageState::Paravisor), "{case}");
    assert_eq!(world.state(page(9)), Some(PageState::Vmsa), "{case}");
    assert_ne!(world.state(TARGET), Some(PageState::Shared), "{case}");
    for event in &events {
        if let Event::Instruction(name, page) = event {
            let ours = [OWN, window(world), TARGET];
            assert!(*page == 0 || !ours.contains(page), "{name}: {case}");
        }
    }
    attacked.is_some()
}
