// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a machine for tests lets a host do, and a guest's other processors: each hook by name.

use snp_model::psc::HostManner::{
    CursorBackwards, CursorBeyondEnd, EnlargeEnd, FailAfter, NoProgress, Refuse, ReservedBits,
    StopAfter, StopInside,
};

use super::conversion_pages;
use super::conversion_replies::replies_of;
use super::memory_maps::memory_maps;
use super::pages::{
    carry, refused_processor, remap_before_validation, rescinded_list, size_mismatch,
};
use super::qemu_tests::{HOSTILE, LAUNCH, MAIN, PAGES};
use super::replies::{lie_about_sharing, replies};
use super::table::Cover::{self, Here, Qemu};
use crate::guest_attacks::rewritten;

/// The hooks that any machine for tests of such a service has to offer. [`HOOKS`] covers each of them.
pub const CONTRACT: [&str; 14] = [
    "psc-partial",
    "psc-lies",
    "psc-error-code",
    "psc-cursor-backwards",
    "psc-end-grown",
    "psc-reserved-word",
    "drop-run-vmpl",
    "spurious-return",
    "remap-between-psc-and-pvalidate",
    "size-mismatch",
    "cf-surprise",
    "0x404-on-touch",
    "guest-mutates-list",
    "implicit-conversion",
];

/// Those that this one offers besides.
pub const FURTHER: [&str; 9] = [
    "psc-no-progress",
    "psc-cursor-beyond-end",
    "vector-into-vmpl0",
    "vector-into-restricted-vmpl0",
    "double-mapping",
    "refused-processor",
    "memory-map",
    "surplus-launch",
    "cpuid-decoy",
];

/// What is answered to a reply that breaks the rules, and the test of the same at boot.
const BROKEN: &str = "HOST_MISBEHAVED, quarantine";
const BROKEN_REPLIES: &str = "ones_whose_replies_break_the_rules";

