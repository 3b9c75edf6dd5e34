// SPDX-License-Identifier: MIT OR Apache-2.0
//! The job with several devices or vCPUs: all devices busy at once, first under a burst that makes
//! the pool grow and shrink, then in a steady state; then the copy to disk 2 and the give-back.

use guest_shim::virtio::GlobalPool;
use test_guest::fetch::{Fetch, RECEIVE_BYTES, SEND_BYTES};
use test_guest::nvme::PAGE_BYTES;
use test_guest::nvme::disk::NvmeDisk;
use test_guest::nvme::registers::BarRegisters;
use test_guest::port;
use test_guest::record::{Phase, Record};
use test_guest::request_plan::{MAX_DEPTH, MAX_REQUEST_BYTES};
use test_guest::schedule::{MAX_CPUS, Unfinished, drive, owner};
use test_guest::stop::Stop;

use crate::device_work::{DiskWork, NetWork, calls};
use crate::devices::{self, Others};
use crate::disk_job::{SMALL_EXTENTS, copy, disk_bytes, give_back, mark, report_counters, reserve};
use crate::machine::block::{BlockDisk, Way};
use crate::machine::burst::{Burst, PATTERN_BYTES};
use crate::machine::calling::{BLOCKS, FRAME_BYTES, FRAMES, GuestPool, LARGE, SMALL, SMALL_BYTES};
use crate::machine::ending::fail;
use crate::machine::ghcb::{RegisteredGhcb, console_line};
use crate::machine::memory::Buffers;
use crate::machine::net::{self, NetDevice};
use crate::machine::nvme_memory::{Bounced, PoolMemory};
use crate::machine::pass_watch::emit;
use crate::machine::spin_lock::SpinLock;
use crate::machine::team;

/// Bytes of private memory that the job needs beside the disks' buffers: those of the NVMe reads,
/// frames, TCP's buffers, and a pattern for each vCPU; each begins on a page of its own.
pub const MEMORY_BYTES: u64 = Buffers::BYTES
    + net::MEMORY_BYTES
    + (RECEIVE_BYTES + SEND_BYTES + MAX_CPUS * PATTERN_BYTES) as u64
    + 4 * PAGE_BYTES as u64;

type Nvme = NvmeDisk<BarRegisters<RegisteredGhcb>, PoolMemory, Bounced>;

/// What one vCPU drives.
struct Part {
    disk: Option<DiskWork<BlockDisk>>,
    nvme: Option<DiskWork<Nvme>>,
    net: Option<NetWork>,
    burst: Option<Burst>,
}

/// What each vCPU drives. Its own vCPU holds the lock for a pass, the boot vCPU between passes.
static PARTS: [SpinLock<Part>; MAX_CPUS] = [const {
    SpinLock::new(Part {
        disk: None,
        nvme: None,
        net: None,
        burst: None,
    })
}; MAX_CPUS];
/// The works of the pass under way.
static UNFINISHED: Unfinished = Unfinished::new();

/// Runs the job on `cpus` vCPUs; `memory` hands private memory out for good. Ends the VM when a step
/// fails.
pub fn run(
    ghcb: RegisteredGhcb,
    cpus: usize,
    buffers: Buffers,
    others: Others,
    mut memory: impl FnMut(u64) -> Option<&'static mut [u8]>,
) {
    let mut memory = |bytes: u64| {
        memory(bytes).unwrap_or_else(|| fail(Stop::Memory, format_args!("no memory for buffers")))
    };
    emit(Record::Cpus { count: cpus as u64 });
    let [first, mut second] = devices::open_disks(ghcb, buffers);
    let total = disk_bytes(&first, &second);
    let mut devices = 1;
    let mut next_owner = || {
        let cpu = owner(devices, cpus);
        devices += 1;
        cpu
    };
    part(0, |part| {
        part.disk = Some(DiskWork::new(first, buffers, total, Stop::Disk));
    });
    let mut wishes = [
        (&LARGE, MAX_DEPTH, MAX_REQUEST_BYTES, 1),
        (&SMALL, SMALL_EXTENTS, SMALL_BYTES as u64, 1),
        (&FRAMES, net::FRAMES, FRAME_BYTES as u64, 1),
        (&BLOCKS, MAX_DEPTH, 0, PAGE_BYTES as u64),
    ];
    if let Some(registers) = others.open_nvme(ghcb) {
        let (work, largest) = open_nvme(ghcb, registers, memory(Buffers::BYTES));
        wishes[3].2 = largest;
        part(next_owner(), |part| part.nvme = Some(work));
    }
    if let Some(transport) = others.open_net(ghcb) {
        let device = NetDevice::new(transport, memory(net::MEMORY_BYTES));
        let device = device.unwrap_or_else(|error| fail(Stop::Network, format_args!("{error:?}")));
        let tcp = [RECEIVE_BYTES, SEND_BYTES].map(|bytes| memory(bytes as u64));
        part(next_owner(), |part| part.net = Some(open_net(device, tcp)));
    } else {
        wishes[2].1 = 0;
    }
    let works = devices;

    // A quarter of the window for all bursts together: the devices shall not run out of memory.
    let window = usize::try_from(GuestPool::pool().window().bytes()).unwrap_or(usize::MAX);
    let budget = (window / 4 / cpus).min(12 << 20);
    for cpu in 0..cpus {
        let pattern = memory(PATTERN_BYTES as u64);
        part(cpu, |part| {
            part.burst = Some(Burst::new(pattern, cpu, budget));
        });
    }
    pass(cpus, works + cpus, Phase::Read1, Phase::Nvme1, Phase::Net1);
    for cpu in 0..cpus {
        part(cpu, |part| {
            if let Some(burst) = part.burst.take() {
                burst.report(cpu);
            }
        });
    }

    for wish in wishes.iter().filter(|wish| wish.1 > 0 && wish.2 > 0) {
        reserve(&[*wish]);
    }
    let before = calls();
    mark(ghcb, port::MARK_STEADY_BEGIN);
    pass(cpus, works, Phase::Read2, Phase::Nvme2, Phase::Net2);
    mark(ghcb, port::MARK_STEADY_END);
    let steady = calls() - before;
    if steady != 0 {
        fail(
            Stop::SteadyState,
            format_args!("{steady} SVSM calls in the steady state"),
        );
    }
    finish(cpus, &mut second, buffers, total);
    // The devices are reset when they go: from then on nobody uses the memory.
    drop(second);
    team::dismiss();
    give_back();
    mark(ghcb, port::MARK_GIVEN_BACK);
    report_counters();
}

