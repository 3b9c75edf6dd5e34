// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running the C tools.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the C sources of this package must pass without a word.
pub const WARNINGS: [&str; 8] = [
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wpedantic",
    "-Wshadow",
    "-Wconversion",
    "-Wstrict-prototypes",
];

/// A path in this package.
pub fn package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A folder for one test's build results.
pub fn scratch(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("c-interface")
        .join(test);
    std::fs::create_dir_all(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}; is the disk full?", folder.display()));
    folder
}

/// The C compiler: `$CC`, or gcc.
pub fn compiler() -> Command {
    Command::new(std::env::var_os("CC").unwrap_or_else(|| "gcc".into()))
}

/// Runs a command to its end and returns what it printed.
pub fn run(command: &mut Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().unwrap_or_else(|error| match error.kind() {
        ErrorKind::NotFound => panic!("{name} is missing: install gcc and binutils, or set CC"),
        _ => panic!("{name} could not be run: {error}"),
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{name} failed ({}), its output says why:\n{text}{errors}",
        output.status
    );
    text
}
