// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the bare-metal binary at its fixed address below 2 GiB (`link.ld`); the library and its
//! unit tests build as usual.

fn main() {
    println!("cargo::rerun-if-changed=link.ld");
    let bare_metal = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none");
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    if bare_metal {
        println!("cargo::rustc-link-arg-bins=-T{folder}/link.ld");
    }
}
