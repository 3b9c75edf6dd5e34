// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make qemu-snp` on hosts that lack something: the list says what, and nothing is booted.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// What the script does with a QEMU whose `-h` prints `help` and which meets the planes of KVM with `planes`, a shell command.
fn list(help: &str, planes: &str) -> Output {
    let folder = TempDir::new().expect("a temporary folder");
    let qemu = folder.path().join("qemu");
    let answers = format!(
        "#!/bin/sh\n\
         case \"$*\" in\n\
         --version) echo 'QEMU emulator version 99' ;;\n\
         '-object help') echo igvm-cfg ;;\n\
         -h) echo '{help}' ;;\n\
         *-S) {planes} ;;\n\
         *) echo BOOTED ;;\n\
         esac\n"
    );
    std::fs::write(&qemu, answers).expect("the file is written");
    std::fs::set_permissions(&qemu, PermissionsExt::from_mode(0o755)).expect("our own file");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/qemu-snp.sh");
    let mut command = Command::new(script);
    let command = command.args(["image.igvm", "256MiB"]).env("QEMU", qemu);
    command.output().expect("the script starts")
}

/// The list, of which `line` is a part; the image was not booted.
fn assert_lists(output: &Output, line: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(line), "{text}");
    assert_eq!(output.status.code(), Some(2), "{text}");
    let booted = String::from_utf8_lossy(&output.stdout);
    assert!(!booted.contains("BOOTED"), "{booted}");
}

#[test]
fn a_qemu_without_planes() {
    let output = list("-machine [type=]name", "exit 1");
    assert_lists(
        &output,
        "  yes  QEMU that loads IGVM files: QEMU emulator version 99",
    );
    assert_lists(&output, "  NO   QEMU with planes: ");
}

#[test]
fn a_kernel_without_planes() {
    let refused = "echo 'plane 2 is not supported'; exit 1";
    let output = list("device-plane=n", refused);
    assert_lists(&output, "  yes  QEMU with planes");
    assert_lists(&output, "QEMU said: plane 2 is not supported");
}
