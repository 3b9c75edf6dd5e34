// SPDX-License-Identifier: MIT OR Apache-2.0
//! The committed header is the one that belongs to the sources.

use std::collections::BTreeSet;

#[path = "../../examples/generate_header/render.rs"]
mod render;

/// Names of the functions that the committed header declares and the library defines.
pub fn functions() -> BTreeSet<String> {
    declared(|line| !line.starts_with("extern "))
}

/// Names of the functions that the kernel defines where it is linked with the library.
pub fn kernel_functions() -> BTreeSet<String> {
    declared(|line| line.starts_with("extern ") && line.contains('('))
}

fn declared(wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let text = std::fs::read_to_string(render::committed()).expect("the header is committed");
    text.lines()
        .filter(|line| wanted(line))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()))
        .filter_map(|line| line.split_once('(').map(|(before, _)| before))
        .filter_map(|before| before.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("svsm_swiotlb_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn header_matches_the_sources() {
    let wanted = render::render().unwrap_or_else(|cause| panic!("cbindgen: {cause}"));
    let committed = std::fs::read_to_string(render::committed()).unwrap_or_default();
    assert!(
        committed == wanted,
        "{} differs from the sources: run `make header`",
        render::committed().display()
    );
}
