// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes stored cases for the fuzz targets: random cases that each show a call, an answer or an outcome of CONVERT that no
//! earlier one showed, cut as short as they still show it.
//!
//! `cargo run --release -p reference-model --example corpus -- FOLDER CASES`

use std::path::Path;
use std::{env, fs};

use reference_model::{Tried, drive};

/// A fuzz target.
type Target = fn(&[u8]) -> Tried;

const TARGETS: [(&str, Target); 4] = [
    ("decode", drive::decode),
    ("calls", drive::calls),
    ("hostile_host", drive::hostile_host),
    ("machine", drive::machine),
];

/// xorshift64*: the same cases every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = 16 + self.next() % 480;
        (0..length).map(|_| self.next().to_le_bytes()[5]).collect()
    }
}

/// Whether `more` has something that `seen` has not.
fn shows_more(seen: &Tried, more: &Tried) -> bool {
    !(more.answers.is_subset(&seen.answers) && more.outcomes.is_subset(&seen.outcomes))
}

fn whats_new(seen: &Tried, more: &Tried) -> Tried {
    Tried {
        answers: &more.answers - &seen.answers,
        outcomes: &more.outcomes - &seen.outcomes,
    }
}

/// The shortest beginning that shows the same.
fn shortest(run: Target, case: &[u8], wanted: &Tried) -> usize {
    let (mut enough, mut short) = (case.len(), 0);
    while short < enough {
        let middle = usize::midpoint(short, enough);
        if !shows_more(&run(&case[..middle]), wanted) {
            enough = middle;
        } else {
            short = middle + 1;
        }
    }
    enough
}

fn main() {
    let mut arguments = env::args().skip(1);
    let folder = arguments.next().expect("a folder");
    let cases: u64 = arguments
        .next()
        .map_or(20_000, |n| n.parse().expect("a number"));
    for (target, run) in TARGETS {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder).expect("a folder");
        let (mut random, mut seen, mut stored) = (Random(0x5EED), Tried::default(), 0);
        for _ in 0..cases {
            let case = random.bytes();
            let tried = run(&case);
            if shows_more(&seen, &tried) {
                let wanted = whats_new(&seen, &tried);
                let case = &case[..shortest(run, &case, &wanted)];
                fs::write(folder.join(format!("case_{stored:02}")), case).expect("a file");
                stored += 1;
                seen.answers.extend(&wanted.answers);
                seen.outcomes.extend(&wanted.outcomes);
            }
        }
        println!("{target}: {stored} of {cases} cases, {seen:x?}");
    }
}
