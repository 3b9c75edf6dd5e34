// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running the compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

/// Name of the object in the package; not `.o`, which `make clean` of a kernel removes.
pub const OBJECT_NAME: &str = "svsm_swiotlb_shim.o_shipped";

/// What the code is compiled with, the core library included.
///
/// As the kernel compiles its own Rust code (its arch/x86/Makefile and scripts/generate_rust_target.rs): returns through
/// `__x86_return_thunk`, indirect branches through `__x86_indirect_thunk_*` with room for what the kernel patches in,
/// landing pads where a function's address is taken. Stable but for the `-Z` options, which is why [`compile`] unlocks them.
pub const RUST_FLAGS: [&str; 10] = [
    // Modules lie in the top 2 GiB and are relocated by the loader, which knows no table of addresses.
    "-Crelocation-model=static",
    "-Zplt=yes",
    // An interrupt handler uses the same stack.
    "-Cno-redzone=yes",
    // A jump through a table is an indirect branch without a landing pad.
    "-Cjump-tables=no",
    "-Zfunction-return=thunk-extern",
    "-Zretpoline-external-thunk",
    "-Zindirect-branch-cs-prefix",
    "-Zcf-protection=branch",
    // One section of code, one of constants; what nobody calls is gone before that.
    "-Zfunction-sections=no",
    // The two options that change how code is called, for the crates of the core library built beside.
    "-Cunsafe-allow-abi-mismatch=retpoline,retpoline-external-thunk,indirect-branch-cs-prefix",
];

/// Why there is no object.
#[derive(Debug, Error)]
pub enum CompileError {
    /// The compiler cannot be started.
    #[error("{program} cannot be started ({cause}); install rustup from https://rustup.rs")]
    NotStarted {
        /// What was to be run.
        program: String,
        /// The system's word.
        cause: std::io::Error,
    },
    /// The compiler reports an error.
    #[error("the compiler failed: {0}")]
    Failed(String),
    /// The compiler reports success and there is no object.
    #[error("{0} is not there after the build; remove its folder and run this again")]
    Missing(PathBuf),
}

/// Builds the library in `tree` and returns where its object lies, below `target`.
///
/// The core library is built from its sources with the same options: the one that comes with the compiler has bare
/// returns and calls memcpy through a table.
///
/// # Errors
/// [`CompileError`] if the compiler cannot be started, fails or leaves no object.
pub fn compile(tree: &Path, target: &Path, features: &str) -> Result<PathBuf, CompileError> {
    let object = target.join("svsm_swiotlb_shim.o");
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(&program)
        .current_dir(tree)
        .args(["rustc", "--quiet", "--locked", "-Zbuild-std=core"])
        .args(["--package", "guest-shim-c", "--lib", "--release"])
        .args(["--target", "x86_64-unknown-none", "--crate-type=staticlib"])
        .args(["--features", features])
        .arg("--target-dir")
        .arg(target)
        .args(["--", "--emit"])
        .arg(format!("obj={}", object.display()))
        // Unlocks the options on a stable compiler, as the kernel's own build does.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", RUST_FLAGS.join("\x1f"))
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_INCREMENTAL", "0")
        .output()
        .map_err(|cause| CompileError::NotStarted { program, cause })?;
    if !output.status.success() {
        return Err(CompileError::Failed(first_error(&output.stderr)));
    }
    if !object.is_file() {
        return Err(CompileError::Missing(object));
    }
    Ok(object)
}

/// The compiler's first line that says what is wrong, with the remedy for the one that a fresh machine gives.
fn first_error(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    if text.contains("rust-src") {
        return "the sources of Rust's core library are missing; run 'rustup component add rust-src'".into();
    }
    text.lines()
        .find(|line| line.starts_with("error"))
        .or_else(|| text.lines().last())
        .unwrap_or("no message")
        .trim_start_matches("error: ")
        .into()
}
