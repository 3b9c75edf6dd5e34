// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random bytes as calls and hosts, each call judged by the model; and the stored cases of the fuzz targets.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use reference_model::{Tried, drive};

/// What a fuzz target runs.
type Target = fn(&[u8]) -> Tried;

/// The fuzz targets of tests/fuzz/libfuzzer, which are also the folders of their cases.
const TARGETS: [(&str, Target); 4] = [
    ("decode", drive::decode),
    ("calls", drive::calls),
    ("hostile_host", drive::hostile_host),
    ("machine", drive::machine),
];

/// Random cases of each property; those on the machine take longer.
const CASES: u32 = if cfg!(miri) { 4 } else { 2000 };
const MACHINE_CASES: u32 = if cfg!(miri) { 2 } else { 300 };

#[test]
fn the_stored_cases_agree_with_the_model() {
    for (target, run) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(target);
        let mut cases = 0;
        for file in fs::read_dir(&folder).expect("the folder is there") {
            run(&fs::read(file.unwrap().path()).unwrap());
            cases += 1;
        }
        assert!(cases > 0, "{target} has no cases");
        println!("{target}: {cases} cases");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) })]

    #[test]
    fn c2_text_and_code_read_registers_alike(bytes in vec(any::<u8>(), 0..64)) {
        drive::decode(&bytes);
    }

    #[test]
    fn w2_p3_random_calls_agree_with_the_model(bytes in vec(any::<u8>(), 0..400)) {
        drive::calls(&bytes);
    }

    #[test]
    fn p4_random_replies_agree_with_the_model(bytes in vec(any::<u8>(), 0..600)) {
        drive::hostile_host(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(MACHINE_CASES) })]

    #[test]
    fn w1_p5_a_machine_whose_host_takes_pages_away_agrees_with_the_model(
        bytes in vec(any::<u8>(), 0..300),
    ) {
        drive::machine(&bytes);
    }
}
