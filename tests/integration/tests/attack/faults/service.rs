// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every platform call of the service goes wrong once, in every way in which it can.

use std::collections::BTreeMap;

use snp::operands::InstructionCode;

use super::scenarios::{SCENARIOS, Scenario, TWICE};
use crate::judged::Judged;
use crate::wrong::{WRONG_REPLIES, Wrong, functions};

/// Codes that are tried of a scenario with thousands of instructions: the one that has a meaning, and one that has none.
const TELLING: [InstructionCode; 2] = [
    InstructionCode::FAIL_SIZEMISMATCH,
    InstructionCode::FAIL_INPUT,
];

/// Lets each call of a scenario go wrong; counts what was tried, by function and way.
fn enumerate(scenario: &Scenario, points: &mut BTreeMap<(&'static str, &'static str), u64>) {
    for manner in scenario.manners {
        let host = |world: &Judged<'_>| world.hostile().set_manner(*manner);
        let names = scenario.run(host, |world| world.hostile().names());
        let mut tried = 0;
        for (number, name) in names.iter().enumerate() {
            for wrong in Wrong::all(name) {
                if scenario.long && matches!(wrong, Wrong::Code(code) if !TELLING.contains(&code)) {
                    continue;
                }
                scenario.run(
                    |world| {
                        host(world);
                        world.hostile().go_wrong(number as u64 + 1, wrong);
                    },
                    |world| assert!(world.hostile().calls() > number as u64),
                );
                let way = match wrong {
                    Wrong::Fault => "fault",
                    Wrong::Code(_) => "refusal",
                    Wrong::Unchanged => "nothing to change",
                    Wrong::Reply(number) => WRONG_REPLIES[number].name,
                    Wrong::Refused => "no processor",
                };
                *points.entry((*name, way)).or_default() += 1;
                tried += 1;
            }
        }
        println!(
            "{}, {manner:?}: {tried} points at {} calls",
            scenario.name,
            names.len()
        );
    }
}

fn enumerate_all(scenarios: &[&Scenario]) -> BTreeMap<(&'static str, &'static str), u64> {
    let mut points = BTreeMap::new();
    assert!(!scenarios.is_empty());
    for scenario in scenarios {
        enumerate(scenario, &mut points);
    }
    for ((function, way), count) in &points {
        println!("{count:5} {function}: {way}");
    }
    println!("{} fault points", points.values().sum::<u64>());
    points
}

fn named(part: &str, long: bool) -> Vec<&'static Scenario> {
    let named = |scenario: &&Scenario| scenario.name.contains(part) && scenario.long == long;
    SCENARIOS.iter().filter(named).collect()
}

#[test]
fn p1_p2_p3_p4_p5_p_5_9_8_every_platform_call_of_a_conversion_goes_wrong() {
    let points = enumerate_all(&named("CONVERT", false));
    // Each function of the platform was reached, and each went wrong in each way in which it can.
    let source = include_str!("../../../../../svsm-swiotlb/src/platform.rs");
    let traits = ["HostPages", "GuestMemory", "PageInstructions"];
    let functions = traits.iter().flat_map(|of| functions(source, of));
    for function in functions {
        let ways = Wrong::all(function).len();
        let tried = points.keys().filter(|(name, _)| *name == function);
        let tried = tried.count();
        match function {
            // The codes of an instruction count as one way.
            "pvalidate" => assert_eq!(tried, 3),
            "rmpadjust" => assert_eq!(tried, 2),
            _ => assert_eq!(tried, ways, "{function}"),
        }
    }
}

#[test]
fn p2_p3_p5_p_5_9_7_every_platform_call_of_a_conversion_in_parts_goes_wrong() {
    enumerate_all(&named("in parts", true));
}

#[test]
fn p2_p3_p5_p_5_9_7_every_platform_call_of_a_conversion_of_what_the_host_has_split_goes_wrong() {
    enumerate_all(&named("has split", true));
}

#[test]
fn p_5_9_8_every_platform_call_of_a_conversion_in_two_batches_goes_wrong() {
    enumerate_all(&named("two batches", true));
}

#[test]
fn p3_p4_p5_every_platform_call_of_a_pools_last_days_goes_wrong() {
    let parts = ["ORPHANS", "ADOPT", "TRACE"];
    enumerate_all(&parts.map(|part| named(part, false)).concat());
}

/// What goes wrong twice: of each kind one.
fn telling(function: &str) -> Vec<Wrong> {
    let replies = ["refuses", "fails after half", "lies", "sets a reserved bit"];
    let telling = |wrong: &Wrong| match wrong {
        Wrong::Code(code) => TELLING.contains(code),
        Wrong::Reply(number) => replies.contains(&WRONG_REPLIES[*number].name),
        _ => true,
    };
    Wrong::all(function).into_iter().filter(telling).collect()
}

/// The names of the platform calls of a scenario in which these go wrong.
fn names_with(scenario: &Scenario, wrong: &[(usize, Wrong)]) -> Vec<&'static str> {
    let prepare = |world: &Judged<'_>| {
        for (number, wrong) in wrong {
            world.hostile().go_wrong(*number as u64 + 1, *wrong);
        }
    };
    scenario.run(prepare, |world| world.hostile().names())
}

#[test]
fn p1_p3_p_5_9_9_p_5_9_11_two_platform_calls_of_a_conversion_go_wrong() {
    let mut points = 0;
    for scenario in TWICE {
        for (first, name) in names_with(&scenario, &[]).iter().enumerate() {
            // A size mismatch is followed by thousands of alike calls.
            let mismatch = Wrong::Code(InstructionCode::FAIL_SIZEMISMATCH);
            for wrong in telling(name).into_iter().filter(|wrong| *wrong != mismatch) {
                // Other calls follow than would have otherwise: what was taken is given back, for one.
                let names = names_with(&scenario, &[(first, wrong)]);
                for (second, name) in names.iter().enumerate().skip(first + 1) {
                    for again in telling(name) {
                        names_with(&scenario, &[(first, wrong), (second, again)]);
                        points += 1;
                    }
                }
            }
        }
    }
    println!("{points} points at which two calls go wrong");
    assert!(points > 500, "{points}");
}
