// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dependencies point one way (docs/ARCHITECTURE.md): the table below is the whole graph, and any
//! other arrow between two crates of the workspace fails.

use std::collections::{BTreeMap, BTreeSet};

/// Crate, the crates of this workspace it may depend on, whether it is a test crate.
const ALLOWED: [(&str, &[&str], bool); 17] = [
    ("snp", &[], false),
    ("protocol", &["snp"], false),
    ("svsm-swiotlb", &["protocol", "snp"], false),
    ("guest-shim", &["protocol", "snp"], false),
    ("guest-shim-c", &["guest-shim", "protocol", "snp"], false),
    // Builds guest-shim-c by its name; links nothing of it.
    ("module-object", &[], false),
    ("bench", &["guest-shim", "protocol", "snp"], true),
    ("fuzz", &["guest-shim", "protocol", "snp"], true),
    ("paravisor", &["svsm-swiotlb", "protocol", "snp"], false),
    ("igvm-builder", &["paravisor", "snp"], false),
    ("snp-model", &["svsm-swiotlb", "snp"], true),
    (
        "reference-model",
        &["protocol", "snp-model", "snp", "svsm-swiotlb"],
        true,
    ),
    ("snp-host", &["snp-model", "snp"], true),
    (
        "foreign-paravisor",
        &["protocol", "snp", "snp-model", "svsm-swiotlb"],
        true,
    ),
    (
        "test-guest",
        &["guest-shim", "paravisor", "protocol", "snp"],
        true,
    ),
    (
        "runner",
        &[
            "igvm-builder",
            "paravisor",
            "protocol",
            "snp-host",
            "snp",
            "svsm-swiotlb",
        ],
        true,
    ),
    (
        "integration",
        &[
            "guest-shim",
            "igvm-builder",
            "paravisor",
            "protocol",
            "reference-model",
            "runner",
            "snp-model",
            "snp",
            "svsm-swiotlb",
        ],
        true,
    ),
];

fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .no_deps()
        .exec()
        .expect("cargo metadata answers");
    let members: BTreeSet<_> = metadata
        .packages
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    metadata
        .packages
        .iter()
        .map(|package| {
            let own = package
                .dependencies
                .iter()
                .map(|dependency| dependency.name.clone());
            (
                package.name.to_string(),
                own.filter(|name| members.contains(name)).collect(),
            )
        })
        .collect()
}

#[test]
fn no_arrow_but_the_allowed_ones() {
    let arrows = arrows();
    let known: BTreeSet<_> = ALLOWED.iter().map(|row| row.0.to_owned()).collect();
    assert_eq!(
        arrows.keys().cloned().collect::<BTreeSet<_>>(),
        known,
        "a crate without a row in the table"
    );
    for (name, allowed, _) in ALLOWED {
        for target in &arrows[name] {
            assert!(
                allowed.contains(&target.as_str()),
                "{name} must not depend on {target}"
            );
        }
    }
}

#[test]
fn nothing_depends_on_a_test_crate_but_tests() {
    let tests: BTreeSet<_> = ALLOWED
        .iter()
        .filter(|row| row.2)
        .map(|row| row.0)
        .collect();
    for (name, targets) in arrows() {
        if tests.contains(name.as_str()) {
            continue;
        }
        for target in targets {
            assert!(
                !tests.contains(target.as_str()),
                "{name} is no test and depends on {target}"
            );
        }
    }
}

#[test]
fn the_trusted_crates_have_a_short_dependency_list() {
    let metadata = cargo_metadata::MetadataCommand::new()
        .no_deps()
        .exec()
        .expect("cargo metadata answers");
    let trusted = [
        "bitfield-struct",
        "igvm_defs",
        "log",
        "spin",
        "x86_64",
        "zerocopy",
    ];
    for package in metadata.packages {
        if !["snp", "protocol", "svsm-swiotlb", "paravisor"].contains(&package.name.as_str()) {
            continue;
        }
        for dependency in package.dependencies {
            let own = dependency.path.is_some();
            let normal = dependency.kind == cargo_metadata::DependencyKind::Normal;
            // The model checker is linked into its own builds and into no image.
            let target = dependency.target.as_ref();
            let checker = target.is_some_and(|target| target.to_string() == "cfg(loom)");
            assert!(
                own || !normal || checker || trusted.contains(&dependency.name.as_str()),
                "{} gained the dependency {}: say why in docs/DEPENDENCIES.md and add it here",
                package.name,
                dependency.name
            );
        }
    }
}
