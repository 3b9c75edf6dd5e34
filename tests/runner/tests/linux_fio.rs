// SPDX-License-Identifier: MIT OR Apache-2.0
//! `runner linux` on the work of `make linux-fio`, from outside, on machines that are scripts.

mod good_boot;
mod setup;

use std::process::Output;

use good_boot::{GOOD_BOOT, assert_one_check_fails, boot};
use setup::{Setup, stderr};

/// What the guest says in the course of that work; shell variables set before make it say otherwise.
const FIO: &str = r#"
work=fio failures=${failures:-5}
for what in room-vdb room-nvme0n1 cap-vdb cap-nvme0n1 again-vdb again-nvme0n1 fsck-vdb fsck-nvme0n1 fetch; do
    [ "$what" = "$without" ] || say "linux: stress what=$what-right count=${jobs:-1}"
done
[ -z "$bad" ] || say "linux: stress what=$bad count=1"
for line in "room failures ${early:-0}" "room growths ${grown:-3}" "room given_back_bytes ${given_back:-4194304}" \
    "cap failures ${at_cap:-5}" "after failures_cap_reached ${by_cap:-$failures}"; do say "linux: pool $line"; done
"#;

fn fio_boot(faults: &str) -> (Setup, Output) {
    let machine = format!("driver=pool\n{faults}\n{FIO}\n{GOOD_BOOT}");
    boot(&machine, &["--driver", "pool", "--quiet"])
}

#[test]
fn a_good_boot_succeeds_although_maps_fail_at_the_cap() {
    let (_setup, output) = fio_boot("");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // The pool may hold what it held at most.
    let (_setup, output) = fio_boot("jobs=4");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn each_broken_promise_of_that_work_is_named_in_one_line() {
    for (fault, parts) in [
        (
            "without=again-vdb",
            &["fio verifies", "again-vdb: 0 of 1"][..],
        ),
        ("without=fsck-nvme0n1", &["fio verifies", "fsck-nvme0n1"]),
        ("without=fetch", &["fio verifies", "fetch"]),
        ("bad=cap-vdb-error-84", &["no transfer", "1 transfers"]),
        (
            "trouble='EXT4-fs error (device vdb)'",
            &["no trouble", "EXT4"],
        ),
        ("grown=0", &["grows and gives back", "0 growths"]),
        ("given_back=0", &["grows and gives back"]),
        ("early=1", &["by that cause", "1 with room"]),
        ("at_cap=0 failures=0", &["by that cause", "0 until"]),
        ("at_cap=4", &["by that cause", "5 in all"]),
        ("by_cap=4", &["by that cause", "4 of them"]),
    ] {
        let (_setup, output) = fio_boot(fault);
        assert_one_check_fails(&output, fault, parts);
    }
}
