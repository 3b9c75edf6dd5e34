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

/// The same for programs that are linked with the kernel's functions.
pub fn linked_host() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        build_in(
            "linked-platform",
            &["--profile", "dev", "--features", "linked-platform"],
            "debug",
            None,
        )
    })
}

/// The archive that a kernel links.
pub fn bare_metal() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        require_bare_metal();
        build(
            &["--release", "--target", BARE_METAL],
            &format!("{BARE_METAL}/release"),
        )
    })
}

/// The archive for one object of a kernel that is linked with its functions: optimised as a whole, without jump tables.
pub fn linked_bare_metal() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        require_bare_metal();
        build_in(
            "linked-platform",
            &[
                "--release",
                "--target",
                BARE_METAL,
                "--features",
                "linked-platform",
                "--config",
                "profile.release.lto=\"fat\"",
                "--config",
                "profile.release.codegen-units=1",
            ],
            &format!("{BARE_METAL}/release"),
            Some("-Crelocation-model=static -Cno-redzone=yes -Cjump-tables=no"),
        )
    })
}

fn require_bare_metal() {
    let libraries =
        run(Command::new("rustc").args(["--print", "target-libdir", "--target", BARE_METAL]));
    assert!(
        Path::new(libraries.trim()).exists(),
        "the Rust target {BARE_METAL} is missing: run `make setup`"
    );
}

fn build(arguments: &[&str], folder: &str) -> PathBuf {
    build_in("", arguments, folder, None)
}

/// Builds in a part of the target folder of its own: another choice of features would replace the archive.
fn build_in(part: &str, arguments: &[&str], folder: &str, flags: Option<&str>) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("cargo's scratch folder lies in its target folder")
        .join(part);
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--package", "guest-shim-c", "--lib"])
        .arg("--target-dir")
        .arg(&target)
        .args(arguments);
    if let Some(flags) = flags {
        cargo.env("RUSTFLAGS", flags);
    }
    run(&mut cargo);
    target.join(folder).join("libguest_shim_c.a")
}
