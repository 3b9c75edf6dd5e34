// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the bare-metal binary at the address the paravisor loads it to.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=guest.ld");
    if env::var_os("CARGO_FEATURE_BARE_METAL").is_some()
        && let Ok(folder) = env::var("CARGO_MANIFEST_DIR")
    {
        println!("cargo::rustc-link-arg-bin=test-guest=-T{folder}/guest.ld");
    }
}
