// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this host reads in VMPL 0's page tables and memory.

use std::borrow::ToOwned;
use std::string::String;

use snp::address::Vmpl;
use snp::operands::{RmpAdjustTarget, RmpPermissions};

use super::bench::{Bench, FREE, TABLES};
use crate::inspection::Moment;
use crate::launch::{PageToLaunch, kind};
use crate::switches::Switches;

const C: u64 = 1 << 51;
const READ: u64 = 1 | NO_EXECUTE;
const WRITE: u64 = 3 | NO_EXECUTE;
const CODE: u64 = 1;
const NO_EXECUTE: u64 = 1 << 63;
const SECRETS: u64 = FREE;
/// The last-level table.
const LAST: u64 = FREE + 0x1000;

/// A guest whose tables have these entries for pages of 4 KiB from 0 on; nothing else is mapped. Its stack is in the second.
fn bench(entries: &[u64]) -> Bench {
    let page = |gpa, kind| PageToLaunch {
        gpa,
        kind,
        bytes: &[],
        pages: 0,
    };
    let pages = [page(SECRETS, kind::SECRETS), page(LAST, kind::ZERO)];
    let mut bench = Bench::launched(Switches::new(), &pages).unwrap();
    bench.enter_long_mode();
    for entry in 0..512 {
        bench.poke(TABLES + 0x2000 + 8 * entry, 0);
    }
    bench.poke(TABLES + 0x2000, LAST | C | 3);
    for (number, entry) in (0..).zip(entries) {
        bench.poke(LAST + 8 * number, (number << 12) | C | entry);
    }
    bench.cpu.vcpu_mut().vmcb.save.rsp = 0x1800;
    bench
}

impl Bench {
    /// The one line about it, though this host looks twice.
    fn inspected(&mut self) -> String {
        for _ in 0..2 {
            let vcpu = self.cpu.at(Vmpl::Vmpl0);
            self.machine.inspect(vcpu, Moment::FirstSwitch);
        }
        let records = self.records();
        let mut lines = records.lines().filter_map(|line| {
            let rest = line.strip_prefix("inspected moment=1 ")?;
            Some(rest.to_owned())
        });
        let line = lines.next().unwrap();
        assert_eq!(lines.next(), None);
        line
    }
}

#[test]
fn pages_are_added_up_by_their_rights() {
    let mut bench = bench(&[WRITE, WRITE, 0, READ, CODE, CODE]);
    assert_eq!(
        bench.inspected(),
        "writable=8192 executable=8192 both=0 code_start=0x4000 code_end=0x6000 stack=8192 keys=2"
    );
}

#[test]
fn a_page_with_both_rights_is_found_and_an_upper_table_takes_rights_away() {
    let both = CODE | WRITE & !NO_EXECUTE;
    let line = bench(&[both, WRITE]).inspected();
    assert!(
        line.contains("both=4096 code_start=0x0 code_end=0x1000"),
        "{line}"
    );
    for (upper, words) in [
        (LAST | C | 1, "writable=0 executable=4096 both=0"),
        (
            LAST | C | 3 | NO_EXECUTE,
            "writable=8192 executable=0 both=0",
        ),
        // A large page.
        (C | 0x83, "writable=2097152 executable=2097152 both=2097152"),
    ] {
        let mut bench = bench(&[both, WRITE]);
        bench.poke(TABLES + 0x2000, upper);
        let line = bench.inspected();
        assert!(line.starts_with(words), "{line}");
    }
}

#[test]
fn keys_are_looked_for_in_what_is_vmpl_0_s_alone() {
    let mut bench = bench(&[WRITE, WRITE]);
    // The key of VMPL 1 once more, where a copy of the page may be.
    let key = bench.peek(SECRETS + 0x40);
    bench.poke(LAST + 0x7f8, key << 32);
    bench.poke(LAST + 0x800, key >> 32);
    let permissions = RmpPermissions::READ;
    assert!(bench.inspected().ends_with("keys=3"));
    let mut bench = self::bench(&[WRITE, WRITE]);
    bench.adjust(SECRETS, RmpAdjustTarget::grant(Vmpl::Vmpl2, permissions));
    assert!(bench.inspected().ends_with("keys=0"));
}

#[test]
fn each_moment_is_looked_at_once() {
    let mut bench = bench(&[WRITE, WRITE]);
    for moment in [
        Moment::FirstRequest,
        Moment::FirstSwitch,
        Moment::FurtherProcessor,
        Moment::FurtherProcessor,
    ] {
        let vcpu = bench.cpu.at(Vmpl::Vmpl0);
        bench.machine.inspect(vcpu, moment);
    }
    let records = bench.records();
    for moment in 0..3 {
        let line = std::format!("inspected moment={moment} ");
        assert_eq!(records.matches(line.as_str()).count(), 1, "{records}");
    }
}

#[test]
fn nothing_is_said_before_there_are_tables() {
    let mut bench = Bench::launched(Switches::new(), &[]).unwrap();
    let vcpu = bench.cpu.at(Vmpl::Vmpl0);
    bench.machine.inspect(vcpu, Moment::FirstRequest);
    assert!(!bench.records().contains("inspected"));
    bench.enter_long_mode();
    let vcpu = bench.cpu.at(Vmpl::Vmpl0);
    bench.machine.inspect(vcpu, Moment::FirstRequest);
    assert!(bench.records().contains("inspected moment=0"));
}
