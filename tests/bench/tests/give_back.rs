// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the shim gives back through the adapter. A program of its own: that maintenance runs is state of the program.

use bench_abi::abi::flags;
use bench_abi::allocators::shim;
use bench_abi::driver::{Allocator, Ballast, Clock, Machine, Session, Setup, conversions};

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
fn maintenance_gives_back_what_the_burst_took() {
    shim::maintain_in_background(true);
    let machine = machine();
    let session = open(&machine);
    let mut ballast = Ballast::default();
    while session.stats().grown_pools < 4 {
        assert!(ballast.add(&session, 0, MAPPING));
    }
    ballast.drop_all(&session);
    // Hysteresis: a few calls pass before the memory goes.
    for _ in 0..64 {
        session.background();
    }
    let after = conversions();
    assert_eq!(session.stats().pool_bytes, machine.setup.pool_bytes as u64);
    assert_eq!(after.deferred_private, after.atomic_shared);
    assert_eq!(after.atomic_private, 0);

    // What went back is found again, in runs, and nothing above it is needed.
    let steps = session.stats().grown_pools;
    while session.stats().grown_pools < steps + 4 {
        assert!(ballast.add(&session, 0, MAPPING));
    }
    let again = conversions();
    assert_eq!(again.atomic_calls, session.stats().grown_pools);
    assert!((again.atomic_shared - after.atomic_shared) * PAGE > 4 * CHUNK);
    let end =
        machine.config(0).pool_bus + machine.setup.pool_bytes as u64 + after.atomic_shared * PAGE;
    let highest = ballast.live().iter().map(|(bus, _)| *bus).max();
    assert!(highest < Some(end), "{highest:x?} lies above {end:#x}");
    ballast.drop_all(&session);
}
