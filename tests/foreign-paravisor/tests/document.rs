// SPDX-License-Identifier: MIT OR Apache-2.0
//! docs/INTEGRATION.md shows the code of this crate as it is: each Rust block names the file and the marked part it is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The marked parts of a file: name and text.
fn parts(source: &str) -> Vec<(String, String)> {
    let mut parts = Vec::new();
    let mut open: Option<(String, String, usize)> = None;
    for line in source.lines() {
        let indent = line.len() - line.trim_start().len();
        match line
            .trim()
            .strip_prefix("// [")
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some("end") => {
                let (name, text, _) = open.take().expect("a part begins before it ends");
                parts.push((name, text));
            }
            Some(name) => open = Some((name.to_owned(), String::new(), indent)),
            None => {
                if let Some((_, text, indent)) = &mut open {
                    text.push_str(line.get(*indent..).unwrap_or_default());
                    text.push('\n');
                }
            }
        }
    }
    assert!(open.is_none(), "a part has no end");
    parts
}

/// The Rust blocks of the document: file, part, text.
fn blocks(document: &str) -> Vec<(String, String, String)> {
    let mut blocks = Vec::new();
    for block in document.split("```rust\n").skip(1) {
        let (text, _) = block.split_once("```").expect("a block ends");
        let (head, code) = text.split_once('\n').expect("a block has a first line");
        let (file, part) = head
            .strip_prefix("// ")
            .and_then(|head| head.strip_suffix(']'))
            .and_then(|head| head.split_once(" ["))
            .unwrap_or_else(|| panic!("a block does not say what it shows: {head}"));
        blocks.push((file.to_owned(), part.to_owned(), code.to_owned()));
    }
    blocks
}

#[test]
fn the_document_shows_the_code_as_it_is() {
    let document = fs::read_to_string(root().join("docs/INTEGRATION.md")).unwrap();
    let mut shown = BTreeSet::new();
    for (file, part, code) in blocks(&document) {
        let source = fs::read_to_string(root().join(&file)).unwrap();
        let parts = parts(&source);
        let found = parts.iter().find(|(name, _)| *name == part);
        let (_, text) = found.unwrap_or_else(|| panic!("{file} has no part {part}"));
        assert!(code == *text, "{file} [{part}] reads now:\n{text}");
        shown.insert((file, part));
    }
    // And every marked part is in it.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let file = format!("tests/foreign-paravisor/src/{name}");
        for (part, _) in parts(&fs::read_to_string(&path).unwrap()) {
            assert!(
                shown.contains(&(file.clone(), part.clone())),
                "docs/INTEGRATION.md does not show {file} [{part}]"
            );
        }
    }
    assert!(shown.len() >= 8);
}
