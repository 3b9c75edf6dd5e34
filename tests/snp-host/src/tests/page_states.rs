// SPDX-License-Identifier: MIT OR Apache-2.0
use std::vec::Vec;

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::ghcb_msr::Request;
use snp::psc::PscOperation;

use super::bench::{Bench, FREE, SHARED};
use crate::counters::Event;
use crate::hardware::PhysicalMemory;
use crate::record::ExitCode;
use crate::shared_view::{pattern, scramble};
use crate::switches::Switches;

const PAGE: GuestPhysicalAddress = GuestPhysicalAddress::new(FREE);
const DONE: u64 = 0x15;

impl Bench {
    fn change(&mut self, page: GuestPhysicalAddress, operation: PscOperation) -> u64 {
        self.request(Request::page_state_change(page, operation).encode())
    }
}

#[test]
fn a_shared_page_shows_the_pattern_and_a_private_one_garbage() {
    let mut bench = Bench::new();
    bench.validate(FREE);
    bench.poke(FREE, 0x005E_C2E7);
    assert_eq!(bench.change(PAGE, PscOperation::Shared), DONE);
    assert_eq!(bench.machine.hardware.read_u64(FREE), pattern(FREE));
    assert_eq!(bench.machine.shared_view.shared_bytes(), 4096);
    bench.machine.hardware.write_u64(FREE, 7);
    assert_eq!(bench.change(PAGE, PscOperation::Private), DONE);
    assert_eq!(bench.machine.hardware.read_u64(FREE), pattern(FREE));
    assert_eq!(bench.peek(FREE), scramble(FREE));
    assert_eq!(bench.machine.counters.events(Event::PatternBad), 0);
    let records = bench.records();
    assert!(
        records.contains("op=shared gpa=0x500000 bytes=4096 total_shared=4096\n"),
        "{records}"
    );
    assert!(records.contains("op=private gpa=0x500000 bytes=4096 total_shared=0\n"));
}

#[test]
fn a_shared_page_that_changes_under_the_watch_is_told() {
    let mut bench = Bench::new();
    let pages: Vec<_> = (0..5).map(|page| FREE + 4096 * page).collect();
    for page in &pages {
        bench.validate(*page);
    }
    // One is shared after the watch began.
    for page in &pages[..4] {
        bench.change(GuestPhysicalAddress::new(*page), PscOperation::Shared);
    }
    bench.machine.note_protocol_page(pages[2]);
    bench.machine.watch_shared_pages();
    bench.change(GuestPhysicalAddress::new(pages[4]), PscOperation::Shared);
    for page in [pages[0], pages[1], pages[2], pages[4]] {
        bench.machine.hardware.write_u64(page + 4088, 1);
    }
    // Watched once: what it holds now is no new beginning.
    bench.machine.watch_shared_pages();
    // What is given back is compared first.
    bench.change(GuestPhysicalAddress::new(pages[0]), PscOperation::Private);
    assert_eq!(bench.machine.finish(ExitCode::Success), ExitCode::Success);
    let records = bench.records();
    let changes: Vec<_> = records
        .lines()
        .filter(|line| line.starts_with("changed "))
        .collect();
    assert_eq!(
        changes,
        [
            "changed gpa=0x500000 bytes=8192 protocol=0",
            "changed gpa=0x502000 bytes=4096 protocol=1",
        ]
    );
    assert_eq!(bench.machine.counters.events(Event::SharedWatched), 4);
    assert_eq!(bench.machine.counters.events(Event::SharedChanged), 3);
}

#[test]
fn asking_for_a_private_page_again_keeps_its_content() {
    let mut bench = Bench::new();
    bench.validate(FREE);
    bench.poke(FREE, 42);
    assert_eq!(bench.change(PAGE, PscOperation::Private), DONE);
    assert_eq!(bench.peek(FREE), 42);
    let index = bench.index(FREE);
    assert!(bench.rmp().entry(index).unwrap().validated);
}

#[test]
fn a_write_where_nothing_is_shared_is_found() {
    let mut bench = Bench::new();
    bench.machine.hardware.write_u64(FREE + 24, 1);
    assert_eq!(bench.change(PAGE, PscOperation::Shared), DONE);
    assert_eq!(bench.machine.counters.events(Event::PatternBad), 1);
    assert!(
        bench
            .records()
            .contains("pattern gpa=0x500000 offset=0x18 found=0x1")
    );

    let mut bench = Bench::new();
    bench.machine.hardware.write_u64(0x70_0000, 1);
    assert_eq!(
        bench.machine.finish(ExitCode::Success),
        ExitCode::PatternDamaged
    );
    assert!(bench.records().contains("exit code=5"));
    // Video memory is no RAM; a shared page may hold anything.
    let mut bench = Bench::new();
    bench.machine.hardware.write_u64(0xA_0000, 1);
    bench.change(PAGE, PscOperation::Shared);
    bench.machine.hardware.write_u64(FREE, 1);
    assert_eq!(bench.machine.finish(ExitCode::Success), ExitCode::Success);
    assert_eq!(bench.machine.finish(ExitCode::Died), ExitCode::Died);
}

#[test]
fn large_changes_are_large_entries_unless_switched_off() {
    for (switches, large) in [
        (Switches::new(), true),
        (Switches::new().with_small_pages_only(true), false),
    ] {
        let mut bench = Bench::with(switches);
        let index = bench.index(0x60_0000);
        bench
            .machine
            .convert(index, PageSize::Size2M, false)
            .unwrap();
        assert_eq!(bench.rmp().entry(index + 511).unwrap().large, large);
        assert!(
            bench
                .machine
                .convert(index + 1, PageSize::Size2M, true)
                .is_err()
        );
        assert_eq!(
            bench.change(GuestPhysicalAddress::new(0x60_1000), PscOperation::Shared),
            DONE
        );
        assert_eq!(
            bench.machine.counters.events(Event::Psmash),
            u64::from(large)
        );
        assert!(bench.rmp().entry(index).unwrap().assigned);
        assert!(!bench.rmp().entry(index + 1).unwrap().assigned);
    }
}

#[test]
fn what_is_no_ram_cannot_change() {
    let mut bench = Bench::new();
    let beyond = GuestPhysicalAddress::new(SHARED * 4);
    assert_ne!(bench.change(beyond, PscOperation::Shared), DONE);
    let index = bench.index(FREE);
    assert!(!bench.rmp().entry(index).unwrap().assigned);
    assert_ne!(bench.request((9 << 52) | FREE | 0x14), DONE);
}
