// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosts that lie to VMPL 0: false replies, vectors, false memory maps. Those that attack pages are in hostile_pages.rs.
//!
//! Each run ends as the documents say, with a cause: never by the time that the runner grants, and never with a wrong success.
//! What the host did is counted, so that an attack that did not take place fails.
//!
//! Small machines, which are soon up: the sizes of RMP entries are tried both where the code under attack differs.

use paravisor::termination::Reason;

use crate::DIED;
use crate::bench::{Bench, Outcome};

/// The run ended with this reason of the paravisor's.
pub fn assert_reason(outcome: &Outcome, reason: Reason) {
    assert_termination(outcome, 0xa, reason.code().into());
}

/// The run ended with this reason, and the runner says so.
pub fn assert_termination(outcome: &Outcome, set: u64, reason: u64) {
    assert_eq!(outcome.code, DIED, "{}", outcome.text);
    let ending = &outcome.report["termination"];
    assert_eq!(ending["set"], set, "{}", outcome.text);
    assert_eq!(ending["reason"], reason, "{}", outcome.text);
    assert!(outcome.text.contains(&format!("{set:#x}:{reason:#x}")));
}

/// Replies of the GHCB MSR protocol: row H.
mod replies {
    use super::*;

    const FALSEHOODS: [&str; 4] = ["code", "echo", "error", "none"];

    fn each(request: &str, check: impl Fn(&str, &Outcome)) {
        let bench = Bench::small("selftest", &[]);
        for falsehood in FALSEHOODS {
            let reply = format!("{request}:{falsehood}");
            let outcome = bench.small_run(&["--msr-reply", &reply]);
            assert_eq!(outcome.counter("attack.false-reply"), 1, "{reply}");
            check(falsehood, &outcome);
        }
    }

    #[test]
    fn one_that_answers_the_negotiation_wrongly() {
        each("sev-info", |falsehood, outcome| {
            let reason = match falsehood {
                "echo" => Reason::CbitMismatch,
                _ => Reason::GhcbProtocol,
            };
            assert_reason(outcome, reason);
        });
        each("features", |falsehood, outcome| {
            let reason = match falsehood {
                "echo" => Reason::NoRestrictedInjection,
                "error" => Reason::NoSnp,
                _ => Reason::HypervisorFeatures,
            };
            assert_reason(outcome, reason);
            assert!(outcome.text.contains(reason.text()), "{}", outcome.text);
        });
    }

    #[test]
    fn one_that_answers_for_the_ghcb_wrongly() {
        each("psc", |_, outcome| {
            assert_reason(outcome, Reason::GhcbShare);
        });
        each("register", |_, outcome| {
            assert_reason(outcome, Reason::GhcbRegister);
        });
    }

    #[test]
    fn one_that_answers_a_switch_wrongly() {
        each("run-vmpl", |_, outcome| {
            assert_reason(outcome, Reason::RunVmpl);
        });
        // The guest does not believe its first call.
        each("call", |_, outcome| assert_termination(outcome, 0xb, 4));
    }
}

/// Features of the processor, which the VMSA asks for and the boot block expects.
mod features {
    use super::*;

    #[test]
    fn a_vmsa_with_other_features_than_the_measured_ones() {
        // Debug swap left out, and a protection that nobody asked for.
        for bits in [1 << 5, 1 << 7] {
            let bench = Bench::small("selftest", &[]);
            bench.change_features(bits);
            assert_reason(&bench.small_run(&[]), Reason::SevStatus);
        }
    }
}

/// Memory maps, which the VMM fills in and nobody measures: each rule of invariant W1 has its reason.
mod maps {
    use super::*;

    fn refused(map: &str, reason: Reason) {
        let bench = Bench::small("selftest", &[]);
        assert_reason(&bench.small_run(&["--memory-map", map]), reason);
    }

    /// `count` entries of a page each, of this type.
    fn many(count: u64, kind: u64) -> String {
        let entries: Vec<_> = (0..count)
            .map(|number| format!("{}+1:{kind}", 16 * number))
            .collect();
        entries.join(",")
    }

    // In pages. The machine has RAM up to 0x6000, the image lies at 0x400 to 0x900, the payload from 0x1000 on, the window
    // takes 0x1000.

    #[test]
    fn an_empty_map() {
        refused("0+0", Reason::MapEmpty);
    }

    #[test]
    fn a_map_without_ram() {
        refused("0+0x4000:1", Reason::MapEmpty);
    }

    #[test]
    fn a_map_without_an_end() {
        refused(&many(682, 1), Reason::MapUnterminated);
    }

    #[test]
    fn an_entry_of_no_pages_between_others() {
        refused("0+0x4000,0x5000+0,0x5001+1", Reason::ParameterTail);
    }

    #[test]
    fn an_unsorted_map() {
        refused("0x100+0x3f00,0+0x10", Reason::MapUnsorted);
    }

    #[test]
    fn an_overlap_of_ram() {
        refused("0+0x4000,0x3fff+0x10", Reason::MapOverlap);
    }

    #[test]
    fn an_overlap_with_what_is_reserved() {
        refused("0+0x4000,0x3fff+0x10:1", Reason::MapOverlap);
    }

    #[test]
    fn an_entry_that_wraps() {
        refused("1+0xfffffffffffff", Reason::MapWrap);
    }

    #[test]
    fn an_entry_beyond_the_address_space() {
        refused("0+0x4000,0x7fffffffe+0x7fffffffffff", Reason::MapWrap);
    }

