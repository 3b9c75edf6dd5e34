// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several processors at once, as it comes.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;

use protocol::result;
use reference_model::light_host::LightHost;
use reference_model::{Shape, guest, with_world};
use snp::address::Vmpl;
use snp::svsm::{ListHeader, ResultCode, core_protocol as call};
use snp_model::psc::HostManner;
use svsm_swiotlb::page_state::PageState;
use zerocopy::FromBytes;

use super::prepared::{give_large, prepared};
use crate::conversions::{self, convert, large};
use crate::core_world::{BUSY, LARGE, MIB, SUCCESS, World, page, small};
use crate::platform::gpa;

const SHAPE: Shape = Shape {
    window: 0x4000_0000,
    chunks: 6,
    hard_cap: 4,
    second: None,
    ram: 0x20_0000,
    ram_pages: 2,
};
const PAGES: [(u64, PageState); 2] = [
    (SHAPE.ram, PageState::Valid),
    (SHAPE.ram + 0x1000, PageState::Valid),
];

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

/// Pages that all processors convert, and lists of their own.
const PAGES_IN_COMMON: [u64; 4] = [page(4), page(5), page(6), page(7)];

/// What a processor's calls came to.
#[derive(Debug, Default)]
struct Tally {
    /// For each page and the block: to shared less to private.
    balance: [i64; 5],
    converted: u64,
    busy: u64,
    pool: u64,
}

/// One processor: random lists of pages that are everybody's, and growth and release of chunks that are its own.
fn processor(world: &World<'_>, number: u64, rounds: u64) -> Tally {
    let list = page(number);
    let mut tally = Tally::default();
    let mut random = number;
    let mut next = |bound: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    for _ in 0..rounds {
        match next(8) {
            0 => {
                let (code, granted) = world.pool(&guest::grow(1, 1, 1, false));
                if code == SUCCESS {
                    let generation = u32::try_from(granted.r8).unwrap();
                    let release = guest::release(granted.rcx, 1, 1, generation);
                    // Nobody else knows of it.
                    assert_eq!(world.pool(&release).0, SUCCESS, "W2");
                    tally.pool += 1;
                }
            }
            1 => {
                // By the core protocol: what is shared is not its business.
                let target = PAGES_IN_COMMON[usize::try_from(next(4)).unwrap()];
                world.put_list(list, &[small(target, true)]);
                let code = world.core(call::PVALIDATE, list, 0, 0);
                assert_ne!(code, Ok(SUCCESS), "P1: {target:#x}");
                assert!(code.is_ok(), "the VM goes on");
            }
            _ => convert_some(world, list, &mut next, &mut tally),
        }
    }
    tally
}

/// One list of up to three entries, called for until it goes no further.
fn convert_some(
    world: &World<'_>,
    list: u64,
    next: &mut impl FnMut(u64) -> u64,
    tally: &mut Tally,
) {
    let to_shared = next(2) == 0;
    let named: Vec<_> = (0..=next(3))
        .map(|_| usize::try_from(next(5)).unwrap())
        .collect();
    let entries: Vec<_> = named
        .iter()
        .map(|number| match PAGES_IN_COMMON.get(*number) {
            Some(page) => conversions::small(*page, to_shared),
            None => large(LARGE, to_shared),
        })
        .collect();
    world.put_conversions(list, &entries);
    for _ in 0..4 {
        let code = world.pool(&convert(1, list)).0;
        let done = cursor(world, list);
        match code {
            ResultCode::INCOMPLETE => {}
            SUCCESS => assert_eq!(done, entries.len()),
            BUSY => tally.busy += 1,
            code => assert_eq!(code, ResultCode::INVALID_ADDRESS),
        }
        if code != ResultCode::INCOMPLETE {
            for number in &named[..done] {
                tally.balance[*number] += if to_shared { 1 } else { -1 };
                tally.converted += 1;
            }
            return;
        }
    }
    unreachable!("a list of three entries has at most three batches");
}

fn cursor(world: &World<'_>, list: u64) -> usize {
    let mut bytes = [0; 8];
    let machine = world.platform.machine();
    let read = machine.guest_read(Vmpl::Vmpl2, true, gpa(list), &mut bytes);
    assert_eq!(read, Ok(()));
    usize::from(ListHeader::read_from_bytes(&bytes).unwrap().next)
}

#[test]
fn p5_w2_several_processors_convert_the_same_pages() {
    prepared(|world| {
        give_large(world);
        world.platform.set_manner(HostManner::Honest);
        let tallies = thread::scope(|scope| {
            let processors = [0, 1, 2, 3].map(|number| {
                let number = if number == 0 { 11 } else { number };
                scope.spawn(move || processor(world, number, 1500))
            });
            processors.map(|processor| processor.join().unwrap())
        });
        println!("converted, busy, pool: {tallies:?}");
        // Each conversion was one processor's: there and back in turn.
        for (number, page) in PAGES_IN_COMMON.iter().chain([&LARGE]).enumerate() {
            let sum: i64 = tallies.iter().map(|tally| tally.balance[number]).sum();
            let expected = match sum {
                0 => PageState::Valid,
                1 => PageState::Shared,
                sum => panic!("{page:#x}: {sum} conversions to shared too many"),
            };
            assert_eq!(world.state(*page), Some(expected), "{page:#x}");
        }
        let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
        assert!(sum(|tally| tally.converted) > 100);
        assert!(sum(|tally| tally.pool) > 20);
        assert!(!world.service.has_stopped());
        assert_eq!(
            world.service.statistics().guest_page_faults,
            0,
            "nothing is lost"
        );
        assert_eq!(world.service.statistics().granted_bytes, 2 * MIB);
    });
}
