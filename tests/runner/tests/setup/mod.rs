// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command with a machine that is a script, which says what a test wants to hear.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use igvm::snp_defs::{SevFeatures, SevVmsa};
use igvm::{
    IgvmDirectiveHeader, IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader, IgvmRevision,
};
use igvm_defs::{IGVM_VHS_SUPPORTED_PLATFORM, IgvmPlatformType};
use tempfile::TempDir;
use zerocopy::FromZeros;

/// Finds the files that a run passes, as shell variables.
const PREAMBLE: &str = r#"#!/bin/sh
[ "$1" = --version ] && { echo "QEMU emulator version 8.0.0 (test)"; exit; }
for word in "$@"; do
    case "$word" in
    file:*records.log) records=${word#file:} ;;
    file:*console.log) console=${word#file:} ;;
    if=none,id=d0,*) first=${word##*file=} ;;
    if=none,id=d1,*) second=${word##*file=} ;;
    esac
done
say() { echo "$@" >>"$console"; }
record() { echo "$@" >>"$records"; }
snapshot() { record "snapshot id=$1 tsc=$2"; record "count name=vmgexit.2.msr-run-vmpl value=$3"
    record "count name=convert.shared.2m value=$4"; record "count name=pattern.checked value=9"; record "end id=$1"; }
"#;

/// Inputs of a run in a temporary folder.
pub struct Setup {
    /// The folder.
    pub folder: TempDir,
}

impl Setup {
    /// A machine that runs this script.
    pub fn new(machine: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let setup = Self { folder };
        setup.write_program("qemu", format!("{PREAMBLE}{machine}").as_bytes());
        setup.write("host", b"\x7fELF");
        setup.write("image.igvm", &image(&[]));
        setup.write("disk", &[0x5a; 4096]);
        setup
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the folder.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("a temporary folder");
    }

    /// Writes a program of the folder. Not by this process: a thread that starts another program meanwhile
    /// would hand it on open for writing, and nobody may execute it then.
    pub fn write_program(&self, name: &str, bytes: &[u8]) {
        self.write("text", bytes);
        let mut install = Command::new("install");
        let status = install
            .args(["-m", "755"])
            .args([self.path("text"), self.path(name)])
            .status();
        assert!(status.expect("install starts").success());
    }

    /// Runs this command of the runner with the options `more`.
    pub fn command(&self, command: &str, more: &[&str]) -> Output {
        let verb = command;
        let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
        command.arg(verb).arg("--igvm").arg(self.path("image.igvm"));
        command.arg("--host").arg(self.path("host"));
        command.arg("--qemu").arg(self.path("qemu"));
        command.args(["--memory", "64MiB"]);
        command.current_dir(self.folder.path()).args(more);
        command.output().expect("the runner starts")
    }
}

/// An image of a few pages: enough for a machine that is a script.
pub fn image(pages: &[IgvmDirectiveHeader]) -> Vec<u8> {
    image_with(SevFeatures::new().with_snp(true), pages)
}

/// The same whose VMPL0 asks for these features.
pub fn image_with(features: SevFeatures, pages: &[IgvmDirectiveHeader]) -> Vec<u8> {
    let platform = IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: 1,
        highest_vtl: 2,
        platform_type: IgvmPlatformType::SEV_SNP,
        platform_version: 1,
        shared_gpa_boundary: 0,
    };
    let policy = IgvmInitializationHeader::GuestPolicy {
        policy: 0x3_0000,
        compatibility_mask: 1,
    };
    let vmsa = SevVmsa {
        sev_features: features,
        ..SevVmsa::new_zeroed()
    };
    let start = IgvmDirectiveHeader::SnpVpContext {
        gpa: 0xffff_ffff_f000,
        compatibility_mask: 1,
        vp_index: 0,
        vmsa: Box::new(vmsa),
    };
    let platforms = vec![IgvmPlatformHeader::SupportedPlatform(platform)];
    let directives = [pages, &[start]].concat();
    let file = IgvmFile::new(IgvmRevision::V1, platforms, vec![policy], directives);
    let mut bytes = Vec::new();
    file.expect("valid").serialize(&mut bytes).expect("small");
    bytes
}

/// What the command wrote to standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
