// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest's other processors can do while VMPL0 works for one of them, and what a guest can ask for.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;

use paravisor::layout::{BOOT_CALLING_AREA, LAUNCH_VMSA};
use protocol::list::ListHeader;
use protocol::result;
use reference_model::light_host::LightHost;
use reference_model::{Event, Shape, guest, with_world};
use snp::address::{PAGE_SIZE, PageSize};
use snp::psc::PscOperation;
use snp::svsm::{CallRegisters, ResultCode, core_protocol as call};
use snp_model::psc::HostManner;
use svsm_swiotlb::page_state::PageState;
use zerocopy::IntoBytes;

use crate::core_world::{
    ADDRESS, BUSY, FRESH, MEMORY, MIB, OWN, SUCCESS, World, documented, page, small, world,
};
use crate::platform::{Act, gpa};

/// The page that victims name and attacks change.
const TARGET: u64 = page(0);
/// Pages with lists of the attackers.
const OTHER_LIST: u64 = page(1);
const NO_CHANGE: ResultCode = ResultCode(call::ERROR_NO_CHANGE);

/// A call, or something a guest does to its own memory.
type Doing = fn(&World<'_>) -> ResultCode;

fn core(world: &World<'_>, number: u32, rcx: u64, rdx: u64, r8: u64) -> ResultCode {
    world
        .core(number, rcx, rdx, r8)
        .expect("no call of a guest ends the VM")
}

fn window(world: &World<'_>) -> u64 {
    world.plan.placement.window.start
}

/// Calls that are interrupted. Each has a world of its own, in which epoch 1 holds the first chunk with generation 1.
const VICTIMS: [(&str, Doing); 9] = [
    ("LIST_GRANTED", |world| {
        world.pool(&guest::list(1, TARGET)).0
    }),
    ("STATISTICS", |world| {
        world.pool(&guest::statistics(TARGET, 504)).0
    }),
    ("GROW", |world| world.pool(&guest::grow(1, 2, 3, false)).0),
    ("GROW contiguous", |world| {
        world.pool(&guest::grow(1, 3, 3, true)).0
    }),
    ("RELEASE", |world| {
        world.pool(&guest::release(window(world), 1, 1, 1)).0
    }),
    ("PVALIDATE", |world| {
        world.put_list(TARGET, &[small(page(4), false), small(FRESH, true)]);
        core(world, call::PVALIDATE, TARGET, 0, 0)
    }),
    ("CREATE_VCPU", |world| {
        world.put_vmsa(page(7));
        core(world, call::CREATE_VCPU, page(7), TARGET, 1)
    }),
    ("REMAP_CA", |world| {
        core(world, call::REMAP_CA, TARGET, 0, 0)
    }),
    ("DELETE_VCPU", |world| {
        core(world, call::DELETE_VCPU, page(9), 0, 0)
    }),
];

/// What others do meanwhile; those for which it is true change [`TARGET`]'s state by a call.
const ATTACKS: [(&str, bool, Doing); 11] = [
    ("a VMSA of the page", true, |world| {
        world.put_vmsa(TARGET);
        core(world, call::CREATE_VCPU, TARGET, page(2), 2)
    }),
    (
        "a calling area of the page, by CREATE_VCPU",
        true,
        |world| {
            world.put_vmsa(page(2));
            core(world, call::CREATE_VCPU, page(2), TARGET, 3)
        },
    ),
    ("a calling area of the page, by REMAP_CA", true, |world| {
        core(world, call::REMAP_CA, TARGET, 0, 0)
    }),
    ("PVALIDATE(0) of the page", true, |world| {
        world.put_list(OTHER_LIST, &[small(TARGET, false)]);
        core(world, call::PVALIDATE, OTHER_LIST, 0, 0)
    }),
    ("the page as a list of PVALIDATE", true, |world| {
        core(world, call::PVALIDATE, TARGET, 0, 0)
    }),
    ("the list rewritten", false, |world| {
        world.put(TARGET, &[0xFF; 64]);
        SUCCESS
    }),
    ("a page-state change of the guest's own", false, |world| {
        world.touch(TARGET);
        world.platform.perform(Act::Rescind(TARGET));
        SUCCESS
    }),
    (
        "a page-state change of the guest's own in the window",
        false,
        |world| {
            let machine = world.platform.machine();
            for chunk in 0..4 {
                let base = gpa(window(world) + chunk * 2 * MIB);
                machine.host_changes(base, PageSize::Size2M, PscOperation::Private);
            }
            SUCCESS
        },
    ),
    ("a GROW", false, |world| {
        world.pool(&guest::grow(1, 1, 4, false)).0
    }),
    ("a RELEASE", false, |world| {
        world.pool(&guest::release(window(world), 1, 1, 1)).0
    }),
    ("an ATTACH", false, |world| world.pool(&guest::attach()).0),
];

/// A world in which every victim has what it needs.
fn prepared(test: impl FnOnce(&World<'_>)) {
    world(|world| {
        assert_eq!(world.pool(&guest::attach()).0, SUCCESS);
        assert_eq!(world.pool(&guest::grow(1, 1, 1, false)).0, SUCCESS);
        world.put_vmsa(page(9));
        assert_eq!(
            core(world, call::CREATE_VCPU, page(9), page(10), 1),
            SUCCESS
        );
        assert_eq!(core(world, call::DELETE_VCPU, page(9), 0, 0), SUCCESS);
        world.put_vmsa(page(9));
        assert_eq!(
            core(world, call::CREATE_VCPU, page(9), page(10), 2),
            SUCCESS
        );
        world.platform.perform(Act::Renew(FRESH));
        let header = ListHeader {
            capacity: 4,
            ..ListHeader::default()
        };
        world.put(TARGET, header.as_bytes());
        world
            .platform
            .machine()
            .set_manner(HostManner::StopAfter(1));
        world.check();
        test(world);
        world.check();
    });
}

#[test]
fn p5_another_processor_acts_before_every_platform_call() {
    let mut points = 0;
    for (victim_name, victim) in VICTIMS {
        for (attack_name, changes_page, attack) in ATTACKS {
            for nth in 1.. {
                let mut reached = false;
                prepared(|world| {
                    let attacker = world.platform.recorder.gate(nth);
                    let mut attacked = None;
                    let code = thread::scope(|scope| {
                        let other = scope.spawn(|| {
                            let mut code = None;
                            let reached = attacker.when_reached(|| code = Some(attack(world)));
                            reached.then_some(code).flatten()
                        });
                        let code = victim(world);
                        world.platform.recorder.open_gate();
                        attacked = other.join().expect("the attacker");
                        code
                    });
                    reached = attacked.is_some();
                    let case = format!("{attack_name} before call {nth} of {victim_name}");
                    assert!(documented(code), "{case}: {code}");
                    let Some(attacked) = attacked else { return };
                    assert!(documented(attacked), "{case}: {attacked}");
                    // These have the page in their hands from their first platform call to their last.
                    let holds = matches!(
                        victim_name,
                        "LIST_GRANTED" | "STATISTICS" | "PVALIDATE" | "REMAP_CA"
                    );
                    if holds && changes_page {
                        // An attack may be refused for what it found before it came to the page.
                        assert_ne!(attacked, SUCCESS, "{case}");
                    }
                });
                if !reached {
                    break;
                }
                points += 1;
            }
        }
    }
    println!("{points} points at which another processor acts");
    assert!(points > 200, "{points}");
}

#[test]
fn p_7_6_a_list_rewritten_during_the_call_changes_nothing() {
    prepared(|world| {
        world.platform.recorder.take();
        let attacker = world.platform.recorder.gate(2);
        thread::scope(|scope| {
            // After the header was fetched: another capacity and cursor, which would lead out of the page.
            let other = scope.spawn(|| attacker.when_reached(|| world.put(TARGET, &[0xFF; 8])));
            assert_eq!(world.pool(&guest::list(1, TARGET)).0, SUCCESS);
            assert!(other.join().unwrap());
        });
        let events = world.platform.recorder.take();
        let reads = events
            .iter()
            .filter(|event| matches!(event, Event::Read(..)));
        assert_eq!(reads.count(), 1, "fetched once");
        let outside = events.iter().any(|event| match event {
            Event::Write(at, bytes, _) => at + bytes.len() as u64 > TARGET + 8 + 4 * 24,
            _ => false,
        });
        assert!(!outside, "written outside the list");
    });
}

#[test]
fn p2_f_a_page_on_its_way_is_nobodys_until_the_flush() {
    // At each platform call of a rescind the page's word is taken; published earlier, a third processor could validate
    // the page while others still write to it through an old translation.
    for nth in 2.. {
        let mut seen = None;
        world(|world| {
            world.put_list(TARGET, &[small(page(4), false)]);
            let attacker = world.platform.recorder.gate(nth);
            thread::scope(|scope| {
                let other = scope.spawn(|| {
                    let mut state = None;
                    attacker.when_reached(|| state = world.state(page(4)));
                    state
                });
                assert_eq!(core(world, call::PVALIDATE, TARGET, 0, 0), SUCCESS);
                world.platform.recorder.open_gate();
                seen = other.join().unwrap();
            });
            assert_eq!(world.state(page(4)), Some(PageState::Invalid));
        });
        // list header, entries, three revocations, PVALIDATE, flush, cursor
        match nth {
            2 => assert_eq!(seen, Some(PageState::Valid)),
            3..=7 => assert_eq!(seen, Some(PageState::Busy), "call {nth}"),
            8 => assert_eq!(seen, Some(PageState::Invalid)),
            _ => {
                assert_eq!(seen, None);
                break;
            }
        }
    }
}

/// Addresses that a guest must not name, as what they are.
fn forbidden(world: &World<'_>) -> Vec<(&'static str, u64)> {
    let placement = &world.plan.placement;
    vec![
        ("the window", placement.window.start),
        ("the window's last page", placement.window.end - PAGE_SIZE),
        ("the service's storage", placement.storage.start),
        ("the paravisor", OWN),
        ("the launch VMSA", LAUNCH_VMSA),
        ("a VMSA", page(9)),
        ("below RAM", 0x9_F000),
        ("a device", 0xFEE0_0000),
        ("behind RAM", MEMORY),
        ("the last page there is", (1 << 52) - PAGE_SIZE),
        ("beyond physical addresses", 1 << 52),
        ("with a C-bit of its own", 1 << 51 | page(3)),
        ("wrapping", !0xFFF),
        ("the sign bit", 1 << 63),
    ]
}

#[test]
fn c2_j_forbidden_addresses_are_refused_without_a_platform_call() {
    let mut tried = 0;
    prepared(|world| {
        world.platform.perform(Act::Rescind(page(11)));
        world.touch(page(11));
        assert_eq!(world.pool(&guest::statistics(page(11), 8)).0, ADDRESS);
        assert_eq!(world.state(page(11)), Some(PageState::Quarantined));
        let mut addresses = forbidden(world);
        addresses.push(("a quarantined page", page(11)));
        addresses.push(("an invalid page", FRESH + 0x1000));
        let before = world.platform.calls();
        for (what, address) in addresses {
            let codes = [
                world.pool(&guest::list(1, address)).0,
                world.pool(&guest::list(1, address + 0xFF0)).0,
                world.pool(&guest::statistics(address, 8)).0,
                world.pool(&guest::statistics(address + 0xFF8, 8)).0,
                core(world, call::PVALIDATE, address, 0, 0),
                core(world, call::PVALIDATE, address + 0xFF0, 0, 0),
                core(world, call::REMAP_CA, address, 0, 0),
                core(world, call::CREATE_VCPU, address, page(3), 3),
                core(world, call::CREATE_VCPU, page(3), address, 3),
            ];
            tried += codes.len();
            for (number, code) in codes.into_iter().enumerate() {
                assert_eq!(code, ADDRESS, "call {number} with {what}");
            }
            let releases = address - address % (2 * MIB);
            let released = world.pool(&guest::release(releases, 1, 1, 7)).0;
            assert_ne!(released, SUCCESS, "RELEASE of {what}");
            if world.state(address) != Some(PageState::Vmsa) {
                assert_eq!(
                    core(world, call::DELETE_VCPU, address, 0, 0),
                    ADDRESS,
                    "{what}"
                );
            }
        }
        assert_eq!(world.platform.calls(), before, "something was touched");
        // Entries of a list: the list is read, nothing else happens.
        for (what, address) in forbidden(world) {
            for validate in [true, false] {
                world.platform.recorder.take();
                let code =
                    world.pvalidate(OTHER_LIST, &[small(address & !(0xFFF << 52), validate)]);
                assert_ne!(code, Ok(SUCCESS), "{what}");
                let events = world.platform.recorder.take();
                let executed = events
                    .iter()
                    .any(|event| matches!(event, Event::Instruction(..)));
                assert!(!executed, "{what}: {events:?}");
                tried += 1;
            }
        }
    });
    println!("{tried} calls with forbidden addresses");
}

#[test]
fn p1_what_is_valid_is_never_validated_again() {
    prepared(|world| {
        for target in [page(4), BOOT_CALLING_AREA] {
            world.platform.recorder.take();
            let code = world.pvalidate(OTHER_LIST, &[small(target, true)]).unwrap();
            assert!(matches!(code, NO_CHANGE | ADDRESS), "{code}");
            let events = world.platform.recorder.take();
            let executed = events
                .iter()
                .any(|event| matches!(event, Event::Instruction(..)));
            assert!(!executed, "{events:?}");
        }
    });
}

const SHAPE: Shape = Shape {
    window: 0x4000_0000,
    chunks: 6,
    hard_cap: 4,
    ram: 0x20_0000,
    ram_pages: 2,
};
const PAGES: [(u64, PageState); 2] = [
    (SHAPE.ram, PageState::Valid),
    (SHAPE.ram + 0x1000, PageState::Valid),
];

#[test]
fn p_6_7_incomplete_is_taken_up_with_other_registers() {
    let put = |world: &reference_model::World<'_, LightHost>, at, capacity, cursor| {
        let header = ListHeader {
            capacity,
            written: 0xFFFF,
            cursor,
        };
        world.platform.inner().store(at, header.as_bytes());
    };
    with_world(LightHost::default(), SHAPE, &PAGES, |world| {
        world.call(&guest::attach());
        for _ in 0..3 {
            world.call(&guest::grow(1, 1, 1, false));
        }
        let list = SHAPE.ram;
        let code = |call: &CallRegisters| ResultCode::from_rax(world.call(call).rax);
        put(world, list, 1, 0);
        assert_eq!(code(&guest::list(1, list)), ResultCode::INCOMPLETE);
        // Another list, another place in the page, another epoch, another cursor, more room, none.
        put(world, list + 0x1000, 1, 2);
        assert_eq!(code(&guest::list(1, list + 0x1000)), ResultCode::INCOMPLETE);
        put(world, list + 0xFE0, 1, 1);
        assert_eq!(code(&guest::list(1, list + 0xFE0)), ResultCode::INCOMPLETE);
        assert_eq!(code(&guest::list(2, list)), result::STALE_EPOCH);
        for (capacity, cursor, expected) in [
            (1, 7, ResultCode::INVALID_PARAMETER),
            (1, u32::MAX, ResultCode::INVALID_PARAMETER),
            (0, 0, ResultCode::INVALID_PARAMETER),
            (171, 0, ResultCode::INVALID_PARAMETER),
            (0xFFFF, 1, ResultCode::INVALID_PARAMETER),
            (1, 6, SUCCESS),
            (170, 0, SUCCESS),
        ] {
            put(world, list, capacity, cursor);
            assert_eq!(code(&guest::list(1, list)), expected, "{capacity} {cursor}");
        }
        // What it names changes between the two halves.
        put(world, list, 1, 0);
        assert_eq!(code(&guest::list(1, list)), ResultCode::INCOMPLETE);
        assert_eq!(
            code(&guest::release(SHAPE.window + (1 << 21), 1, 1, 2)),
            SUCCESS
        );
        assert_eq!(code(&guest::attach()), SUCCESS);
        assert_eq!(code(&guest::list(1, list)), result::STALE_EPOCH);
        assert_eq!(code(&guest::list(2, list)), ResultCode::INCOMPLETE);
        assert_eq!(code(&guest::list(2, list)), SUCCESS);
    });
}

/// Four processors grow and release in the same small window, each what it or another was granted.
#[test]
fn w2_several_processors_on_the_same_chunks() {
    with_world(LightHost::default(), SHAPE, &PAGES, |world| {
        world.call(&guest::attach());
        world.platform.inner().take_turns();
        let epoch = world.model().epoch;
        // What is granted, by chunk. Taken out before a release, because it may be granted again while that returns.
        let granted: Mutex<BTreeMap<u64, u32>> = Mutex::default();
        let worker = &|seed: u64| {
            let mut random = seed;
            let mut next = |bound: u64| {
                random = random
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                (random >> 33) % bound
            };
            let mut done = [0_u64; 3];
            for _ in 0..4000 {
                if next(2) == 0 {
                    let most = 1 + next(3);
                    let answer = world.unjudged(&guest::grow(epoch, 1, most, next(2) == 0));
                    let code = ResultCode::from_rax(answer.rax);
                    if code == SUCCESS {
                        let first = (answer.rcx - SHAPE.window) >> 21;
                        let generation = u32::try_from(answer.r8).unwrap();
                        for chunk in first..first + (answer.rdx >> 21) {
                            let other = granted.lock().unwrap().insert(chunk, generation);
                            assert_eq!(other, None, "W2: chunk {chunk} has two holders");
                        }
                        done[0] += 1;
                    } else {
                        let expected = [BUSY, result::NO_CONTIGUOUS_RUN, result::CAP_REACHED];
                        assert!(expected.contains(&code), "{code}");
                        done[2] += u64::from(code == BUSY);
                    }
                    continue;
                }
                let chunk = next(6);
                let Some(generation) = granted.lock().unwrap().remove(&chunk) else {
                    // Of which nobody knows a generation: somebody else's, or free.
                    let call = guest::release(SHAPE.window + (chunk << 21), 1, epoch, 0xFFFF_FFFF);
                    let code = ResultCode::from_rax(world.unjudged(&call).rax);
                    assert!(matches!(code, BUSY | result::NOT_HELD), "{code}");
                    done[2] += u64::from(code == BUSY);
                    continue;
                };
                let call = guest::release(SHAPE.window + (chunk << 21), 1, epoch, generation);
                let code = ResultCode::from_rax(world.unjudged(&call).rax);
                if code == SUCCESS {
                    done[1] += 1;
                } else {
                    assert_eq!(code, BUSY);
                    granted.lock().unwrap().insert(chunk, generation);
                    done[2] += 1;
                }
            }
            done
        };
        let totals = thread::scope(|scope| {
            let workers = [1, 2, 3, 4].map(|seed| scope.spawn(move || worker(seed)));
            workers.map(|worker| worker.join().unwrap())
        });
        println!("grown, released, busy: {totals:?}");
        // Not each of them: one may spend its turns while another, stopped half-way, has the window to itself.
        let sum = |kind: usize| totals.iter().map(|done| done[kind]).sum::<u64>();
        assert!(sum(0) > 100 && sum(1) > 100, "{totals:?}");
        world.resynchronise().unwrap();
        let held = granted.lock().unwrap().len();
        assert_eq!(world.model().granted(), held);
        world.agrees().unwrap();
    });
}
