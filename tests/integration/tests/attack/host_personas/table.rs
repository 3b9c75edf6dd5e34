// SPDX-License-Identifier: MIT OR Apache-2.0
//! Row by row: who attacks, and what is answered.

use super::memory_maps::memory_maps;
use super::pages::{
    carry, deputy, double_mapping, flush_first, moved_secret, race, refused_processor,
    remap_before_validation, remapped_valid_page, rescinded_between, rescinded_list, residual,
    size_mismatch, stale_permissions,
};
use super::replies::{
    boot_replies, edited_entries, lie_about_sharing, opposite, replies, wrong_echoes,
};
use super::{conversion_pages, conversion_replies};
use crate::core_world::{World, world};

/// How a row is covered.
enum Cover {
    /// By this, in process; the text says what is answered.
    Here(&'static str, fn(&World<'_>)),
    /// By this test of tests/qemu/main.rs.
    Qemu(&'static str),
    /// Not, and why.
    Not(&'static str),
}
use Cover::{Here, Not, Qemu};

/// Row of the catalogue or `hook`, persona, cover.
const TABLE: &[(&str, &str, Cover)] = &[
    (
        "A",
        "remaps a valid page and waits for a second validation",
        Here(
            "NO_CHANGE from the map; quarantine when the loss is noticed",
            remapped_valid_page,
        ),
    ),
    (
        "A",
        "maps one memory to two addresses and switches back",
        Here("zeros at the first, #VC at the second", double_mapping),
    ),
    (
        "A",
        "CF where the map expected a change",
        Here("the VM ends: ValidateTwice", carry),
    ),
    (
        "B",
        "takes a list's page away",
        Here("INVALID_ADDRESS, quarantine", rescinded_list),
    ),
    (
        "B",
        "takes a page away at any platform call",
        Here(
            "INVALID_ADDRESS or a stop; see the enumeration in faults/",
            rescinded_between,
        ),
    ),
    (
        "C",
        "lies about sharing",
        Here(
            "SUCCESS; no secret shows, and the next GROW asks again",
            lie_about_sharing,
        ),
    ),
    (
        "C",
        "does the opposite after success",
        Here("the guest's I/O fails, nothing else", opposite),
    ),
    (
        "C",
        "lies, fails or breaks the rules at boot",
        Here(
            "a stop with PscRefused, PscMisbehaved or ValidateFailed",
            boot_replies,
        ),
    ),
    (
        "C",
        "replies to GROW and RELEASE out of order",
        Here("HOST_REFUSED, or HOST_MISBEHAVED and quarantine", replies),
    ),
    (
        "D",
        "puts a secret page of the paravisor under a page to be validated",
        Here("zeroed before it is granted", moved_secret),
    ),
    (
        "E",
        "gives a page back whose permissions were left",
        Here(
            "revoked before the rescind, granted after zeroing",
            stale_permissions,
        ),
    ),
    (
        "A",
        "remaps a page between page-state change and PVALIDATE of a CONVERT",
        Here(
            "zeros, or PAGE_LOST and quarantine",
            conversion_pages::remaps,
        ),
    ),
    (
        "A",
        "maps one memory to two addresses in a CONVERT",
        Here(
            "zeros at the first, #VC at the second",
            conversion_pages::double_mapping,
        ),
    ),
    (
        "B",
        "takes a page or the list away at any platform call of a CONVERT",
        Here(
            "PAGE_LOST, or INVALID_ADDRESS for the list; quarantine, of one page",
            conversion_pages::rescinds,
        ),
    ),
    (
        "C",
        "replies to CONVERT out of order, lies, refuses, stops, never progresses",
        Here(
            "HOST_REFUSED and the page back, HOST_MISBEHAVED and quarantine; see P-5.9.8",
            conversion_replies::replies,
        ),
    ),
    (
        "C",
        "the same with a page of 2 MiB, and stops inside it",
        Here(
            "one state for all of it",
            conversion_replies::replies_to_large_pages,
        ),
    ),
    (
        "L",
        "looks for old private bytes in what CONVERT shared, and leaves some",
        Here("none; the guest finds zeros", conversion_pages::residual),
    ),
    (
        "hook",
        "size-mismatch, or a part of 2 MiB taken away, at any platform call of a CONVERT",
        Here(
            "4 KiB steps, or PAGE_LOST; never a half",
            conversion_pages::splits,
        ),
    ),
    (
        "hook",
        "cf-surprise in a CONVERT",
        Here(
            "PAGE_LOST; to private the service stops: HOST_MISBEHAVED",
            conversion_pages::surprises,
        ),
    ),
    (
        "F",
        "keeps old translations",
        Here(
            "one flush before a rescinded page is anybody's; see p2_f in guest_attacks/",
            flush_first,
        ),
    ),
    (
        "G",
        "edits the entries of a descriptor it has begun",
        Here("never read back", edited_entries),
    ),
    (
        "H",
        "answers the MSR protocol with a wrong code, echo or error",
        Here("an error for each", wrong_echoes),
    ),
    (
        "H",
        "swallows the switch to VMPL0: CALL_PENDING is left set",
        Qemu("one_that_swallows_a_call"),
    ),
    (
        "I",
        "none: a guest's race of CREATE_VCPU, REMAP_CA and PVALIDATE",
        Here("BUSY; see p5 in guest_attacks/", race),
    ),
    (
        "J",
        "none: a guest's addresses that are not its own",
        Here(
            "INVALID_ADDRESS without an access; see c2_j in guest_attacks/",
            deputy,
        ),
    ),
    (
        "K",
        "maps a page read-only in the nested tables",
        Not(
            "availability only: the model has no nested permissions, and the host may stop the VM anyhow",
        ),
    ),
    (
        "L",
        "looks for old private bytes in what is shared",
        Here("none: a window page never held any", residual),
    ),
    (
        "M",
        "watches ciphertext",
        Not("out of scope: pool pages are plain by design, and the model has no ciphertext"),
    ),
    (
        "N",
        "incoherent cache lines",
        Not("neither the model nor QEMU's TCG has caches"),
    ),
    (
        "hook",
        "psc-partial",
        Qemu("a_host_that_returns_early_from_every_request"),
    ),
    ("hook", "psc-refused", Qemu("one_that_refuses")),
    (
        "hook",
        "psc-lies",
        Qemu("one_that_claims_success_and_does_nothing"),
    ),
    (
        "hook",
        "psc-no-progress",
        Qemu("one_that_never_makes_progress"),
    ),
    (
        "hook",
        "psc-rules",
        Qemu("ones_whose_replies_break_the_rules"),
    ),
    ("hook", "drop-run-vmpl", Qemu("one_that_swallows_a_call")),
    (
        "hook",
        "spurious-return",
        Qemu("a_host_that_returns_without_having_run_the_guest"),
    ),
    (
        "hook",
        "vector-into-vmpl0",
        Qemu("a_host_that_rings_the_doorbell_between_check_and_entry"),
    ),
    (
        "hook",
        "implicit-conversion",
        Qemu("a_host_that_converts_on_a_touch"),
    ),
    (
        "hook",
        "remap-between-psc-and-pvalidate",
        Here("ValidateFailed or zeros", remap_before_validation),
    ),
    (
        "hook",
        "size-mismatch",
        Here(
            "the documented code, or 4 KiB steps; never a half",
            size_mismatch,
        ),
    ),
    (
        "hook",
        "cf-surprise",
        Here("the VM ends: ValidateTwice", carry),
    ),
    (
        "hook",
        "0x404-on-touch",
        Here("INVALID_ADDRESS, quarantine", rescinded_list),
    ),
    (
        "hook",
        "guest-mutates-list",
        Here("fetched once; see p_7_6 in guest_attacks/", race),
    ),
    (
        "hook",
        "refused-processor",
        Here(
            "HOST_REFUSED, and both pages are what they were",
            refused_processor,
        ),
    ),
    (
        "hook",
        "memory-map",
        Here("a stop with the reason of the rule", memory_maps),
    ),
];

#[test]
fn every_row_of_the_catalogue_and_every_hook() {
    let qemu = include_str!("../../qemu/main.rs");
    for (row, persona, cover) in TABLE {
        match cover {
            Here(answer, attack) => {
                world(|world| {
                    attack(world);
                    world.check();
                });
                println!("{row:4} {persona}: {answer}");
            }
            Qemu(test) => {
                assert!(qemu.contains(&format!("fn {test}()")), "{test} is gone");
                println!("{row:4} {persona}: on QEMU, {test}");
            }
            Not(reason) => println!("{row:4} {persona}: not tested, {reason}"),
        }
    }
    for row in "ABCDEFGHIJKLMN".chars() {
        let covered = TABLE.iter().any(|(name, ..)| *name == row.to_string());
        assert!(covered, "row {row}");
    }
}
