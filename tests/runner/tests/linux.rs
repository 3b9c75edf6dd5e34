// SPDX-License-Identifier: MIT OR Apache-2.0
//! `runner linux` from outside, on machines that are scripts: one per verdict.

mod good_boot;
mod setup;

use std::fs;

use good_boot::{GOOD_BOOT, assert_one_check_fails, boot};
use serde_json::Value;
use setup::{Setup, stderr};

/// What a guest's kernel says before it panics.
fn panics(message: &str) -> String {
    format!(
        "record 'boot version=1'\nsay '[    2.0] Kernel panic - not syncing: {message}'\n\
         record 'reset vmpl=2 port=0xcf9'; record 'exit code=1'; exit 3"
    )
}

#[test]
fn a_good_boot_succeeds_and_is_reported() {
    let (setup, output) = boot(GOOD_BOOT, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("running at VMPL2"), "the console");
    let table = String::from_utf8_lossy(&output.stdout);
    for part in [
        "svsm.ghcb.core.pvalidate",
        "in all",
        "625",
        "convert.shared.4k",
        "exit.2.npf",
        "user space",
        "64.0 MiB",
    ] {
        assert!(table.contains(part), "no '{part}' in {table}");
    }
    let json = fs::read(setup.path("report/linux.json")).expect("written");
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["success"], true);
    assert_eq!(json["svsm_calls"], 625);
    assert_eq!(json["page_state_change_exits"], 13);
    assert_eq!(json["guest"]["release"], "6.12.1-test");
    assert!(json["seconds"]["user_space"].is_number());
}

#[test]
fn each_broken_promise_is_named_in_one_line() {
    let zeros = "0".repeat(64);
    for (fault, parts) in [
        ("log='SEV: nothing'", &["VMPL2", "does not say so"][..]),
        ("cpus=2", &["all vCPUs are on line", "2 of 1"]),
        (&format!("wrong_blk={zeros}"), &["virtio-blk", "instead of"]),
        (&format!("wrong_nvme={zeros}"), &["NVMe", "instead of"]),
        (&format!("wrong_net={zeros}"), &["virtio-net", "instead of"]),
        ("no_marker=1", &["marker", "host's file has ''"]),
        ("code=5", &["exit code is 5"]),
        ("say 'linux: hello'", &["keep their format", "hello"]),
        (
            "say 'linux: failed step=modules cause=virtio_net.ko'",
            &["no step of the guest fails", "virtio_net.ko"],
        ),
        (
            "both=4096",
            &[
                "page tables are W^X",
                "4096 bytes are writable and executable",
            ],
        ),
        (
            "record 'pattern gpa=0x1000 offset=0 found=0x0'",
            &["written from outside"],
        ),
        // One kernel more than there should be, and one less.
        (
            "say 'linux: start uptime=0.01'; say '[    0.0] Linux version 7'",
            &["another one has started", "usual, 1 kernels before it"],
        ),
        (
            "work=kexec",
            &["another one has started", "kexec, 0 kernels before it"],
        ),
        (
            "work=after-kexec",
            &[
                "another one has started",
                "after-kexec, 0 kernels before it",
            ],
        ),
    ] {
        let (_setup, output) = boot(&format!("{fault}\n{GOOD_BOOT}"), &["--quiet"]);
        assert_one_check_fails(&output, fault, parts);
        let message = stderr(&output);
        assert!(
            message.contains("last console lines:"),
            "{fault}: {message}"
        );
    }
}

