// SPDX-License-Identifier: MIT OR Apache-2.0
//! The C header, as cbindgen derives it from the sources. Shared with the test that compares it with the committed one.

use std::path::{Path, PathBuf};

/// Where the committed header is.
pub fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include/svsm_swiotlb.h")
}

/// The header that belongs to the sources.
///
/// # Errors
/// What cbindgen does not understand.
pub fn render() -> Result<String, String> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(package.join("cbindgen.toml"))?;
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_crate(package)
        .generate()
        .map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).map_err(|error| error.to_string())
}
