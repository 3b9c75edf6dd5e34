// SPDX-License-Identifier: MIT OR Apache-2.0
//! Building the archives as a C project would, through cargo.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::commands::run;

const BARE_METAL: &str = "x86_64-unknown-none";

/// The archive for programs on this machine, with overflow checks and debug assertions.
pub fn host() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| build(&["--profile", "dev"], "debug"))
}

/// The archive that a kernel links.
pub fn bare_metal() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let libraries =
            run(Command::new("rustc").args(["--print", "target-libdir", "--target", BARE_METAL]));
        assert!(
            Path::new(libraries.trim()).exists(),
            "the Rust target {BARE_METAL} is missing: run `make setup`"
        );
        build(
            &["--release", "--target", BARE_METAL],
            &format!("{BARE_METAL}/release"),
        )
    })
}

fn build(arguments: &[&str], folder: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("cargo's scratch folder lies in its target folder");
    run(Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--package", "guest-shim-c", "--lib"])
        .arg("--target-dir")
        .arg(target)
        .args(arguments));
    target.join(folder).join("libguest_shim_c.a")
}
