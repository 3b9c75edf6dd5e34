// SPDX-License-Identifier: MIT OR Apache-2.0
//! The self-test passes for every allocator of this package, and sees what is wrong with broken ones.

#![expect(
    clippy::missing_safety_doc,
    reason = "functions of the interface's table; abi::Operations has their contract"
)]

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

use bench_abi::abi::{Config, Operations};
use bench_abi::allocators::{self, copies, locked_lifo};
use bench_abi::driver::selftest::{self, Pass};
use bench_abi::driver::{Allocator, Clock, Machine, Setup};

fn machine() -> Machine {
    let clock = Clock {
        ghz: 1.0,
        overhead_ns: 0.0,
    };
    Machine::new(Setup::default(), clock)
}

fn test(operations: &'static Operations) -> Vec<Pass> {
    // SAFETY: The tables below call this package's own functions.
    let allocator = unsafe { Allocator::new(operations) };
    selftest::run(&allocator, &machine()).expect("the allocator starts")
}

/// All passes together: errors, and whether a finding contains the words.
fn finds(passes: &[Pass], words: &str) -> bool {
    let findings = || passes.iter().flat_map(|pass| &pass.findings);
    findings().any(|finding| finding.contains(words))
}

#[test]
fn every_allocator_of_the_package_passes() {
    let machine = machine();
    for allocator in allocators::all() {
        if allocator.is_limit() {
            continue;
        }
        let passes = selftest::run(&allocator, &machine).expect("the allocator starts");
        assert_eq!(passes.len(), 3);
        for pass in passes {
            assert_eq!(pass.errors, 0, "{}: {:?}", allocator.name(), pass.findings);
            assert!(pass.maps > 9000, "{}: {} maps", allocator.name(), pass.maps);
        }
    }
}

#[test]
fn overlapping_mappings_are_found() {
    let passes = test(&copies::HOT);
    assert!(finds(&passes, "overlaps"), "{passes:?}");
}

/// The last byte does not come back.
#[test]
fn lost_bytes_are_found() {
    unsafe extern "C" fn unmap(bus: u64, length: usize, direction: c_int) {
        // SAFETY: Passed on, one byte shorter.
        unsafe { (locked_lifo::OPERATIONS.unmap)(bus, length - 1, direction) }
    }
    static BROKEN: Operations = Operations {
        unmap,
        ..locked_lifo::OPERATIONS
    };
    let passes = test(&BROKEN);
    assert!(finds(&passes, "did not come back"), "{passes:?}");
}

/// What the device does not write comes back as something else.
#[test]
fn a_missing_copy_in_is_found() {
    unsafe extern "C" fn init(config: *const Config) -> c_int {
        extern "C" fn half(to: *mut c_void, from: *const c_void, bytes: usize) {
            // SAFETY: The driver's contract for `copy`, for fewer bytes.
            unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), to.cast(), bytes / 2) }
        }
        // SAFETY: The driver's configuration.
        let config = Config {
            copy: half,
            ..unsafe { *config }
        };
        // SAFETY: Passed on.
        unsafe { (locked_lifo::OPERATIONS.init)(&raw const config) }
    }
    static BROKEN: Operations = Operations {
        init,
        ..locked_lifo::OPERATIONS
    };
    let passes = test(&BROKEN);
    assert!(finds(&passes, "does not hold its buffer"), "{passes:?}");
}

/// One unmap in a hundred frees nothing.
#[test]
fn leaks_are_found() {
    unsafe extern "C" fn unmap(bus: u64, length: usize, direction: c_int) {
        static UNMAPS: AtomicU32 = AtomicU32::new(0);
        if UNMAPS.fetch_add(1, Ordering::Relaxed) % 100 == 99 {
            // SAFETY: Copies back; the slot stays taken.
            unsafe { (locked_lifo::OPERATIONS.sync)(bus, length, direction) }
        } else {
            // SAFETY: Passed on.
            unsafe { (locked_lifo::OPERATIONS.unmap)(bus, length, direction) }
        }
    }
    static BROKEN: Operations = Operations {
        unmap,
        ..locked_lifo::OPERATIONS
    };
    let passes = test(&BROKEN);
    assert!(finds(&passes, "leak"), "{passes:?}");
}

/// A sync inside a mapping copies from its start.
#[test]
fn a_partial_sync_at_the_wrong_place_is_found() {
    unsafe extern "C" fn sync(bus: u64, length: usize, direction: c_int) {
        // SAFETY: The mapping begins that much earlier.
        unsafe { (locked_lifo::OPERATIONS.sync)(bus - 4096, length, direction) }
    }
    static BROKEN: Operations = Operations {
        sync,
        ..locked_lifo::OPERATIONS
    };
    let passes = test(&BROKEN);
    assert!(finds(&passes, "partial sync"), "{passes:?}");
}

/// The device's wish for the low address bits is forgotten.
#[test]
fn lost_address_bits_are_found() {
    unsafe extern "C" fn init(config: *const Config) -> c_int {
        // SAFETY: The driver's configuration.
        let config = Config {
            min_align_mask: 0,
            ..unsafe { *config }
        };
        // SAFETY: Passed on.
        unsafe { (locked_lifo::OPERATIONS.init)(&raw const config) }
    }
    static BROKEN: Operations = Operations {
        init,
        ..locked_lifo::OPERATIONS
    };
    let passes = test(&BROKEN);
    assert_eq!(passes[0].errors, 0, "{passes:?}");
    assert!(
        passes[2].errors > 0 && finds(&passes, "low address bits"),
        "{passes:?}"
    );
}
