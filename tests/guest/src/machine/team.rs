// SPDX-License-Identifier: MIT OR Apache-2.0
//! The further vCPUs: starting them, and giving all of them something to do.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_shim::virtio::GlobalPool;
use snp::address::{LARGE_PAGE_SIZE, PAGE_SIZE};
use snp::ghcb::{ApCreation, exit_code};
use snp::instructions::read_sev_status;
use snp::svsm::{CallId, CallRegisters, ResultCode, core_protocol};
use test_guest::ap_state::{ApStart, ap_vmsa};
use test_guest::arena::Arena;
use test_guest::ghcb_channel::Exit;
use test_guest::schedule::MAX_CPUS;
use test_guest::stop::Stop;
use zerocopy::IntoBytes;

use super::calling::{GuestPool, Svsm};
use super::cpu::{self, PerCpu};
use super::ending::fail;
use super::exceptions;
use super::ghcb::RegisteredGhcb;
use super::memory::ExchangePage;
use super::processor::{page_tables, time_stamp};
use super::spin_lock::SpinLock;

/// Bytes of a stack.
const STACK_BYTES: u64 = 128 << 10;
/// Bytes of private memory that all further vCPUs need: stack, VMSA and calling area, and a page
/// that a VMSA may have to leave out.
pub const MEMORY_BYTES: u64 = (MAX_CPUS as u64 - 1) * (STACK_BYTES + 3 * PAGE_SIZE);
/// Attempts of a call before BUSY counts as a refusal.
const ATTEMPTS: u32 = 1000;
/// Ticks that a vCPU has to come up: some ten seconds.
const PATIENCE: u64 = 30_000_000_000;
/// GHCB AP creation: start at once.
const CREATE_NOW: u16 = 1;

/// What a vCPU does, given its number.
pub type Task = fn(usize);

/// 1 for each vCPU that runs.
static ONLINE: PerCpu = PerCpu::new();
/// Number of the newest task; [`DISMISSED`] ends the work.
static COMMAND: AtomicU64 = AtomicU64::new(0);
/// Number of the last task that each vCPU has done.
static DONE: PerCpu = PerCpu::new();
/// The newest task.
static TASK: SpinLock<Option<Task>> = SpinLock::new(None);
/// Nothing more will come.
const DISMISSED: u64 = u64::MAX;

/// Starts every vCPU that the paravisor knows, and returns how many run then. To be called once.
pub fn start(svsm: Svsm, arena: &mut Arena) -> usize {
    let mut cpus = 1;
    while cpus < MAX_CPUS {
        let Some((vmsa, area)) = prepare(svsm, cpus, arena) else {
            fail(Stop::Memory, format_args!("no memory for vCPU {cpus}"));
        };
        if !create(svsm, cpus, vmsa, area) {
            break;
        }
        run(cpus, vmsa);
        cpus += 1;
    }
    cpus
}

/// SEV_FEATURES of this vCPU, which those of a further one have to equal.
pub fn features() -> u64 {
    // SAFETY: CPL 0 in an SNP guest.
    unsafe { read_sev_status() >> 2 }
}

/// Fills a VMSA; its address and that of the calling area.
fn prepare(svsm: Svsm, number: usize, arena: &mut Arena) -> Option<(u64, u64)> {
    let stack = arena.take(STACK_BYTES, PAGE_SIZE)?;
    let mut page = || arena.take(PAGE_SIZE, PAGE_SIZE).map(|range| range.start);
    let (area, first) = (page()?, page()?);
    // Hosts refuse to run a VMSA at a multiple of 2 MiB (erratum).
    let vmsa = if first.is_multiple_of(LARGE_PAGE_SIZE) {
        page()?
    } else {
        first
    };
    let (gdt, idt) = exceptions::tables();
    let entry: extern "C" fn(u64) -> ! = main;
    let state = ap_vmsa(&ApStart {
        entry: entry as usize as u64,
        stack_end: stack.end,
        number: number as u64,
        cr3: page_tables(),
        gdt,
        idt,
        gs_base: cpu::gs_base(number),
        sev_features: features(),
    });
    // SAFETY: The arena handed the pages to us alone; they are accepted and mapped private.
    unsafe {
        ExchangePage::new(vmsa).write(state.as_bytes());
        svsm.add(number, area);
    }
    Some((vmsa, area))
}

