// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rows A to O of the catalogue of hostile hosts.

use super::pages::{
    carry, deputy, double_mapping, flush_first, moved_secret, race, remapped_valid_page,
    rescinded_between, rescinded_list, residual, stale_permissions,
};
use super::qemu_tests::{HOSTILE, LAUNCH, MAIN, PAGES, REPLIES, SMP};
use super::replies::{
    boot_replies, edited_entries, lie_about_sharing, opposite, replies, wrong_echoes,
};
use super::table::Cover::{self, Here, Not, Qemu};
use super::{conversion_pages, conversion_replies};

/// Row, persona, cover.
pub const CATALOGUE: &[(&str, &str, Cover)] = &[
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
        "switches a frame to and fro between a valid page and another",
        Qemu(
            PAGES,
            "own_pages::a_page_that_is_moved_or_mapped_twice_at_boot",
        ),
    ),
    (
        "A",
        "CF where the map expected a change",
        Here("the VM ends: ValidateTwice", carry),
    ),
    (
        "A",
        "launches a page that the file does not name, which is valid then",
        Qemu(
            PAGES,
            "valid_already::p1_a_page_that_was_launched_beside_the_file_ends_the_vm",
        ),
    ),
    (
        "A",
        "none: a page turns valid by itself",
        Qemu(
            PAGES,
            "valid_already::p1_p_5_9_11_a_page_that_turns_valid_by_itself_ends_the_vm",
        ),
    ),
    (
        "B",
        "takes a list's page away",
        Here("INVALID_ADDRESS, quarantine", rescinded_list),
    ),
    (
        "B",
        "takes a list's page away behind any exit of its call",
        Qemu(PAGES, "calls::a_list_that_vanishes_at_any_exit"),
    ),
    (
        "B",
        "takes a page away behind any exit of the call that changes it",
        Qemu(
            PAGES,
            "calls::a_page_that_vanishes_under_the_call_that_changes_it",
        ),
    ),
    (
        "B",
        "takes a page of VMPL0",
        Qemu(PAGES, "own_pages::a_page_of_vmpl_0_that_vanishes"),
    ),
    (
        "B",
        "takes a calling area",
        Qemu(PAGES, "own_pages::a_calling_area_that_vanishes"),
    ),
    (
        "B",
        "takes any page of the image at any time",
        Qemu(PAGES, "own_pages::any_page_of_the_image_at_any_time"),
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
        "C",
        "declines in GROW, RELEASE and CONVERT, at the first request or at all",
        Qemu(
            REPLIES,
            "p4_p_5_7_6_p_5_8_4_p_5_9_9_a_host_that_declines_in_a_call",
        ),
    ),
    (
        "C",
        "breaks the rules of a reply there",
        Qemu(
            REPLIES,
            "p3_p4_p_5_7_7_p_5_8_4_p_5_9_10_a_reply_that_breaks_the_rules_in_a_call",
        ),
    ),
    (
        "C",
        "claims success there and does nothing",
        Qemu(REPLIES, "p4_one_that_claims_success_in_a_call"),
    ),
    (
        "C",
        "turns hostile in the middle of the boot",
        Qemu(REPLIES, "one_that_begins_in_the_middle_of_the_boot"),
    ),
    (
        "D",
        "puts a secret page of the paravisor under a page to be validated",
        Here("zeroed before it is granted", moved_secret),
    ),
    (
        "D",
        "puts the keys of VMPL0 under a page to be validated, at boot",
        Qemu(
            PAGES,
            "own_pages::a_page_that_is_moved_or_mapped_twice_at_boot",
        ),
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
        "F",
        "keeps old translations",
        Here(
            "one flush before a rescinded page is anybody's; see p2_f in guest_attacks/",
            flush_first,
        ),
    ),
    (
        "F",
        "keeps old translations until the flush is complete",
        Qemu(SMP, "p2_a_page_that_is_converted_is_gone_for_every_vcpu"),
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
        "answers the negotiation wrongly",
        Qemu(HOSTILE, "replies::one_that_answers_the_negotiation_wrongly"),
    ),
    (
        "H",
        "answers for the GHCB wrongly",
        Qemu(HOSTILE, "replies::one_that_answers_for_the_ghcb_wrongly"),
    ),
    (
        "H",
        "answers a switch wrongly",
        Qemu(HOSTILE, "replies::one_that_answers_a_switch_wrongly"),
    ),
    (
        "H",
        "swallows the switch to VMPL0: CALL_PENDING is left set",
        Qemu(MAIN, "one_that_swallows_a_call"),
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
        "maps a page of VMPL0 read-only in the nested tables",
        Qemu(PAGES, "own_pages::a_page_that_is_mapped_read_only"),
    ),
    (
        "K",
        "maps a page of the guest read-only",
        Qemu(PAGES, "calls::a_page_that_is_mapped_read_only"),
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
        "O",
        "runs a launch VMSA that nobody needs while VMPL0 boots",
        Qemu(LAUNCH, "surplus_vmsa::one_that_runs_while_vmpl_0_boots"),
    ),
    (
        "O",
        "the same beside the run loop",
        Qemu(LAUNCH, "surplus_vmsa::one_that_runs_beside_the_run_loop"),
    ),
    (
        "O",
        "the same during a call",
        Qemu(LAUNCH, "surplus_vmsa::one_that_runs_during_a_call"),
    ),
    (
        "O",
        "lists a false entry before the encryption leaf",
        Qemu(LAUNCH, "cpuid_decoys::an_entry_is_told_by_its_whole_key"),
    ),
    (
        "O",
        "writes behind the parameters",
        Qemu(
            LAUNCH,
            "parameter_tails::an_entry_behind_the_end_of_the_map",
        ),
    ),
];
