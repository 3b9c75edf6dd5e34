// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every platform call of the core protocol goes wrong once, in every way in which it can; the answer is the documented
//! one.

use std::collections::BTreeSet;

use paravisor::core_protocol::HOST_REFUSED;
use paravisor::termination::Reason;
use snp::address::PageSize;
use snp::operands::InstructionCode;
use snp::psc::PscOperation;
use snp::svsm::{ResultCode, core_protocol as call};
use svsm_swiotlb::page_state::PageState;

use crate::core_world::{ADDRESS, FRESH, LARGE, SUCCESS, World, large, page, small, world};
use crate::hostile_machine::{Act, gpa};
use crate::wrong::{Wrong, functions};

type Answer = Result<ResultCode, Reason>;

/// A call, and what it answers when nothing goes wrong.
type Step = (&'static str, ResultCode, fn(&World<'_>) -> Answer);

const LIST: u64 = page(0);
const NO_CHANGE: ResultCode = ResultCode(call::ERROR_NO_CHANGE);

/// CREATE_VCPU for a processor that has a vCPU, with the same calling area. Its fourth RMPADJUST, behind three that take the new
/// page, makes the old one an ordinary page.
const REPLACING: &str = "CREATE_VCPU that replaces";
const RETIRES: usize = 3;

/// Everything that the core protocol does with pages, in this order.
const DAY: [Step; 11] = [
    ("PVALIDATE(0)", SUCCESS, |world| {
        world.pvalidate(LIST, &[small(page(4), false), small(page(5), false)])
    }),
    ("PVALIDATE(1)", NO_CHANGE, |world| {
        world.pvalidate(LIST, &[small(page(4), true), small(page(6), true)])
    }),
    ("PVALIDATE(1)", SUCCESS, |world| {
        world.platform.perform(Act::Renew(FRESH));
        world.pvalidate(LIST, &[small(FRESH, true)])
    }),
    ("PVALIDATE(1)", SUCCESS, |world| {
        let machine = world.platform.machine();
        machine.host_changes(gpa(LARGE), PageSize::Size2M, PscOperation::Private);
        world.pvalidate(LIST, &[large(LARGE, true)])
    }),
    ("PVALIDATE(0)", SUCCESS, |world| {
        world.pvalidate(LIST, &[large(LARGE, false)])
    }),
    ("CREATE_VCPU", SUCCESS, |world| {
        world.put_vmsa(page(7));
        world.core(call::CREATE_VCPU, page(7), page(8), 1)
    }),
    ("REMAP_CA", SUCCESS, |world| {
        world.core(call::REMAP_CA, page(9), 0, 0)
    }),
    (REPLACING, SUCCESS, |world| {
        world.put_vmsa(page(10));
        world.core(call::CREATE_VCPU, page(10), page(8), 1)
    }),
    // It was replaced: nothing is left to do.
    ("DELETE_VCPU", SUCCESS, |world| {
        world.core(call::DELETE_VCPU, page(7), 0, 0)
    }),
    ("DELETE_VCPU", SUCCESS, |world| {
        world.core(call::DELETE_VCPU, page(10), 0, 0)
    }),
    ("PVALIDATE(0)", SUCCESS, |world| {
        world.pvalidate(LIST, &[small(page(7), false), small(page(8), false)])
    }),
];

/// A platform call inside a step: its function, and which of the step's calls of that function it is, from 0.
struct Place {
    function: &'static str,
    occurrence: usize,
}