/// Makes the page a VMSA. False when the machine has no such vCPU.
pub fn create(svsm: Svsm, number: usize, vmsa: u64, area: u64) -> bool {
    let id = CallId {
        protocol: core_protocol::NUMBER,
        call: core_protocol::CREATE_VCPU,
    };
    let registers = CallRegisters::new(id.to_rax(), [vmsa, area, number as u64]);
    for _ in 0..ATTEMPTS {
        let answer = svsm.call(registers);
        match answer.map(|answer| ResultCode::from_rax(answer.rax)) {
            Some(ResultCode::SUCCESS) => return true,
            Some(ResultCode::BUSY | ResultCode::INCOMPLETE) => spin_loop(),
            // APIC identifiers are counted from 0: this is the first that there is not.
            Some(ResultCode::INVALID_PARAMETER) => return false,
            other => fail(
                Stop::Vcpu,
                format_args!("vCPU {number}: CREATE_VCPU answered {other:?}"),
            ),
        }
    }
    fail(
        Stop::Vcpu,
        format_args!("vCPU {number}: CREATE_VCPU is busy for ever"),
    )
}

/// Has the host run it, and waits until it does.
fn run(number: usize, vmsa: u64) {
    launch(number, vmsa);
    let from = time_stamp();
    while ONLINE.of(number) == 0 {
        if time_stamp().wrapping_sub(from) > PATIENCE {
            fail(Stop::Vcpu, format_args!("vCPU {number} does not come up"));
        }
        spin_loop();
    }
}

/// Has the host run it.
pub fn launch(number: usize, vmsa: u64) {
    let Some(ghcb) = RegisteredGhcb::get() else {
        fail(Stop::Ghcb, format_args!("no GHCB"));
    };
    let creation = ApCreation::new()
        .with_operation(CREATE_NOW)
        .with_vmpl(paravisor::layout::GUEST_VMPL)
        .with_apic_id(u32::try_from(number).unwrap_or(u32::MAX));
    let started = ghcb.channel().exit(Exit {
        code: exit_code::AP_CREATION,
        info_1: creation.into_bits(),
        info_2: vmsa,
        rax: Some(features()),
        ..Exit::default()
    });
    if let Err(error) = started {
        fail(
            Stop::Vcpu,
            format_args!("vCPU {number}: the host refused to start it: {error:?}"),
        );
    }
}

/// The first function of a further vCPU.
extern "C" fn main(number: u64) -> ! {
    let bytes = usize::try_from(PAGE_SIZE).unwrap_or(0);
    let page = GuestPool::pool().alloc_shared(bytes, PAGE_SIZE);
    let ghcb = page.ok().and_then(|page| RegisteredGhcb::register(&page));
    let Some(ghcb) = ghcb else {
        super::ending::terminate(Stop::Ghcb)
    };
    let number = usize::try_from(number).unwrap_or(0);
    ONLINE.set(number, 1);
    let mut last = 0;
    loop {
        let command = COMMAND.load(Ordering::Acquire);
        if command == DISMISSED {
            let halt = Exit {
                code: exit_code::HLT,
                ..Exit::default()
            };
            // Whatever the answer is: there is nothing else to do.
            let _ = ghcb.channel().exit(halt);
        } else if command != last {
            let task = *TASK.lock();
            if let Some(task) = task {
                task(number);
            }
            last = command;
            DONE.set(number, command);
        }
        spin_loop();
    }
}

/// Runs `task` on the vCPUs below `cpus`, on this one as well, and returns when all are done.
pub fn run_on_all(cpus: usize, task: Task) {
    *TASK.lock() = Some(task);
    let command = COMMAND.load(Ordering::Relaxed) + 1;
    COMMAND.store(command, Ordering::Release);
    task(0);
    for number in 1..cpus {
        while DONE.of(number) != command {
            spin_loop();
        }
    }
}

/// Lets the further vCPUs halt for good.
pub fn dismiss() {
    COMMAND.store(DISMISSED, Ordering::Release);
}
