// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the bare-metal binary with its linker script; the library needs none.

fn main() {
    println!("cargo:rerun-if-changed=linker.ld");
    println!("cargo:rerun-if-env-changed=CARGO_CFG_TARGET_OS");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        // layout::IMAGE_BASE
        let base = match std::env::var_os("CARGO_FEATURE_BESIDE_FIRMWARE") {
            Some(_) => "0x2f000000",
            None => "0x400000",
        };
        println!("cargo:rustc-link-arg-bin=paravisor=--defsym=image_base={base}");
        println!("cargo:rustc-link-arg-bin=paravisor=-T{folder}/linker.ld");
    }
}