    #[test]
    fn an_unknown_type() {
        refused("0+0x4000:9", Reason::MapType);
    }

    #[test]
    fn many_tiny_entries_without_the_image_are_just_no_place_for_it() {
        refused(&many(681, 0), Reason::ImageOutsideRam);
    }

    #[test]
    fn a_payload_outside_of_ram() {
        refused("0+0x900,0x2000+0x2000", Reason::LaunchOutsideRam);
    }

    #[test]
    fn an_image_outside_of_ram() {
        refused("0x500+0x3b00", Reason::ImageOutsideRam);
    }

    #[test]
    fn no_room_for_the_window() {
        refused("0x300+0xc00,0x1000+0x800", Reason::WindowNoRoom);
    }

    #[test]
    fn a_window_over_launch_pages() {
        refused("0+0x2000", Reason::WindowOverLaunch);
    }

    #[test]
    fn a_window_over_devices() {
        refused("0+0x3000,0xfe000+0x2000", Reason::WindowOverHole);
    }

    #[test]
    fn a_window_over_the_vmsa() {
        refused("0+0x4000,0xffffff000+0x1200", Reason::WindowOverVmsa);
    }

    #[test]
    fn no_room_for_the_storage() {
        refused("0+0x4000,0xfffffff00+0x1100", Reason::StorageNoRoom);
    }

    #[test]
    fn more_ram_than_there_is() {
        refused("0+0x8000", Reason::PscRefused);
    }
}

/// Exceptions, interrupts and NMIs that the host raises in VMPL 0.
mod vectors {
    use super::*;

    const GENERAL_PROTECTION: u64 = 13;
    const UNEXPECTED_VC: u64 = Reason::UnexpectedVc.code() as u64;

    /// Events, and the reasons with which they end the VM.
    const ENDING: [(&str, u64); 11] = [
        ("exception:0", 0),
        ("nmi:2", 2),
        ("exception:3", 3),
        ("exception:8", 8),
        ("exception:13", GENERAL_PROTECTION),
        ("exception:14", 14),
        ("exception:18", 18),
        // #VC by an exit that VMPL 0 never makes.
        ("exception:29", UNEXPECTED_VC),
        ("interrupt:13", GENERAL_PROTECTION),
        // Beyond the table's end.
        ("interrupt:32", GENERAL_PROTECTION),
        ("interrupt:255", GENERAL_PROTECTION),
    ];

    /// Behind so many exits VMPL 0 takes memory into use.
    fn raise(bench: &Bench, event: &str, exits: u32) -> Outcome {
        bench.small_run(&["--inject", &format!("{event}@{exits}")])
    }

    /// Behind so many exits of calls that PVALIDATE and convert pages.
    fn raise_in_call(bench: &Bench, event: &str, exits: u32) -> Outcome {
        let outcome = bench.small_run(&["--inject", &format!("{event}@call:{exits}")]);
        assert!(outcome.counter("vmpl-switch") > 1, "no call was made");
        outcome
    }

    #[test]
    fn without_restricted_injection_an_unexpected_vector_ends_the_vm() {
        let bench = Bench::small("selftest", &["--restricted-injection", "off"]);
        for (event, reason) in ENDING {
            let outcome = raise(&bench, event, 400);
            assert_eq!(outcome.counter("attack.injected"), 1, "{event}");
            assert_termination(&outcome, 0xa, reason);
        }
        // Before there is a console, and in the middle of a line.
        for exits in [3, 60] {
            assert_termination(&raise(&bench, "exception:13", exits), 0xa, 13);
        }
        // Before there is a table of handlers it is a shutdown.
        let outcome = raise(&bench, "exception:13", 1);
        assert_eq!(outcome.code, DIED, "{}", outcome.text);
        assert!(outcome.text.contains("died what=triple-fault vmpl=0"));
        // #HV by itself says nothing.
        assert_eq!(raise(&bench, "exception:28", 400).code, 0);
    }

    #[test]
    fn in_a_call_an_unexpected_vector_ends_the_vm_too() {
        let bench = Bench::small("attacked-work", &["--restricted-injection", "off"]);
        // From the first call's beginning on, further and further: to calls that work on three pages each.
        let moments = [1, 2, 3, 4, 6, 9, 14, 20, 33, 70, 151, 400, 901, 2000, 4999];
        for (exits, (event, reason)) in moments.into_iter().zip(ENDING.into_iter().cycle()) {
            let outcome = raise_in_call(&bench, event, exits);
            assert_eq!(outcome.counter("attack.injected"), 1, "{event}@{exits}");
            assert_termination(&outcome, 0xa, reason);
        }
        let outcome = raise_in_call(&bench, "exception:28", 100);
        assert_eq!((outcome.code, outcome.counter("attack.injected")), (0, 1));
    }

    #[test]
    fn with_restricted_injection_the_processor_takes_none() {
        let bench = Bench::small("selftest", &[]);
        let events = ["exception:13", "exception:29", "nmi:2", "interrupt:32"];
        let at_boot = events.map(|event| raise(&bench, event, 400));
        let in_call = [("exception:14", 5), ("nmi:2", 300)];
        let in_call = in_call.map(|(event, exits)| raise_in_call(&bench, event, exits));
        for outcome in at_boot.iter().chain(&in_call) {
            assert_eq!(outcome.code, 0, "{}", outcome.text);
            assert_eq!(outcome.counter("attack.injection-refused"), 1);
            assert_eq!(outcome.counter("attack.injected"), 0);
        }
    }
}
