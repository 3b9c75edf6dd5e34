// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invariant C1, proved by the linker: no path through the service or the core protocol can panic.

use std::fs;
use std::path::Path;
use std::process::Command;

const FIXTURE: &str = include_str!("../fixtures/no_panic.rs");
const MARK: &[u8] = b"a_panic_path_exists";

fn contains(object: &[u8], name: &[u8]) -> bool {
    object.windows(name.len()).any(|window| window == name)
}

/// Builds the fixture with these extra lines of source and returns its archive, or what the compiler says.
fn build(extra: &str) -> Result<Vec<u8>, String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = tempfile::tempdir().unwrap();
    let dependency = |name: &str| format!("{name} = {{ path = {:?} }}\n", workspace.join(name));
    let manifest = format!(
        "[package]\nname = \"no-panic\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
         [lib]\npath = \"lib.rs\"\ncrate-type = [\"staticlib\"]\n\
         [dependencies]\n{}{}{}\
         [profile.release]\npanic = \"abort\"\nlto = \"fat\"\ncodegen-units = 1\n\
         [workspace]\n",
        dependency("paravisor"),
        dependency("snp"),
        dependency("svsm-swiotlb"),
    );
    fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.path().join("lib.rs"), format!("{FIXTURE}\n{extra}")).unwrap();
    // The versions the workspace is built with, all of them at hand.
    fs::copy(
        workspace.join("Cargo.lock"),
        folder.path().join("Cargo.lock"),
    )
    .unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-panic");
    let output = Command::new(env!("CARGO"))
        .args([
            "build",
            "--offline",
            "--release",
            "--target",
            "x86_64-unknown-none",
        ])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(fs::read(target.join("x86_64-unknown-none/release/libno_panic.a")).unwrap())
}

#[test]
fn c1_the_linked_call_path_contains_no_panic() {
    let object = build("").unwrap();
    for part in [&b"host_exit"[..], b"guest_write", b"page_adjust"] {
        assert!(contains(&object, part), "the call path was compiled");
    }
    assert!(
        !contains(&object, MARK),
        "a path from Service::dispatch or Dispatcher::call can panic"
    );

    // The same check sees a panic when there is one.
    let index = "#[unsafe(no_mangle)]\npub extern \"C\" fn at(bytes: &[u8; 9], i: usize) -> u8 { bytes[i] }\n";
    assert!(contains(&build(index).unwrap(), MARK));

    // It has been built without an allocator; with a use of one it is not.
    let boxed = "extern crate alloc;\n#[unsafe(no_mangle)]\npub extern \"C\" fn boxed(value: u8) -> alloc::boxed::Box<u8> { alloc::boxed::Box::new(value) }\n";
    let Err(error) = build(boxed) else {
        panic!("an allocator came from somewhere");
    };
    assert!(error.contains("no global memory allocator"), "{error}");
}
