// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replays the corpus: cases that the fuzzer found worth keeping, and those that once failed.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use fuzz::engine::{run, step};
use fuzz::script::Script;

/// Under Miri, what takes a minute: the shortest.
const MOST: usize = if cfg!(miri) { 1 } else { usize::MAX };

fn cases(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "ops"))
        .collect();
    // The shortest first.
    cases.sort_by_key(|path| {
        (
            fs::metadata(path).map_or(0, |data| data.len()),
            path.clone(),
        )
    });
    assert!(!cases.is_empty(), "no *.ops in {}", folder.display());
    cases
}

fn replay(folder: &str) {
    let mut failed = Vec::new();
    for path in cases(folder).iter().take(MOST) {
        let name = path.display();
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let script = Script::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!script.operations.is_empty(), "{name}: no operations");
        if catch_unwind(|| run(&script)).is_err() {
            failed.push(format!("{name}, step {:?}", step()));
        }
    }
    assert!(
        failed.is_empty(),
        "these cases fail, replay them with `cargo run -p fuzz --example replay run FILE`:\n{}",
        failed.join("\n")
    );
}

#[test]
fn the_corpus_agrees_with_the_model() {
    replay("corpus");
}

#[test]
fn what_once_failed_does_not_fail_again() {
    replay("regressions");
}

#[test]
fn text_and_bytes_are_the_same_case() {
    for path in cases("corpus").iter().take(MOST) {
        let script = Script::parse(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(Script::parse(&script.to_text()), Ok(script.clone()));
        assert_eq!(Script::from_bytes(&script.to_bytes()), script);
    }
    let error = Script::parse("0000 0000 0000 0000\n12 # short").unwrap_err();
    assert_eq!(error, "line 2: not eight bytes in hexadecimal");
}
