// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a machine for tests lets a host do: each hook of the list by name.

use super::conversion_pages;
use super::memory_maps::memory_maps;
use super::pages::{
    carry, race, refused_processor, remap_before_validation, rescinded_list, size_mismatch,
};
use super::qemu_tests::{HOSTILE, MAIN, PAGES};
use super::table::Cover::{self, Here, Qemu};

/// Hook and what is done with it, cover.
pub const HOOKS: &[(&str, Cover)] = &[
    (
        "size-mismatch, or a part of 2 MiB taken away, at any platform call of a CONVERT",
        Here(
            "4 KiB steps, or PAGE_LOST; never a half",
            conversion_pages::splits,
        ),
    ),
    (
        "cf-surprise in a CONVERT",
        Here(
            "PAGE_LOST; to private the service stops: HOST_MISBEHAVED",
            conversion_pages::surprises,
        ),
    ),
    (
        "psc-partial",
        Qemu(MAIN, "a_host_that_returns_early_from_every_request"),
    ),
    ("psc-refused", Qemu(MAIN, "one_that_refuses")),
    (
        "psc-lies",
        Qemu(MAIN, "one_that_claims_success_and_does_nothing"),
    ),
    (
        "psc-no-progress",
        Qemu(MAIN, "one_that_never_makes_progress"),
    ),
    (
        "psc-rules",
        Qemu(MAIN, "ones_whose_replies_break_the_rules"),
    ),
    ("drop-run-vmpl", Qemu(MAIN, "one_that_swallows_a_call")),
    (
        "spurious-return",
        Qemu(MAIN, "a_host_that_returns_without_having_run_the_guest"),
    ),
    (
        "vector-into-vmpl0",
        Qemu(
            MAIN,
            "a_host_that_rings_the_doorbell_between_check_and_entry",
        ),
    ),
    (
        "vector-into-vmpl0",
        Qemu(
            HOSTILE,
            "vectors::without_restricted_injection_an_unexpected_vector_ends_the_vm",
        ),
    ),
    (
        "vector-into-vmpl0",
        Qemu(
            HOSTILE,
            "vectors::in_a_call_an_unexpected_vector_ends_the_vm_too",
        ),
    ),
    (
        "vector-into-restricted-vmpl0",
        Qemu(
            HOSTILE,
            "vectors::with_restricted_injection_the_processor_takes_none",
        ),
    ),
    (
        "implicit-conversion",
        Qemu(MAIN, "a_host_that_converts_on_a_touch"),
    ),
    (
        "remap-between-psc-and-pvalidate",
        Here("ValidateFailed or zeros", remap_before_validation),
    ),
    (
        "remap-between-psc-and-pvalidate",
        Qemu(
            PAGES,
            "calls::a_page_that_is_moved_between_request_and_validation",
        ),
    ),
    (
        "double-mapping",
        Qemu(PAGES, "calls::a_frame_that_is_behind_two_pages"),
    ),
    (
        "size-mismatch",
        Here(
            "the documented code, or 4 KiB steps; never a half",
            size_mismatch,
        ),
    ),
    ("cf-surprise", Here("the VM ends: ValidateTwice", carry)),
    (
        "cf-surprise",
        Qemu(
            PAGES,
            "valid_already::p1_p_5_9_11_a_page_that_turns_valid_by_itself_ends_the_vm",
        ),
    ),
    (
        "0x404-on-touch",
        Here("INVALID_ADDRESS, quarantine", rescinded_list),
    ),
    (
        "0x404-on-touch",
        Qemu(PAGES, "calls::a_list_that_vanishes_at_any_exit"),
    ),
    (
        "guest-mutates-list",
        Here("fetched once; see p_7_6 in guest_attacks/", race),
    ),
    (
        "refused-processor",
        Here(
            "HOST_REFUSED, and both pages are what they were",
            refused_processor,
        ),
    ),
    (
        "memory-map",
        Here("a stop with the reason of the rule", memory_maps),
    ),
    ("memory-map", Qemu(HOSTILE, "maps::an_empty_map")),
    ("memory-map", Qemu(HOSTILE, "maps::a_map_without_an_end")),
    ("memory-map", Qemu(HOSTILE, "maps::an_unsorted_map")),
    ("memory-map", Qemu(HOSTILE, "maps::an_overlap_of_ram")),
    ("memory-map", Qemu(HOSTILE, "maps::an_entry_that_wraps")),
    (
        "memory-map",
        Qemu(HOSTILE, "maps::a_window_over_launch_pages"),
    ),
    ("memory-map", Qemu(HOSTILE, "maps::a_window_over_devices")),
    ("memory-map", Qemu(HOSTILE, "maps::a_window_over_the_vmsa")),
    ("memory-map", Qemu(HOSTILE, "maps::more_ram_than_there_is")),
];
