// SPDX-License-Identifier: MIT OR Apache-2.0
//! Row by row: who attacks, and what is answered.

use std::collections::BTreeSet;

use super::catalogue::CATALOGUE;
use super::hooks::{CONTRACT, FURTHER, HOOKS};
use super::qemu_tests::is_there;
use crate::core_world::{World, world};

/// Rows of the catalogue.
const ROWS: [&str; 15] = [
    "A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M", "N", "O",
];
/// The rows that nothing here covers. A row that leaves or joins them is changed by hand.
const NOT_COVERED: [&str; 2] = ["M", "N"];

/// How a row is covered.
pub enum Cover {
    /// By this, in process; the text says what is answered.
    Here(&'static str, fn(&World<'_>)),
    /// By this test of this file of tests/qemu.
    Qemu(&'static str, &'static str),
    /// Not, and why.
    Not(&'static str),
}

impl Cover {
    const fn is_tested(&self) -> bool {
        !matches!(self, Self::Not(_))
    }

    fn check(&self, row: &str, persona: &str) {
        match self {
            Self::Here(answer, attack) => {
                world(|world| {
                    attack(world);
                    world.check();
                });
                println!("{row:4} {persona}: {answer}");
            }
            Self::Qemu(file, test) => {
                assert!(is_there(file, test), "{file}: {test} is gone");
                println!("{row:4} {persona}: on QEMU, {file}: {test}");
            }
            Self::Not(_) => {}
        }
    }
}

/// The names that are covered, and those that are not, whatever else is said of them.
fn names(table: &'static [(&str, &str, Cover)]) -> [BTreeSet<&'static str>; 2] {
    let with = |tested| {
        let rows = table.iter().filter(move |row| row.2.is_tested() == tested);
        rows.map(|(name, ..)| *name).collect()
    };
    [with(true), with(false)]
}

#[test]
fn every_row_of_the_catalogue_and_every_hook() {
    for (name, persona, cover) in CATALOGUE {
        cover.check(name, persona);
    }
    for (hook, persona, cover) in HOOKS {
        cover.check(&format!("hook {hook}"), persona);
    }
    let tested = |table: &[(_, _, Cover)]| table.iter().filter(|row| row.2.is_tested()).count();
    println!(
        "{} rows and {} hooks are tested; not tested are:",
        tested(CATALOGUE),
        tested(HOOKS)
    );
    for (name, persona, cover) in CATALOGUE.iter().chain(HOOKS) {
        if let Cover::Not(reason) = cover {
            println!("{name:4} {persona}: {reason}");
        }
    }
}

#[test]
fn rows_and_hooks_are_those_of_the_lists() {
    let [covered, not] = names(CATALOGUE);
    assert_eq!(not, BTreeSet::from(NOT_COVERED), "rows that nothing covers");
    assert!(covered.is_disjoint(&not), "a row is both: {not:?}");
    let all: BTreeSet<_> = covered.union(&not).copied().collect();
    assert_eq!(all, BTreeSet::from(ROWS));
    let [covered, not] = names(HOOKS);
    assert_eq!(not, BTreeSet::new(), "hooks that nothing covers");
    let all = CONTRACT.into_iter().chain(FURTHER).collect();
    assert_eq!(covered, all, "hooks");
}
