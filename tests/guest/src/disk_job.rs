// SPDX-License-Identifier: MIT OR Apache-2.0
//! The job: read disk 1 twice, copy it to disk 2, read that back, give the memory back.

use core::fmt;

use guest_shim::virtio::GlobalPool;
use protocol::Call;
use test_guest::copy::Copy;
use test_guest::ghcb_channel::ExitError;
use test_guest::port;
use test_guest::record::{Phase, Record};
use test_guest::request_plan::{MAX_DEPTH, MAX_REQUEST_BYTES, SECTOR_BYTES};
use test_guest::stop::Stop;
use test_guest::transfer::{Disk, run_pass};

use crate::devices;
use crate::machine::block::{BlockDisk, Way};
use crate::machine::calling::{
    BLOCKS, FRAMES, GuestPool, LARGE, ReservationSlot, SMALL, SMALL_BYTES,
};
use crate::machine::ending::fail;
use crate::machine::ghcb::{RegisteredGhcb, console_line};
use crate::machine::memory::Buffers;
use crate::machine::pass_watch::{PassWatch, emit, sample_pool};

/// Small buffers in use with a full queue: header, status and descriptor list of each request, and
/// a few more while a request turns from read to write.
pub const SMALL_EXTENTS: usize = 4 * MAX_DEPTH;

/// Runs the job; ends the VM when a step fails.
pub fn run(ghcb: RegisteredGhcb, buffers: Buffers) {
    let [mut first, mut second] = devices::open_disks(ghcb, buffers);
    let total = disk_bytes(&first, &second);
    let expected = pass(&mut first, buffers, Phase::Read1, total);
    reserve(&[
        (&LARGE, MAX_DEPTH, MAX_REQUEST_BYTES, 1),
        (&SMALL, SMALL_EXTENTS, SMALL_BYTES as u64, 1),
    ]);
    let calls = GuestPool::pool().statistics().total_calls();
    mark(ghcb, port::MARK_STEADY_BEGIN);
    let again = pass(&mut first, buffers, Phase::Read2, total);
    mark(ghcb, port::MARK_STEADY_END);
    let steady_calls = GuestPool::pool().statistics().total_calls() - calls;
    if steady_calls != 0 {
        fail(
            Stop::SteadyState,
            format_args!("{steady_calls} SVSM calls in the steady state"),
        );
    }

    copy(&mut first, &mut second, buffers, total, &[expected, again]);
    // The devices are reset when they go: from then on nobody uses the memory.
    drop((first, second));
    give_back();
    mark(ghcb, port::MARK_GIVEN_BACK);
    report_counters();
}

/// One pass over a disk; its digest.
pub fn pass<D: Disk>(mut disk: D, buffers: Buffers, phase: Phase, total: u64) -> [u8; 32]
where
    D::Error: fmt::Debug,
{
    let mut watch = PassWatch::new(buffers, phase, total);
    if let Err(error) = run_pass(&mut disk, &mut watch, total) {
        fail(Stop::Disk, format_args!("{}: {error:?}", phase.name()));
    }
    watch.digest()
}

/// The disks' sizes, which must fit each other.
pub fn disk_bytes(first: &BlockDisk, second: &BlockDisk) -> u64 {
    let total = first.bytes();
    if total == 0 || second.bytes() < total {
        fail(
            Stop::Disk,
            format_args!("disk 1 has {total} bytes, disk 2 {}", second.bytes()),
        );
    }
    console_line(format_args!(
        "guest: disk 1 has {} sectors",
        total / SECTOR_BYTES
    ));
    total
}

/// Copies disk 1 to disk 2 and reads that back; all digests have to equal those of the reads before.
pub fn copy(
    first: &mut BlockDisk,
    second: &mut BlockDisk,
    buffers: Buffers,
    total: u64,
    before: &[[u8; 32]],
) {
    let mut copy = Copy::new(first.going(Way::Read), second.going(Way::Write));
    let written = pass(&mut copy, buffers, Phase::Write, total);
    if let Err(error) = second.flush() {
        fail(Stop::Disk, format_args!("flush: {error:?}"));
    }
    let verified = pass(second.going(Way::Read), buffers, Phase::Verify, total);
    if before.iter().chain([&written]).any(|one| *one != verified) {
        fail(
            Stop::Digest,
            format_args!("the digests of the passes differ"),
        );
    }
}

/// A reservation to make: where it is put, extents, bytes of each, alignment.
pub type Wish = (&'static ReservationSlot, usize, u64, u64);

/// Sets aside what full queues need: from here on no mapping can fail, and none makes a call. No
/// other vCPU uses a driver.
pub fn reserve(wishes: &[Wish]) {
    for (slot, count, bytes, align) in wishes {
        let bytes = usize::try_from(*bytes).unwrap_or(usize::MAX);
        match GuestPool::pool().reserve(*count, bytes, *align) {
            // SAFETY: The slot is empty, and no request is in flight that could look into it.
            Ok(reservation) => unsafe { slot.put(reservation) },
            Err(cause) => fail(Stop::Memory, format_args!("reserve: {cause:?}")),
        }
    }
    sample_pool();
}

/// Gives every chunk back that nothing is left in; the GHCB's chunk stays. No other vCPU uses a driver.
pub fn give_back() {
    let pool = GuestPool::pool();
    // SAFETY: The drivers are gone, so nobody looks into the slots.
    let reservations = unsafe { [&LARGE, &SMALL, &FRAMES, &BLOCKS].map(|slot| slot.take()) };
    for reservation in reservations.into_iter().flatten() {
        if pool.cancel_reservation(reservation).is_err() {
            fail(
                Stop::GiveBack,
                format_args!("a mapping is left in a reservation"),
            );
        }
    }
    let before = sample_pool();
    let given = pool.give_back();
    let after = sample_pool();
    console_line(format_args!(
        "guest: gave back {} bytes, the host acknowledged {}",
        given.released_bytes, given.acknowledged_bytes
    ));
    if given.stopped_by.is_some() || given.released_bytes != before - after || after >= before {
        fail(
            Stop::GiveBack,
            format_args!("{given:?}, {before} bytes before, {after} after"),
        );
    }
}

/// Makes the host take a snapshot of its counters.
pub fn mark(ghcb: RegisteredGhcb, number: u32) {
    let written: Result<(), ExitError> = ghcb.channel().port_write(port::MARKER, 4, number);
    if let Err(error) = written {
        fail(Stop::Ghcb, format_args!("marker {number}: {error:?}"));
    }
}

/// The calls made and the shim's counters.
pub fn report_counters() {
    let statistics = GuestPool::pool().statistics();
    for call in Call::ALL {
        let count = statistics.calls_of(call);
        if count > 0 {
            emit(Record::SvsmCalls {
                name: call.name(),
                count,
            });
        }
    }
    for (name, value) in [
        ("maps", statistics.maps),
        ("unmaps", statistics.unmaps),
        ("failures", statistics.failures),
        ("bytes-in", statistics.bytes_in),
        ("bytes-out", statistics.bytes_out),
        ("granted", statistics.granted_bytes),
        ("peak-granted", statistics.peak_granted_bytes),
        ("used", statistics.used_bytes),
        ("peak-used", statistics.peak_used_bytes),
        ("released", statistics.released_bytes),
        ("acknowledged", statistics.acknowledged_bytes),
        ("lost", statistics.lost_bytes),
        ("growths", statistics.growths),
        ("refused-growths", statistics.refused_growths),
    ] {
        emit(Record::Shim { name, value });
    }
}