/// The documented answer, and how many of the named pages are quarantined (a 2 MiB page is one).
fn documented(step: &Step, place: &Place, wrong: Wrong) -> (Answer, usize) {
    // AMD 58019, 5.1 and 6.2: an instruction that refuses and changed nothing is reported by its code.
    let refused = |code: InstructionCode| match code.0 {
        0..16 => ResultCode::protocol_error(code.0),
        _ => ResultCode(0x8000_1011),
    };
    let unchanged = |code| (Ok(refused(code)), 0);
    let lost = (Ok(ADDRESS), 1);
    // A call that was about to answer something else says that first; its list is lost all the same.
    let cursor_lost = (Ok(if step.1 == SUCCESS { ADDRESS } else { step.1 }), 1);
    match (step.0, place.function, wrong) {
        (_, _, Wrong::Refused) => (Ok(HOST_REFUSED), 0),
        ("PVALIDATE(1)", "pvalidate", Wrong::Unchanged) => (Err(Reason::ValidateTwice), 1),
        ("PVALIDATE(1)", "pvalidate", Wrong::Code(code)) => unchanged(code),
        // Revoked already; CF says that the page was gone before.
        ("PVALIDATE(0)", "pvalidate", Wrong::Unchanged) => (Ok(NO_CHANGE), 1),
        ("PVALIDATE(0)", "rmpadjust", Wrong::Code(code)) if place.occurrence.is_multiple_of(3) => {
            unchanged(code)
        }
        // The host may split a page at any time; granted in parts then.
        ("PVALIDATE(1)", "rmpadjust", Wrong::Code(InstructionCode::FAIL_SIZEMISMATCH)) => {
            (Ok(step.1), 0)
        }
        ("DELETE_VCPU", "rmpadjust", Wrong::Code(InstructionCode::FAIL_INUSE)) => {
            (Ok(refused(InstructionCode::FAIL_INUSE)), 0)
        }
        (REPLACING, "rmpadjust", Wrong::Code(InstructionCode::FAIL_INUSE))
            if place.occurrence == RETIRES =>
        {
            unchanged(InstructionCode::FAIL_INUSE)
        }
        (_, "write", _) => cursor_lost,
        _ => lost,
    }
}

/// Named pages that are quarantined.
fn quarantined(world: &World<'_>) -> usize {
    let pages = (0..16).map(page).chain([FRESH, LARGE]);
    let quarantined = |page: &u64| world.state(*page) == Some(PageState::Quarantined);
    pages.filter(quarantined).count()
}

fn day(world: &World<'_>, steps: &[Step]) {
    for (name, expected, step) in steps {
        assert_eq!(step(world), Ok(*expected), "{name}");
        world.check();
    }
}

/// Lets the nth platform call of a step go wrong, and goes on with the day.
fn go_wrong(number: usize, nth: usize, place: &Place, wrong: Wrong) {
    world(|world| {
        day(world, &DAY[..number]);
        let before = world.platform.calls();
        world.platform.go_wrong(before + nth as u64, wrong);
        let (name, _, step) = DAY[number];
        let answer = step(world);
        let (expected, lost) = documented(&DAY[number], place, wrong);
        let Place {
            function,
            occurrence,
        } = place;
        let case = format!("{name} {number}: {wrong:?} at {function} {occurrence}");
        assert_eq!(answer, expected, "{case}");
        assert_eq!(quarantined(world), lost, "{case}");
        assert_eq!(world.platform.hits().len(), 1, "{case}");
        world.check();
        if answer.is_err() {
            return;
        }
        for (name, _, step) in &DAY[number + 1..] {
            // What is lost may be missed now; the VM goes on.
            assert!(step(world).is_ok(), "{name} after {case}");
            world.check();
        }
    });
}

#[test]
fn p1_p2_p3_p5_every_platform_call_of_the_core_protocol_goes_wrong_and_is_answered_as_documented() {
    let mut points = 0;
    let mut reached = BTreeSet::new();
    for number in 0..DAY.len() {
        let names = world(|world| {
            day(world, &DAY[..number]);
            let before = world.platform.names().len();
            day(world, &DAY[number..=number]);
            world.platform.names().split_off(before)
        });
        for (position, function) in names.iter().enumerate() {
            reached.insert(*function);
            let same = names[..position].iter().filter(|name| *name == function);
            let place = Place {
                function,
                occurrence: same.count(),
            };
            for wrong in Wrong::all(function) {
                go_wrong(number, position + 1, &place, wrong);
                points += 1;
            }
        }
    }
    println!("{points} fault points of the core protocol");
    let pages = include_str!("../../../../../svsm-swiotlb/src/platform.rs");
    let vcpus = include_str!("../../../../../paravisor/src/vcpu_control.rs");
    let mut all = functions(pages, "GuestMemory");
    all.extend(functions(pages, "PageInstructions"));
    all.extend(functions(vcpus, "VcpuControl"));
    assert_eq!(reached, all, "each function of the platform was reached");
}
