// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests on QEMU that the table names.

/// Files of tests/qemu.
pub const MAIN: &str = "main.rs";
pub const HOSTILE: &str = "hostile.rs";
pub const LAUNCH: &str = "hostile_launch.rs";
pub const PAGES: &str = "hostile_pages.rs";
pub const REPLIES: &str = "hostile_replies.rs";
pub const SMP: &str = "smp.rs";

/// Whether a file of tests/qemu has this test: a function, in a module where one is named.
pub fn is_there(file: &str, test: &str) -> bool {
    let text = match file {
        MAIN => include_str!("../../qemu/main.rs"),
        HOSTILE => include_str!("../../qemu/hostile.rs"),
        LAUNCH => include_str!("../../qemu/hostile_launch.rs"),
        PAGES => include_str!("../../qemu/hostile_pages.rs"),
        REPLIES => include_str!("../../qemu/hostile_replies.rs"),
        SMP => include_str!("../../qemu/smp.rs"),
        _ => return false,
    };
    let (module, name) = test.rsplit_once("::").unwrap_or(("", test));
    let body = match module {
        "" => text,
        _ => {
            let head = format!("\nmod {module} {{\n");
            let Some((_, rest)) = text.split_once(&head) else {
                return false;
            };
            rest.split("\n}\n").next().unwrap_or(rest)
        }
    };
    body.contains(&format!("fn {name}()"))
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    assert!(is_there(MAIN, "one_that_refuses") && !is_there(MAIN, "one_that_refuse"));
    assert!(is_there(HOSTILE, "maps::an_empty_map"));
    assert!(is_there(
        HOSTILE,
        "replies::one_that_answers_a_switch_wrongly"
    ));
    for gone in [
        "an_empty_maps",
        "replies::an_empty_map",
        "maps::one_that_answers_a_switch_wrongly",
        "none::x",
    ] {
        assert!(!is_there(HOSTILE, gone), "{gone}");
    }
    assert!(!is_there("self_check.rs", "every_step_holds"));
}
