// SPDX-License-Identifier: MIT OR Apache-2.0
//! The crates that go into a foreign paravisor state a language level of 1.88, and nothing beneath them needs a later one
//! as far as it says. Whether the code keeps to it is clippy's `incompatible_msrv` and `make language-level`.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, MetadataCommand, PackageId};

const LEVEL: (u64, u64) = (1, 88);
const CRATES: [&str; 4] = ["snp", "protocol", "svsm-swiotlb", "foreign-paravisor"];
/// Crates that state no level. They are released together with one that does, at the same version.
const SILENT: [&str; 1] = ["zerocopy-derive"];

#[test]
fn nothing_beneath_the_service_needs_a_later_language() {
    // Of the one target: crates of others are not there, nothing has built them.
    let metadata = MetadataCommand::new()
        .other_options(["--filter-platform", "x86_64-unknown-none"].map(String::from))
        .exec()
        .expect("cargo metadata answers");
    let resolve = metadata.resolve.as_ref().unwrap();
    let package = |id: &PackageId| {
        let mut packages = metadata.packages.iter();
        packages.find(|package| package.id == *id).unwrap().clone()
    };
    let mut seen = BTreeSet::new();
    let mut next: Vec<_> = metadata
        .packages
        .iter()
        .filter(|package| CRATES.contains(&package.name.as_str()))
        .map(|package| package.id.clone())
        .collect();
    assert_eq!(next.len(), CRATES.len());
    for id in &next {
        let level = package(id)
            .rust_version
            .as_ref()
            .map(|level| (level.major, level.minor));
        assert_eq!(level, Some(LEVEL), "{}", package(id).name);
    }
    while let Some(id) = next.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let found = package(&id);
        let name = found.name.as_str();
        match &found.rust_version {
            Some(level) => assert!((level.major, level.minor) <= LEVEL, "{name} needs {level}"),
            None => assert!(SILENT.contains(&name), "{name} states no level"),
        }
        let node = resolve.nodes.iter().find(|node| node.id == id).unwrap();
        next.extend(node.deps.iter().filter_map(|dependency| {
            // The model checker is linked into its own builds and into no image.
            let linked = |kind: &cargo_metadata::DepKindInfo| {
                let target = kind.target.as_ref().map(ToString::to_string);
                kind.kind != DependencyKind::Development && target.as_deref() != Some("cfg(loom)")
            };
            dependency
                .dep_kinds
                .iter()
                .any(linked)
                .then(|| dependency.pkg.clone())
        }));
    }
    assert!(seen.len() > CRATES.len());
}