#[test]
fn a_missing_device_is_named_by_the_guest() {
    let (_setup, output) = boot(GOOD_BOOT, &["--devices", "blk,net", "--quiet"]);
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(
        message.contains("NVMe") && message.contains("no /dev/nvme0n1"),
        "{message}"
    );
    // A guest that does not look for it does not miss it.
    let less = format!("expected=blk,net\n{GOOD_BOOT}").replace("[ -z \"$nvme\" ]", "false");
    let (_setup, output) = boot(&less, &["--devices", "blk,net"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn each_death_has_one_line_with_its_cause() {
    let terminates = |set: u32, reason: u32| {
        format!("record 'terminate vmpl=2 set={set:#x} reason={reason:#x}'; record 'exit code=2'")
    };
    for (machine, cause) in [
        (
            panics("sysrq triggered crash"),
            "the guest's kernel panicked",
        ),
        (
            panics("VFS: Unable to mount root fs on unknown-block(0,0)"),
            "the initrd is corrupt",
        ),
        (
            panics("System is deadlocked on memory"),
            "too little memory",
        ),
        (
            format!(
                "say '[    1.0] Initramfs unpacking failed: junk'\n{}",
                panics("No working init found.")
            ),
            "the initrd is corrupt: Initramfs unpacking failed: junk",
        ),
        (terminates(1, 3), "lacks support for an SVSM"),
        (terminates(1, 7), "was given no SVSM"),
        (terminates(1, 8), "runs at VMPL0"),
        (terminates(1, 9), "misaligned calling area"),
        (terminates(1, 2), "PVALIDATE"),
        (
            "record 'reset vmpl=2 port=0x64'; record 'exit code=1'".into(),
            "the guest reset the machine before it was done (reset vmpl=2 port=0x64)",
        ),
        (
            "record 'died what=triple-fault vmpl=2'; record 'exit code=4'".into(),
            "triple-fault",
        ),
        (
            "say '[    0.0] Linux'; record 'violation what=write gpa=0x1000 vmpl=2 rip=0x5'".into(),
            "the machine stopped: violation",
        ),
        (
            "say 'vmpl0: hello'; record 'violation what=write gpa=0x1000 vmpl=2 rip=0x5'".into(),
            "the kernel lacks support for SEV-SNP",
        ),
        ("exit 9".into(), "QEMU ended with status 9"),
        ("record 'exit code=0'".into(), "had not turned it off"),
        (
            "say 'linux: start uptime=1'; exec sleep 60".into(),
            "the guest hangs; user space was running",
        ),
        (
            "while :; do say '[    1.0] again'; sleep 0.1; done".into(),
            "the time limit of 4 s (--timeout) ended the run; the kernel was starting",
        ),
    ] {
        let limit = match cause {
            cause if cause.contains("hangs") => ["--idle", "2"],
            cause if cause.contains("time limit") => ["--timeout", "4"],
            _ => ["--timeout", "60"],
        };
        let (setup, output) = boot(&machine, &[&limit[..], &["--quiet"]].concat());
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{machine}: {message}");
        let verdict = message.lines().last().expect("a verdict");
        assert!(
            verdict.starts_with("runner: ") && verdict.contains(cause),
            "{machine}: {message}"
        );
        assert!(message.contains("console lines"), "{machine}: {message}");
        let json = fs::read(setup.path("report/linux.json")).expect("written");
        let json: Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json["success"], false, "{machine}");
    }
}

#[test]
fn a_user_space_of_the_users_own_is_judged_by_kernel_and_host() {
    let own = "record 'boot version=1'
for moment in 0 1; do
    record \"inspected moment=$moment writable=0 executable=4096 both=0 code_start=0x410000 code_end=0x411000 stack=0 keys=0\"
done
say '[    0.0] Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP'
say '[    0.1] SEV: SNP running at VMPL2.'
record 'poweroff vmpl=2'; snapshot 4294967295 1 2 3; record 'exit code=0'; exit 1";
    let (_setup, output) = boot(own, &["--own-initrd"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let (_setup, output) = boot(own, &[]);
    assert_eq!(output.status.code(), Some(1), "it is not ours");
    let (_setup, output) = boot(&own.replace("VMPL2.", "VMPL0."), &["--own-initrd"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn bad_input_gets_one_line_and_starts_nothing() {
    let setup = Setup::new("touch started");
    setup.write("odd", &[1; 513]);
    for (options, part) in [
        (&["--vcpus", "17"][..], "17 is not in 1..=16"),
        (&["--devices", "floppy"], "invalid value 'floppy'"),
        (&["--disk", "disk", "--nvme-disk", "odd"], "not a multiple"),
        (&["--disk", "disk", "--fetched", "no"], "check the path"),
        (&[], "pass one with --disk"),
    ] {
        let output = setup.command("linux", options);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {message}");
        assert!(message.contains(part), "{options:?}: {message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    }
    assert!(!setup.path("started").exists());
}
