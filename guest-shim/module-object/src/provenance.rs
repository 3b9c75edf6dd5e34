// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where an object comes from, in words that lead to the same bytes again.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::RUST_FLAGS;

/// The text that goes with the object `bytes` built from `tree`: commit, compiler, options, digest, how to rebuild it.
///
/// # Errors
/// One line if git or the compiler do not answer.
pub fn provenance(
    tree: &Path,
    bytes: &[u8],
    features: &str,
    entries: usize,
) -> Result<String, String> {
    let commit = answer(tree, "git", &["rev-parse", "HEAD"])?;
    let changed = !answer(tree, "git", &["status", "--porcelain"])?.is_empty();
    let compiler = answer(tree, "rustc", &["--version", "--verbose"])?;
    let digest = Sha256::digest(bytes);
    let mut text = String::new();
    let hexadecimal = digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let _ = writeln!(
        text,
        "svsm_swiotlb_shim.o_shipped: the Rust part of svsm_swiotlb.ko, {entries} entries, {} bytes",
        bytes.len()
    );
    let _ = writeln!(text, "sha256: {hexadecimal}");
    let _ = writeln!(
        text,
        "commit: {commit}{}",
        if changed {
            " and changes that are not committed"
        } else {
            ""
        }
    );
    let _ = writeln!(text, "features: {features}");
    let _ = writeln!(text, "flags: {}", RUST_FLAGS.join(" "));
    let _ = writeln!(
        text,
        "rebuild: git checkout {commit} && make module-object; compare target/module/object/svsm_swiotlb_shim.o_shipped"
    );
    let _ = writeln!(text, "compiler:");
    for line in compiler.lines() {
        let _ = writeln!(text, "  {line}");
    }
    Ok(text)
}

fn answer(tree: &Path, program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .current_dir(tree)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program} cannot be started ({error}); install it"))?;
    if !output.status.success() {
        return Err(format!(
            "'{program} {}' failed in {}; run it by hand to see why",
            arguments.join(" "),
            tree.display()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}
