// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shim's growth through the adapter: what it converts, takes and gives back.

use bench_abi::abi::flags;
use bench_abi::allocators::shim;
use bench_abi::driver::burst::{self, Plan};
use bench_abi::driver::{
    Allocator, Ballast, Clock, Machine, Session, Setup, conversions, refuse_conversions,
};

const PAGE: u64 = 4 << 10;
const CHUNK: u64 = 2 << 20;
const MAPPING: usize = 64 << 10;

fn machine() -> Machine {
    let clock = Clock {
        ghz: 1.0,
        overhead_ns: 0.0,
    };
    Machine::untouched(Setup::default(), clock)
}

fn allocator() -> Allocator {
    // SAFETY: This package's own functions.
    unsafe { Allocator::new(&shim::OPERATIONS) }
}

fn open(machine: &Machine) -> Session<'_> {
    let flags = flags::GROW | flags::CONFIDENTIAL | flags::NO_COPY;
    Session::open(&allocator(), machine, flags).expect("the shim starts")
}

#[test]
fn a_burst_of_four_pools_finds_room_with_one_request_per_step() {
    let machine = machine();
    let pool = machine.setup.pool_bytes as u64;
    for background_every in [0, 256] {
        let plan = Plan {
            size: MAPPING,
            background_every,
            copies: false,
        };
        let outcome = burst::measure(&allocator(), &machine, plan).expect("the shim starts");
        assert_eq!(outcome.failed, 0);
        assert_eq!(outcome.ok, 4 * machine.setup.pool_bytes / MAPPING);
        assert_eq!(outcome.init_pages, 0, "the driver's pool is shared already");
        let (steps, conversions) = (outcome.stats.grown_pools, outcome.conversions);
        assert!(steps > 0);
        assert_eq!(conversions.atomic_calls, steps);
        assert_eq!(
            conversions.atomic_shared * PAGE,
            outcome.stats.pool_bytes - pool
        );
        assert!(conversions.atomic_shared * PAGE >= steps * CHUNK);
        assert_eq!(conversions.deferred_calls, 0);
    }
}

#[test]
fn a_step_ends_where_the_guests_pages_are_not_adjacent() {
    let machine = machine();
    let session = open(&machine);
    let config = machine.config(0);
    let mut ballast = Ballast::default();
    while session.stats().grown_pools < 1 {
        assert!(ballast.add(&session, 0, MAPPING));
    }
    // One block returns to the list, the one after it does not: the next two that are handed out are no neighbours.
    let first = (config.get_pages)(9, 1);
    let second = (config.get_pages)(9, 1);
    assert_eq!(second.addr() - first.addr(), 2 << 20);
    (config.put_pages)(first, 9);
    while session.stats().grown_pools < 5 {
        assert!(ballast.add(&session, 0, MAPPING));
    }
    let (stats, conversions) = (session.stats(), conversions());
    let grown = stats.pool_bytes - machine.setup.pool_bytes as u64;
    assert_eq!(conversions.atomic_calls, stats.grown_pools);
    assert_eq!(conversions.atomic_shared * PAGE, grown);
    let not_ours = config.pool_bus + (second.addr() - config.pool.addr()) as u64;
    for (bus, _) in ballast.live() {
        assert!(
            !(not_ours..not_ours + CHUNK).contains(bus),
            "{bus:#x} is the driver's own"
        );
    }
    ballast.drop_all(&session);
}

#[test]
fn a_refused_conversion_is_a_failed_map_and_loses_no_page() {
    let machine = machine();
    let session = open(&machine);
    refuse_conversions(true);
    let mut ballast = Ballast::default();
    while ballast.add(&session, 0, MAPPING) {}
    assert_eq!(
        ballast.payload, machine.setup.pool_bytes,
        "the pool itself is usable"
    );
    assert_eq!(conversions().atomic_calls, 0);

    refuse_conversions(false);
    // The shim asks again after a while: how many failures that takes is its own business, but it is bounded.
    let recovered = (0..1 << 17).any(|_| ballast.add(&session, 0, MAPPING));
    assert!(recovered, "no growth after the host agreed again");
    let (address, _) = *ballast.live().last().expect("it was mapped");
    let above = address - machine.config(0).pool_bus - machine.setup.pool_bytes as u64;
    let grown = session.stats().pool_bytes - machine.setup.pool_bytes as u64;
    assert!(
        above < grown,
        "the pages of refused steps are gone: {above:#x}"
    );
    assert_eq!(conversions().atomic_shared * PAGE, grown);
    ballast.drop_all(&session);
}
