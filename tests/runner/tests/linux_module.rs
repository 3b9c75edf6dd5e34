// SPDX-License-Identifier: MIT OR Apache-2.0
//! `runner linux --driver` and `runner linux-compare` from outside, on machines that are scripts.

mod good_boot;
mod setup;

use std::fs;
use std::process::{Command, Output};

use good_boot::{GOOD_BOOT, assert_one_check_fails, boot};
use serde_json::Value;
use setup::{Setup, stderr};

/// With the module, in a machine with all devices.
fn pool_boot(faults: &str) -> (Setup, Output) {
    let machine = format!("driver=pool\n{faults}\n{GOOD_BOOT}");
    boot(&machine, &["--driver", "pool", "--quiet"])
}

#[test]
fn a_good_boot_with_the_module_succeeds() {
    let (setup, output) = pool_boot("");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let json = fs::read(setup.path("report/linux.json")).expect("written");
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    let account = &json["account"];
    assert_eq!(account["phases"]["boot"]["calls"]["msr.pool.7"], 1);
    assert_eq!(account["phases"]["boot"]["page_state"]["msr_exits"], 512);
    assert_eq!(account["shared"]["in_use"], 2_101_248);
    assert_eq!(json["guest"]["pool"]["end"]["maps"], "7");
    // GHCBs change, and nobody minds.
    let (_setup, output) = pool_boot("changed='gpa=0x101000 bytes=4096 protocol=1'");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn each_broken_promise_of_the_module_is_named_in_one_line() {
    for (fault, parts) in [
        ("count=3", &["drives every device", "3 of 4"][..]),
        (
            "say 'linux: failed step=module cause=svsm_swiotlb.ko: Invalid argument'",
            &["the module is loaded", "Invalid argument"],
        ),
        ("used=2048", &["own swiotlb", "loaded: 2048 bytes"]),
        (
            "changed='gpa=0x101000 bytes=8192 protocol=0'",
            &["nothing is bounced elsewhere", "8192 bytes of 513 pages"],
        ),
        ("unwatched=1", &["elsewhere", "watched no page"]),
        ("elsewhere=1", &["becomes shared", "4096 bytes"]),
        ("held=4194304", &["holds little", "4.0 MiB before"]),
        ("growths=0 work=stress", &["with interrupts off", "0 calls"]),
        ("failures=2", &["no map fails", "2 failures"]),
        ("trouble='I/O error, dev vda'", &["no trouble", "dev vda"]),
        ("stress=read-wrong", &["no transfer", "3 transfers"]),
    ] {
        let (_setup, output) = pool_boot(fault);
        assert_one_check_fails(&output, fault, parts);
    }
    // Without the module none of that is promised.
    let (_setup, output) = boot(
        &format!("used=2048 trouble='I/O error' stress=read-wrong\n{GOOD_BOOT}"),
        &["--driver", "swiotlb", "--quiet"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // And who expects it and boots without it hears so.
    let (_setup, output) = boot(GOOD_BOOT, &["--driver", "pool", "--quiet"]);
    assert_eq!(output.status.code(), Some(1));
}

/// The reports of boots with these faults, side by side.
fn compared(boots: &[(&str, &str)], more: &[&str]) -> (Setup, Output) {
    let setup = Setup::new("");
    let mut arguments = vec!["linux-compare".to_owned()];
    for (name, faults) in boots {
        let driver = name.split('-').next().expect("a name");
        let machine = format!("driver={driver}\n{faults}\n{GOOD_BOOT}");
        let (boot, _) = boot(&machine, &["--driver", driver, "--quiet"]);
        let report = fs::read(boot.path("report/linux.json")).expect("written");
        setup.write(&format!("{name}.json"), &report);
        arguments.extend(["--boot".into(), format!("{name}={name}.json")]);
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
    command.current_dir(setup.folder.path()).args(arguments);
    command.args(["--report", "compared"]).args(more);
    let output = command.output().expect("the runner starts");
    (setup, output)
}

#[test]
fn boots_are_set_side_by_side() {
    let (setup, output) = compared(&[("pool", ""), ("swiotlb", "used=4096 own_calls=0")], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout);
    for part in ["msr pool grow", "at boot", "maps", "after give-back"] {
        assert!(table.contains(part), "no '{part}' in {table}");
    }
    let json = fs::read(setup.path("compared/compare.json")).expect("written");
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["success"], true);
    assert_eq!(json["boots"][0]["driver"], "pool");
    let drawing = fs::read_to_string(setup.path("compared/compare.svg")).expect("written");
    assert!(drawing.contains("<svg") && drawing.contains("swiotlb"));
}

#[test]
fn what_the_boots_break_together_is_named() {
    let zeros = "0".repeat(64);
    let wrong = format!("wrong_net={zeros}");
    for (pool, swiotlb, parts) in [
        ("", "work=stress", &["one kernel", "stress"][..]),
        ("own_calls=14", "own_calls=0", &["at most 12", "14 of them"]),
        (
            "kernel_calls=521",
            "own_calls=0",
            &["at most 12", "522, 1 of them", "without it 512"],
        ),
        ("converts=513", "", &["converts no page", "1 exits"]),
        (
            "failures=1",
            "",
            &["its own checks", "pool", "no map fails"],
        ),
        (
            "",
            "record 'pattern gpa=0x1000 offset=0 found=0x0'",
            &["its own checks", "swiotlb", "written from outside"],
        ),
        ("", &wrong, &["every digest", "virtio-net"]),
        (
            "",
            "say '[    2.0] Kernel panic - not syncing: x'",
            &["comes to its end", "panicked"],
        ),
    ] {
        let (_setup, output) = compared(&[("pool", pool), ("swiotlb", swiotlb)], &[]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{pool} {swiotlb}: {message}");
        for part in parts {
            assert!(message.contains(part), "{pool} {swiotlb}: {message}");
        }
    }
    // A small swiotlb is shared in more pieces.
    let (_setup, output) = compared(
        &[("pool", "kernel_calls=520"), ("swiotlb", "own_calls=0")],
        &[],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let (_setup, output) = compared(&[("pool", ""), ("pool-2", "")], &[]);
    assert!(stderr(&output).contains("none without it"));
}

#[test]
fn trouble_of_swiotlb_is_shown_when_it_is_asked_for() {
    let full = "work=stress trouble='virtio_blk: swiotlb buffer is full (sz: 4096 bytes)'";
    let boots = [
        ("pool", "work=stress"),
        ("swiotlb", full),
        ("swiotlb-1MiB", full),
    ];
    let (_setup, output) = compared(&boots, &["--expect-trouble"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("swiotlb-1MiB: 1 lines"), "{table}");
    // One of them is not enough, and none is not either.
    let calm = ("swiotlb", "work=stress");
    for boots in [&[boots[0], calm, boots[2]][..], &[boots[0], calm]] {
        let (_setup, output) = compared(boots, &["--expect-trouble"]);
        assert_eq!(output.status.code(), Some(1), "{boots:?}");
    }
}

#[test]
fn what_stalls_under_hard_work_is_trouble_and_no_wrong_digest() {
    let stalls = "work=stress\nsay 'linux: failed step=nvme cause=the read of nvme0n1 stalls'";
    let boots = [("pool", "work=stress"), ("swiotlb", stalls)];
    let (_setup, output) = compared(&boots, &["--expect-trouble"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("1 steps failed"), "{table}");
    // The module has no excuse, and nobody has one for usual work.
    for boots in [
        [("pool", stalls), ("swiotlb", "work=stress")],
        [("pool", ""), ("swiotlb", &stalls["work=stress".len()..])],
    ] {
        let (_setup, output) = compared(&boots, &[]);
        assert_eq!(output.status.code(), Some(1), "{boots:?}");
        assert!(
            stderr(&output).contains("every digest"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn files_that_are_no_reports_get_one_line() {
    let setup = Setup::new("");
    setup.write("text", b"hello");
    for (boot, part) in [
        ("text", "no NAME=FILE"),
        ("a=text", "no report"),
        ("a=no", "no report"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
        command.current_dir(setup.folder.path());
        command.args(["linux-compare", "--report", "r", "--boot", boot]);
        let output = command.output().expect("the runner starts");
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{boot}: {message}");
        assert!(
            message.contains(part) && message.trim_end().lines().count() == 1,
            "{message}"
        );
    }
}
