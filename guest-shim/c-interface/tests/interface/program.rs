// SPDX-License-Identifier: MIT OR Apache-2.0
//! The C program that uses all of the interface.

use std::process::Command;

use crate::archive;
use crate::commands::{WARNINGS, compiler, package, run, scratch};

const SOURCES: [&str; 7] = [
    "tests/c/program.c",
    "tests/c/machine.c",
    "tests/c/mapping_tests.c",
    "tests/c/thread_tests.c",
    "tests/c/memory_tests.c",
    "tests/c/orphan_tests.c",
    "tests/c/error_tests.c",
];

/// What the Rust standard library of a host needs (`rustc --print native-static-libs`).
pub const SYSTEM_LIBRARIES: [&str; 6] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

#[test]
fn c_program_passes() {
    let program = scratch("program").join("program");
    run(compiler()
        .args(WARNINGS)
        .args(["-O1", "-g", "-I"])
        .arg(package("include"))
        .args(SOURCES.map(package))
        .arg(archive::host())
        .args(SYSTEM_LIBRARIES)
        .arg("-o")
        .arg(&program));
    let report = run(&mut Command::new(&program));
    print!("{report}");
    let last = report.lines().last();
    assert_eq!(
        last,
        Some("ok all 27 errors were returned"),
        "the C program ended early"
    );
}