/// Hook, what is done with it, cover.
pub const HOOKS: &[(&str, &str, Cover)] = &[
    (
        "psc-partial",
        "stops after an entry, and inside one, of a CONVERT",
        Here("SUCCESS, asked again", |_| {
            replies_of(|manner| matches!(manner, StopAfter(_) | StopInside(_)));
        }),
    ),
    (
        "psc-partial",
        "stops after every page",
        Qemu(MAIN, "a_host_that_returns_early_from_every_request"),
    ),
    (
        "psc-partial",
        "stops inside an entry",
        Qemu(MAIN, "a_host_that_returns_early_inside_an_entry"),
    ),
    (
        "psc-lies",
        "calls the window shared, and shares nothing",
        Here("the guest's I/O fails, nothing else", lie_about_sharing),
    ),
    (
        "psc-lies",
        "shares no GHCB",
        Qemu(MAIN, "one_that_claims_success_and_does_nothing"),
    ),
    (
        "psc-error-code",
        "declines GROW and RELEASE",
        Here("HOST_REFUSED", replies),
    ),
    (
        "psc-error-code",
        "declines CONVERT, from the beginning or half-way",
        Here("HOST_REFUSED, and the page back", |_| {
            replies_of(|manner| matches!(manner, Refuse | FailAfter(_)));
        }),
    ),
    (
        "psc-error-code",
        "declines everything",
        Qemu(MAIN, "one_that_refuses"),
    ),
    (
        "psc-cursor-backwards",
        "of a CONVERT",
        Here(BROKEN, |_| replies_of(|manner| manner == CursorBackwards)),
    ),
    (
        "psc-cursor-backwards",
        "at boot",
        Qemu(MAIN, BROKEN_REPLIES),
    ),
    (
        "psc-end-grown",
        "of a CONVERT",
        Here(BROKEN, |_| replies_of(|manner| manner == EnlargeEnd)),
    ),
    ("psc-end-grown", "at boot", Qemu(MAIN, BROKEN_REPLIES)),
    (
        "psc-reserved-word",
        "of a CONVERT",
        Here(BROKEN, |_| replies_of(|manner| manner == ReservedBits)),
    ),
    ("psc-reserved-word", "at boot", Qemu(MAIN, BROKEN_REPLIES)),
    (
        "psc-cursor-beyond-end",
        "of a CONVERT",
        Here(BROKEN, |_| replies_of(|manner| manner == CursorBeyondEnd)),
    ),
    (
        "psc-cursor-beyond-end",
        "at boot",
        Qemu(MAIN, BROKEN_REPLIES),
    ),
    (
        "psc-no-progress",
        "of a CONVERT",
        Here("HOST_REFUSED, and the page back", |_| {
            replies_of(|manner| manner == NoProgress);
        }),
    ),
    (
        "psc-no-progress",
        "at boot",
        Qemu(MAIN, "one_that_never_makes_progress"),
    ),
    (
        "drop-run-vmpl",
        "CALL_PENDING is left set",
        Qemu(MAIN, "one_that_swallows_a_call"),
    ),
    (
        "spurious-return",
        "returns to VMPL0 without having run the guest",
        Qemu(MAIN, "a_host_that_returns_without_having_run_the_guest"),
    ),
    (
        "vector-into-vmpl0",
        "#HV between check and entry",
        Qemu(
            MAIN,
            "a_host_that_rings_the_doorbell_between_check_and_entry",
        ),
    ),
    (
        "vector-into-vmpl0",
        "any",
        Qemu(
            HOSTILE,
            "vectors::without_restricted_injection_an_unexpected_vector_ends_the_vm",
        ),
    ),
    (
        "vector-into-vmpl0",
        "any, inside a call",
        Qemu(
            HOSTILE,
            "vectors::in_a_call_an_unexpected_vector_ends_the_vm_too",
        ),
    ),
    (
        "vector-into-restricted-vmpl0",
        "any",
        Qemu(
            HOSTILE,
            "vectors::with_restricted_injection_the_processor_takes_none",
        ),
    ),
    (
        "implicit-conversion",
        "does nothing when it is asked, and converts on a touch",
        Qemu(MAIN, "a_host_that_converts_on_a_touch_only"),
    ),
    (
        "remap-between-psc-and-pvalidate",
        "at boot",
        Here("ValidateFailed or zeros", remap_before_validation),
    ),
    (
        "remap-between-psc-and-pvalidate",
        "in a CONVERT",
        Here(
            "zeros, or PAGE_LOST and quarantine",
            conversion_pages::remaps,
        ),
    ),
    (
        "remap-between-psc-and-pvalidate",
        "of the guest's calls",
        Qemu(
            PAGES,
            "calls::a_page_that_is_moved_between_request_and_validation",
        ),
    ),
    (
        "double-mapping",
        "of a page to be validated",
        Qemu(PAGES, "calls::a_frame_that_is_behind_two_pages"),
    ),
    (
        "size-mismatch",
        "of PVALIDATE's large pages",
        Here(
            "the documented code, or 4 KiB steps; never a half",
            size_mismatch,
        ),
    ),
    (
        "size-mismatch",
        "or a part of 2 MiB taken away, at any platform call of a CONVERT",
        Here(
            "4 KiB steps, or PAGE_LOST; never a half",
            conversion_pages::splits,
        ),
    ),
    (
        "cf-surprise",
        "in PVALIDATE",
        Here("the VM ends: ValidateTwice", carry),
    ),
    (
        "cf-surprise",
        "in a CONVERT",
        Here(
            "PAGE_LOST; to private the service stops: HOST_MISBEHAVED",
            conversion_pages::surprises,
        ),
    ),
    (
        "cf-surprise",
        "of a page that turned valid by itself",
        Qemu(
            PAGES,
            "valid_already::p1_p_5_9_11_a_page_that_turns_valid_by_itself_ends_the_vm",
        ),
    ),
    (
        "0x404-on-touch",
        "of a list",
        Here("INVALID_ADDRESS, quarantine", rescinded_list),
    ),
    (
        "0x404-on-touch",
        "of a list, behind any exit",
        Qemu(PAGES, "calls::a_list_that_vanishes_at_any_exit"),
    ),
    (
        "guest-mutates-list",
        "after it was fetched",
        Here(
            "what was fetched counts; more in guest_attacks/",
            rewritten::after_the_fetch,
        ),
    ),
    (
        "refused-processor",
        "of CREATE_VCPU",
        Here(
            "HOST_REFUSED, and both pages are what they were",
            refused_processor,
        ),
    ),
    (
        "memory-map",
        "every broken one",
        Here("a stop with the reason of the rule", memory_maps),
    ),
    ("memory-map", "", Qemu(HOSTILE, "maps::an_empty_map")),
    (
        "memory-map",
        "",
        Qemu(HOSTILE, "maps::a_map_without_an_end"),
    ),
    ("memory-map", "", Qemu(HOSTILE, "maps::an_unsorted_map")),
    ("memory-map", "", Qemu(HOSTILE, "maps::an_overlap_of_ram")),
    ("memory-map", "", Qemu(HOSTILE, "maps::an_entry_that_wraps")),
    (
        "memory-map",
        "",
        Qemu(HOSTILE, "maps::a_window_over_launch_pages"),
    ),
    (
        "memory-map",
        "",
        Qemu(HOSTILE, "maps::a_window_over_devices"),
    ),
    (
        "memory-map",
        "",
        Qemu(HOSTILE, "maps::a_window_over_the_vmsa"),
    ),
    (
        "memory-map",
        "",
        Qemu(HOSTILE, "maps::more_ram_than_there_is"),
    ),
    (
        "surplus-launch",
        "a machine with several vCPUs",
        Qemu(LAUNCH, "surplus_vmsa::one_that_runs_beside_the_run_loop"),
    ),
    (
        "cpuid-decoy",
        "an entry before the encryption leaf",
        Qemu(LAUNCH, "cpuid_decoys::an_entry_is_told_by_its_whole_key"),
    ),
];