/// Uses the part of a vCPU, between passes.
fn part<R>(cpu: usize, body: impl FnOnce(&mut Part) -> R) -> R {
    let Some(part) = PARTS.get(cpu) else {
        fail(Stop::Vcpu, format_args!("vCPU {cpu} is one too many"));
    };
    body(&mut part.lock())
}

/// One pass: every device does a round at least, and all of them go on until the last one has.
fn pass(cpus: usize, works: usize, disk: Phase, nvme: Phase, net: Phase) {
    for cpu in 0..cpus {
        part(cpu, |part| {
            if let Some(work) = &mut part.disk {
                work.prepare(disk);
            }
            if let Some(work) = &mut part.nvme {
                work.prepare(nvme);
            }
            if let Some(work) = &mut part.net {
                work.prepare(net);
            }
        });
    }
    UNFINISHED.restart(works);
    team::run_on_all(cpus, |cpu| {
        part(cpu, |part| {
            let mut works = [
                part.disk.as_mut().map(|work| work as _),
                part.nvme.as_mut().map(|work| work as _),
                part.net.as_mut().map(|work| work as _),
                part.burst.as_mut().map(|work| work as _),
            ];
            drive(&mut works, &UNFINISHED);
        });
    });
    for cpu in 0..cpus {
        part(cpu, |part| {
            part.disk.iter().for_each(DiskWork::report);
            part.nvme.iter().for_each(DiskWork::report);
            part.net.iter().for_each(NetWork::report);
        });
    }
}

/// The NVMe namespace as a work, and its longest request.
fn open_nvme(
    ghcb: RegisteredGhcb,
    registers: u64,
    memory: &'static mut [u8],
) -> (DiskWork<Nvme>, u64) {
    use test_guest::transfer::Disk;
    let Some(buffers) = Buffers::new(memory) else {
        fail(Stop::Memory, format_args!("no memory for NVMe buffers"));
    };
    let registers = BarRegisters::new(ghcb.channel(), registers);
    let disk = NvmeDisk::open(registers, PoolMemory, Bounced::new(buffers))
        .unwrap_or_else(|error| fail(Stop::Nvme, format_args!("{error:?}")));
    let (bytes, largest) = (disk.bytes(), disk.largest_request());
    console_line(format_args!(
        "guest: NVMe namespace of {bytes} bytes, transfers of {largest}"
    ));
    (DiskWork::new(disk, buffers, bytes, Stop::Nvme), largest)
}

/// The network device with a TCP stack as a work.
fn open_net(mut device: NetDevice, [receive, send]: [&'static mut [u8]; 2]) -> NetWork {
    let mac = device.mac();
    let Some(storage) = net::socket_storage() else {
        fail(Stop::Network, format_args!("one network device is enough"));
    };
    let fetch = Fetch::new(&mut device, mac, storage, receive, send);
    NetWork::new(device, fetch)
}

/// Behind the passes: the copy to disk 2, on this vCPU, and the end of all devices.
fn finish(cpus: usize, second: &mut BlockDisk, buffers: Buffers, total: u64) {
    let disk = part(0, |part| part.disk.take()).map(DiskWork::finish);
    let Some((mut first, Some(sha256))) = disk else {
        fail(Stop::Disk, format_args!("no digest of disk 1"));
    };
    first.going(Way::Read);
    copy(&mut first, second, buffers, total, &[sha256]);
    drop(first);
    for cpu in 0..cpus {
        let (nvme, net) = part(cpu, |part| (part.nvme.take(), part.net.take()));
        if let Some(work) = nvme
            && let Err(error) = work.finish().0.close()
        {
            fail(Stop::Nvme, format_args!("stop: {error:?}"));
        }
        if let Some(work) = net {
            work.close();
        }
    }
}
