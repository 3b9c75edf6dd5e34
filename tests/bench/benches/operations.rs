// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shim's operations one by one, through its public interface, over an in-process kernel and service.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use bench_abi::abi::flags;
use bench_abi::driver::{Clock, Guest, Machine, Setup};
use guest_shim::{Constraints, CopyIn, Direction, Mapping};

/// One per slot size or run length that behaves differently.
const SIZES: [usize; 9] = [64, 256, 1500, 2048, 4096, 16384, 65536, 262_144, 1 << 20];
const POOL_BYTES: usize = 64 << 20;

/// A guest with a pool of the usual size.
fn guest_with(flags: u32) -> Guest {
    let setup = Setup {
        pool_bytes: POOL_BYTES,
        ..Setup::default()
    };
    let clock = Clock {
        ghz: 1.0,
        overhead_ns: 0.0,
    };
    let machine: &'static Machine = Box::leak(Box::new(Machine::new(setup, clock)));
    machine.hand_out_growth_pages_again();
    Guest::new(machine, flags)
}

fn map_unmap(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("map_unmap");
    let guest = guest_with(flags::NO_COPY);
    for size in SIZES {
        group.bench_function(BenchmarkId::new("book_keeping", size), |bencher| {
            bencher.iter(|| guest.unmap(black_box(guest.map(black_box(size)))));
        });
    }
    drop(guest);
    let guest = guest_with(0);
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("one_copy", size), |bencher| {
            bencher.iter(|| guest.unmap(black_box(guest.map(black_box(size)))));
        });
    }
    group.finish();
}

fn constraints(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("map_unmap_constrained");
    let guest = guest_with(flags::NO_COPY);
    let wishes = [
        (
            "low_12_bits",
            Constraints {
                min_align_mask: 4095,
                ..Constraints::NONE
            },
        ),
        ("aligned_4096", Constraints::aligned(4096)),
        (
            "below_4_gib_and_half",
            Constraints {
                highest_address: (1 << 32) + (POOL_BYTES as u64 / 2),
                ..Constraints::NONE
            },
        ),
    ];
    for (name, wish) in wishes {
        group.bench_function(BenchmarkId::new(name, 4096), |bencher| {
            bencher.iter(|| {
                let mapping = guest.try_map_with(4096, black_box(&wish));
                guest.unmap(mapping.expect("the pool has room"));
            });
        });
    }
    group.finish();
}

fn sync(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sync_for_device");
    let guest = guest_with(0);
    let mapping = guest.map(65536);
    for size in [64_u64, 1500, 4096] {
        group.throughput(Throughput::Bytes(size));
        group.bench_function(BenchmarkId::new("by_handle", size), |bencher| {
            let pool = &guest.pool;
            bencher.iter(|| pool.sync_for_device(black_box(&mapping), 8192, size));
        });
        let inside = mapping.address() + 8192;
        group.bench_function(BenchmarkId::new("by_address", size), |bencher| {
            let pool = &guest.pool;
            bencher.iter(|| pool.sync_address_for_device(black_box(inside), size));
        });
    }
    group.finish();
    guest.unmap(mapping);
}

fn shared_buffer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("alloc_shared_zeroed");
    let guest = guest_with(0);
    for size in [64, 4096, 65536, 1 << 20] {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                let buffer = guest.pool.alloc_shared(black_box(size), 64);
                guest.pool.free_shared(buffer.expect("the pool has room"))
            });
        });
    }
    group.finish();
}

fn reservation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reservation");
    let guest = guest_with(flags::NO_COPY);
    for count in [16, 256] {
        group.bench_function(
            BenchmarkId::new("reserve_and_cancel_4096", count),
            |bencher| {
                bencher.iter(|| {
                    let reservation = guest.pool.reserve(black_box(count), 4096, 1);
                    guest
                        .pool
                        .cancel_reservation(reservation.expect("the pool has room"))
                });
            },
        );
    }
    let reservation = guest.pool.reserve(64, 4096, 1).expect("the pool has room");
    group.bench_function(BenchmarkId::new("map_reserved_unmap", 4096), |bencher| {
        bencher.iter(|| {
            let (buffer, direction) = (guest.slice(4096), Direction::ToDevice);
            // SAFETY: The buffer lives as long as the guest, and the device only reads.
            let mapping = unsafe {
                let wish = &Constraints::NONE;
                guest
                    .pool
                    .map_reserved(&reservation, buffer, direction, CopyIn::Keep, wish)
            };
            guest.unmap(mapping.expect("the reservation has room"));
        });
    });
    assert!(
        guest.pool.cancel_reservation(reservation).is_ok(),
        "nothing is mapped from it"
    );
    group.finish();
}

/// The pool is full, so the map grows it by one step; then the step goes back.
fn growth(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("growth");
    let guest = guest_with(flags::NO_COPY | flags::GROW | flags::CONFIDENTIAL);
    let full: Vec<Mapping> = (0..POOL_BYTES / (2 << 20))
        .map(|_| guest.map(2 << 20))
        .collect();
    let before = guest.pool.statistics().growths;
    let mut rounds = 0;
    group.bench_function("map_that_grows_and_give_back", |bencher| {
        bencher.iter(|| {
            let mapping = guest.map(65536);
            guest.unmap(mapping);
            rounds += 1;
            guest.pool.give_back()
        });
    });
    let growths = guest.pool.statistics().growths - before;
    assert_eq!(growths, rounds, "every round grows once");
    for mapping in full {
        guest.unmap(mapping);
    }
    group.finish();
}

/// The pool is full and cannot grow.
fn failing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("map_that_fails");
    let guest = guest_with(flags::NO_COPY);
    let full: Vec<Mapping> = std::iter::from_fn(|| guest.try_map(65536)).collect();
    for size in [64, 4096, 262_144] {
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| assert!(guest.try_map(black_box(size)).is_none()));
        });
    }
    for mapping in full {
        guest.unmap(mapping);
    }
    group.finish();
}

criterion_group!(
    operations,
    map_unmap,
    constraints,
    sync,
    shared_buffer,
    reservation,
    growth,
    failing
);
criterion_main!(operations);
