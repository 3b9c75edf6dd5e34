// SPDX-License-Identifier: MIT OR Apache-2.0
//! The job: read disk 1 twice, copy it to disk 2, read that back, give the memory back.

use core::fmt;

use guest_shim::virtio::GlobalPool;
use protocol::Call;
use test_guest::copy::Copy;
use test_guest::ghcb_channel::ExitError;
use test_guest::pci_configuration::PortConfiguration;
use test_guest::port;
use test_guest::record::{Phase, Record};
use test_guest::request_plan::{MAX_DEPTH, MAX_REQUEST_BYTES, SECTOR_BYTES};
use test_guest::stop::Stop;
use test_guest::transfer::{Disk, run_pass};
use test_guest::virtio_pci::VirtioPci;
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::bus::PciRoot;
use virtio_drivers::transport::pci::virtio_device_type;

use crate::machine::block::{BlockDisk, Way};
use crate::machine::calling::{GuestPool, LARGE, SMALL, SMALL_BYTES};
use crate::machine::ending::fail;
use crate::machine::ghcb::{RegisteredGhcb, console_line};
use crate::machine::memory::Buffers;
use crate::machine::pass_watch::{PassWatch, emit, sample_pool};

/// PCI bus the disks are on.
const BUS: u8 = 0;
/// Small buffers in use with a full queue: header, status and descriptor list of each request, and
/// a few more while a request turns from read to write.
const SMALL_EXTENTS: usize = 4 * MAX_DEPTH;

/// Runs the job; ends the VM when a step fails.
pub fn run(ghcb: RegisteredGhcb, buffers: Buffers) {
    let [mut first, mut second] = open_disks(ghcb, buffers);
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

    let expected = pass(&mut first, buffers, Phase::Read1, total);
    reserve();
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

    let mut copy = Copy::new(first.going(Way::Read), second.going(Way::Write));
    let written = pass(&mut copy, buffers, Phase::Write, total);
    if let Err(error) = second.flush() {
        fail(Stop::Disk, format_args!("flush: {error:?}"));
    }
    let verified = pass(second.going(Way::Read), buffers, Phase::Verify, total);
    if [again, written, verified] != [expected; 3] {
        fail(
            Stop::Digest,
            format_args!("the digests of the passes differ"),
        );
    }
    // The devices are reset when they go: from then on nobody uses the memory.
    drop((first, second));
    give_back();
    mark(ghcb, port::MARK_GIVEN_BACK);
    report_counters();
}

/// The first two block devices on the bus.
fn open_disks(ghcb: RegisteredGhcb, buffers: Buffers) -> [BlockDisk; 2] {
    let access = PortConfiguration::new(ghcb.channel());
    let mut root = PciRoot::new(access);
    let mut disks = [None, None];
    let mut slots = disks.iter_mut();
    let found = PciRoot::new(access);
    for (function, information) in found.enumerate_bus(BUS) {
        if virtio_device_type(&information) != Some(DeviceType::Block) {
            continue;
        }
        let Some(slot) = slots.next() else { break };
        let channel = ghcb.channel();
        let transport = VirtioPci::new(channel, &mut root, &access, function, DeviceType::Block)
            .unwrap_or_else(|error| fail(Stop::Disk, format_args!("{function}: {error:?}")));
        let disk = BlockDisk::new(transport, buffers)
            .unwrap_or_else(|error| fail(Stop::Disk, format_args!("{function}: {error:?}")));
        *slot = Some(disk);
    }
    match disks {
        [Some(first), Some(second)] => [first, second],
        _ => fail(
            Stop::Disk,
            format_args!("two virtio-blk-pci devices are needed on bus {BUS}"),
        ),
    }
}

/// One pass over a disk; its digest.
fn pass<D: Disk>(mut disk: D, buffers: Buffers, phase: Phase, total: u64) -> [u8; 32]
where
    D::Error: fmt::Debug,
{
    let mut watch = PassWatch::new(buffers, phase, total);
    if let Err(error) = run_pass(&mut disk, &mut watch, total) {
        fail(Stop::Disk, format_args!("{}: {error:?}", phase.name()));
    }
    watch.digest()
}

/// Sets aside what a full queue needs: from here on no mapping can fail, and none makes a call.
fn reserve() {
    let pool = GuestPool::pool();
    let large = usize::try_from(MAX_REQUEST_BYTES).unwrap_or(usize::MAX);
    let reserved = pool
        .reserve(MAX_DEPTH, large, 1)
        .and_then(|large| Ok((large, pool.reserve(SMALL_EXTENTS, SMALL_BYTES, 1)?)));
    match reserved {
        // SAFETY: The slots are empty, and no request is in flight that could look into them.
        Ok((large, small)) => unsafe {
            LARGE.put(large);
            SMALL.put(small);
        },
        Err(cause) => fail(Stop::Memory, format_args!("reserve: {cause:?}")),
    }
    sample_pool();
}

/// Gives every chunk back that nothing is left in; the GHCB's chunk stays.
fn give_back() {
    let pool = GuestPool::pool();
    // SAFETY: The drivers are gone, so nobody looks into the slots.
    let reservations = unsafe { [LARGE.take(), SMALL.take()] };
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
fn mark(ghcb: RegisteredGhcb, number: u32) {
    let written: Result<(), ExitError> = ghcb.channel().port_write(port::MARKER, 4, number);
    if let Err(error) = written {
        fail(Stop::Ghcb, format_args!("marker {number}: {error:?}"));
    }
}

/// The calls made and the shim's counters.
fn report_counters() {
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
