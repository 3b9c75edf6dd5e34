// SPDX-License-Identifier: MIT OR Apache-2.0
//! Words of pages.

use loom::sync::atomic::AtomicU8;
use loom::thread;
use snp::address::PAGE_SIZE;
use svsm_swiotlb::page_state::{HoldError, PageState, PageStates, RamRange, RamRanges};

use crate::{BASE, Guarded};

fn pages(count: u64) -> &'static PageStates<'static> {
    let range = RamRange::new(BASE, count * PAGE_SIZE);
    let list: &'static mut [RamRange] = Box::leak(Box::new([range]));
    let words: Vec<AtomicU8> = (0..count).map(|_| AtomicU8::new(1)).collect();
    let states = PageStates::new(RamRanges::new(list).unwrap(), words.leak()).unwrap();
    Box::leak(Box::new(states))
}

#[test]
fn p5_one_at_a_time_has_a_page() {
    loom::model(|| {
        let pages = pages(1);
        let page = Guarded::new();
        let access = move |page: &Guarded| match pages.hold(BASE, &[PageState::Valid]) {
            Ok(held) => {
                page.touch();
                held.keep();
                1
            }
            Err(HoldError::Busy) => 0,
            Err(error) => panic!("{error:?}"),
        };
        let other = thread::spawn({
            let page = page.clone();
            move || access(&page)
        });
        let sum = access(&page) + other.join().unwrap();
        assert!(sum >= 1);
        assert_eq!(page.touches(), sum);
        assert_eq!(pages.state(BASE), Some(PageState::Valid));
    });
}

#[test]
fn p5_a_page_that_was_converted_is_not_read() {
    loom::model(|| {
        let pages = pages(1);
        let page = Guarded::new();
        let converter = thread::spawn({
            let page = page.clone();
            move || {
                let Ok(held) = pages.hold_run(BASE, PAGE_SIZE, PageState::Valid) else {
                    return false;
                };
                page.touch();
                held.change_to(PageState::Invalid);
                true
            }
        });
        let read = match pages.hold(BASE, &[PageState::Valid]) {
            Ok(held) => {
                page.touch();
                held.keep();
                true
            }
            Err(HoldError::Busy | HoldError::WrongState(PageState::Invalid)) => false,
            Err(error) => panic!("{error:?}"),
        };
        let converted = converter.join().unwrap();
        assert!(read || converted);
        assert_eq!(page.touches(), u64::from(read) + u64::from(converted));
        let expected = if converted {
            PageState::Invalid
        } else {
            PageState::Valid
        };
        assert_eq!(pages.state(BASE), Some(expected));
    });
}

#[test]
fn p5_overlapping_runs_of_pages_are_taken_whole_or_not() {
    loom::model(|| {
        let pages = pages(3);
        let middle = Guarded::new();
        let take = move |first: u64, middle: &Guarded| {
            let base = BASE.checked_add(first * PAGE_SIZE).unwrap();
            match pages.hold_run(base, 2 * PAGE_SIZE, PageState::Valid) {
                Ok(held) => {
                    middle.touch();
                    held.keep();
                    true
                }
                Err(HoldError::Busy) => false,
                Err(error) => panic!("{error:?}"),
            }
        };
        let other = thread::spawn({
            let middle = middle.clone();
            move || take(0, &middle)
        });
        let both = [take(1, &middle), other.join().unwrap()];
        let taken = both.iter().filter(|taken| **taken).count();
        assert_eq!(middle.touches(), taken as u64);
        for page in 0..3 {
            let address = BASE.checked_add(page * PAGE_SIZE).unwrap();
            assert_eq!(pages.state(address), Some(PageState::Valid), "page {page}");
        }
    });
}
