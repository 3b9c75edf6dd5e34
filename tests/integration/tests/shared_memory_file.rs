// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invariant S1 as far as the source shows it: one file of the shim touches pool memory, and nothing makes a reference
//! to it. What the copies do is tested where they are (`guest-shim/src/shared_memory.rs`).

use std::fs;
use std::path::{Path, PathBuf};

/// The one file.
const COPIES: &str = "shared_memory.rs";

/// What reads or writes through a pointer.
const ACCESSES: [&str; 12] = [
    "read_volatile",
    "write_volatile",
    "read_unaligned",
    "write_unaligned",
    "copy_nonoverlapping",
    "copy_bytes",
    "write_bytes",
    "ptr::copy",
    "ptr::read",
    "ptr::write",
    "asm!",
    "transmute",
];

/// What makes a reference out of a pointer.
const REFERENCES: [&str; 6] = [
    "from_raw_parts",
    "slice_from_raw",
    "from_ptr_range",
    ".as_uninit",
    "&*",
    "&mut *",
];

/// Files that make references to private memory through a pointer: what the shim's lock guards.
const PRIVATE: [&str; 1] = ["lock.rs"];

/// The file that reads the cursor of a list, private memory that the service writes during a call.
const LIST: &str = "convert.rs";

/// The shim's sources, without its tests.
fn sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            match name {
                "tests" | "loom_tests" => {}
                _ if path.is_dir() => walk(&path, found),
                _ => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-shim/src");
    walk(&root, &mut found);
    found
}

/// Lines of code, without comments and without the tests at the end of a file.
fn code(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn s1_one_file_touches_pool_memory_and_makes_no_reference_to_it() {
    let sources = sources();
    assert!(sources.len() > 20, "the sources were found");
    let mut copies_seen = 0;
    for path in sources {
        let copies = path.ends_with(COPIES);
        for line in code(&path) {
            let used = |words: &[&str]| words.iter().any(|word| line.contains(word));
            assert!(
                copies || path.ends_with(LIST) || !used(&ACCESSES),
                "{}: accesses memory through a pointer: {line}",
                path.display()
            );
            let private = PRIVATE.iter().any(|name| path.ends_with(name));
            assert!(
                private || !used(&REFERENCES),
                "{}: makes a reference: {line}",
                path.display()
            );
            copies_seen += usize::from(copies && used(&ACCESSES));
        }
    }
    assert!(copies_seen >= 8, "the file with the copies was read");
}
