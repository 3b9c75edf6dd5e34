// SPDX-License-Identifier: MIT OR Apache-2.0
//! Row by row: who attacks, and what is answered.

use super::catalogue::CATALOGUE;
use super::hooks::HOOKS;
use super::qemu_tests::is_there;
use crate::core_world::{World, world};

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
            Self::Not(reason) => println!("{row:4} {persona}: not tested, {reason}"),
        }
    }
}

#[test]
fn every_row_of_the_catalogue_and_every_hook() {
    for (row, persona, cover) in CATALOGUE {
        cover.check(row, persona);
    }
    for (hook, cover) in HOOKS {
        cover.check("hook", hook);
    }
    for row in "ABCDEFGHIJKLMN".chars() {
        let covered = CATALOGUE.iter().any(|(name, ..)| *name == row.to_string());
        assert!(covered, "row {row}");
    }
}
