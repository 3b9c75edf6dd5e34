// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a batch of CONVERT ends, and what its list may be.

use std::sync::Arc;

use protocol::convert::Outcome;
use reference_model::light_host::{LightHost, Surprise};
use reference_model::world::{CONVERT, with_pages};
use reference_model::{Shape, Tried, guest};
use snp::svsm::ResultCode;
use svsm_swiotlb::page_state::PageState;

use super::{LARGE, LIST, SHAPE, large, page, pages, small};

/// Nine large pages are more work than a call does.
const WIDE: Shape = Shape {
    ram_pages: 10 * LARGE,
    ..SHAPE
};

/// A list of all of them and of more small pages than a batch has entries, to shared and then to private if that is asked
/// for; the entries of each batch.
fn wide(ways: &[bool], prepare: impl FnOnce(&LightHost)) -> (Vec<usize>, Tried) {
    let pages = (0..WIDE.ram_pages).map(|number| (page(number), PageState::Valid));
    let pages = Arc::new(pages.collect());
    with_pages(LightHost::default(), CONVERT, WIDE, pages, |world| {
        let host = world.platform.inner();
        prepare(host);
        world.call(&guest::attach());
        let mut batches = Vec::new();
        for to_shared in ways {
            let few = (1..300).map(|number| small(number, *to_shared));
            let all = (1..10).map(|number| large(number, *to_shared)).chain(few);
            let list: Vec<u64> = all.collect();
            host.store(LIST, &guest::convert_list(&list));
            let mut cursor = 0;
            while cursor < list.len() {
                world.call(&guest::convert(1, LIST));
                let next = host.load(LIST + 2, 2);
                let next = usize::from(u16::from_le_bytes([next[0], next[1]]));
                assert!(next > cursor);
                batches.push(next - cursor);
                cursor = next;
            }
        }
        (batches, world.model().tried.clone())
    })
}

#[test]
#[cfg_attr(miri, ignore = "thousands of pages")]
fn p_5_9_3_p_5_9_7_batches_are_cut_by_entries_and_by_work() {
    // 253 entries; back, eight large pages are all the work of a call.
    let (batches, _) = wide(&[true, false], |_| {});
    assert_eq!(batches, [253, 55, 8, 253, 47]);
    // In small entries there are 4096 units as well.
    let (batches, _) = wide(&[true, false], LightHost::split_all);
    assert_eq!(batches, [8, 253, 47, 8, 253, 47]);
}

#[test]
fn p_5_9_1_a_list_ends_in_the_page_it_begins_in_wherever_its_batch_ends() {
    let offsets: &[u64] = if cfg!(miri) {
        &[2000]
    } else {
        &[0, 2000, 2080, 4072, 4080, 4088]
    };
    with_pages(
        LightHost::default(),
        CONVERT,
        SHAPE,
        Arc::new(pages()),
        |world| {
            world.call(&guest::attach());
            for offset in offsets {
                let room = (4096 - offset) / 8 - 1;
                for entries in [0, 1, room, room + 1, 511, 512] {
                    let entries = u16::try_from(entries).unwrap();
                    for next in [0, 1, entries.saturating_sub(1), entries] {
                        // Entries of zeros name no RAM: a header that is right is answered otherwise.
                        let [e0, e1, n0, n1] =
                            [entries.to_le_bytes(), next.to_le_bytes()].concat()[..]
                        else {
                            unreachable!()
                        };
                        let header = [e0, e1, n0, n1, 0, 0, 0, 0];
                        world.platform.inner().store(LIST + offset, &header);
                        let code = world.call(&guest::convert(1, LIST + offset)).rax;
                        let right = u64::from(entries) <= room && next < entries;
                        let wanted = match right {
                            true => ResultCode::INVALID_ADDRESS,
                            false => ResultCode::INVALID_PARAMETER,
                        };
                        assert_eq!(code, u64::from(wanted.0), "{entries} at {offset}");
                    }
                    if cfg!(miri) {
                        break;
                    }
                }
            }
        },
    );
}

#[test]
#[cfg_attr(miri, ignore = "there is no large page")]
fn p_5_9_2_an_entry_that_covers_the_list_is_refused_wherever_the_list_is_in_it() {
    with_pages(
        LightHost::default(),
        CONVERT,
        SHAPE,
        Arc::new(pages()),
        |world| {
            world.call(&guest::attach());
            for number in [0, 5, LARGE - 1] {
                let list = page(LARGE + number);
                for entries in [vec![large(1, true)], vec![small(1, true), large(1, true)]] {
                    world
                        .platform
                        .inner()
                        .store(list, &guest::convert_list(&entries));
                    world.call(&guest::convert(1, list));
                    world.call(&guest::convert(1, list));
                }
            }
            let refused = (9, ResultCode::INVALID_ADDRESS.0);
            assert!(world.model().tried.answers.contains(&refused));
        },
    );
}

#[test]
#[cfg_attr(miri, ignore = "thousands of pages")]
fn p_5_9_9_p_5_9_10_work_that_a_host_makes_is_bounded_too() {
    // It declines all of the first batch and then does what it is asked: seven large pages can be zeroed, two not.
    let (_, tried) = wide(&[true], |host| host.feed(&[128, 0, 1]));
    assert!(tried.outcomes.contains(&(true, Outcome::Zeroed)));
    assert!(tried.outcomes.contains(&(true, Outcome::Unvalidated)));
    // It splits all large pages after they were revoked: seven can be rescinded in parts.
    let (_, tried) = wide(&[true], |host| {
        host.surprise(253 * 3, Surprise::SizeMismatch);
        (1..9).for_each(|_| host.surprise(LARGE, Surprise::SizeMismatch));
    });
    assert!(tried.outcomes.contains(&(true, Outcome::Quarantined)));
}
