// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several processors: starting them, and making them leave their guests.
//!
//! A processor says that it enters a guest, or waits, before it gives the machine away, and that it
//! has left before it asks for the machine again. Who holds the machine therefore knows that a
//! processor it sees outside a guest stays outside, and that an NMI reaches one that it sees
//! inside: an NMI that comes before VMRUN ends the run at its first instruction.

use core::hint::spin_loop;
use core::ops::Range;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

use snp_host::hardware::{Processor, Processors};
use snp_host::launch::{CPU_SLOTS, MAX_CPUS};
use snp_host::residence::Step;

use super::BareMetal;

/// What a processor does: [`OUTSIDE`], [`INSIDE`], [`WAITING`].
static STATES: [AtomicU32; CPU_SLOTS] = [const { AtomicU32::new(OUTSIDE) }; CPU_SLOTS];
/// Processors that have reached [`register`].
static STARTED: AtomicU32 = AtomicU32::new(0);

const OUTSIDE: u32 = 0;
const INSIDE: u32 = 1;
const WAITING: u32 = 2;

/// Local APIC registers.
pub(super) const IDENTIFIER: usize = 0xFEE0_0020;
const COMMAND_LOW: usize = 0xFEE0_0300;
const COMMAND_HIGH: usize = 0xFEE0_0310;
/// Interrupt commands: assert, and the delivery mode.
const SEND_NMI: u32 = 0x4400;
const SEND_INIT: u32 = 0x4500;
/// The vector is the page number of the stub.
const SEND_STARTUP: u32 = 0x4600 | (STUB_ADDRESS >> 12);
const DELIVERY_PENDING: u32 = 1 << 12;

/// Where `boot.S` expects its real-mode stub; guest RAM, whose bytes are put back.
const STUB_ADDRESS: u32 = 0x8000;
const STACK_BYTES: usize = 0x4_0000;
/// Ticks of the time stamp counter until a processor that does not start is missing: seconds.
const START_TICKS: u64 = 20_000_000_000;
const INIT_TICKS: u64 = 1_000_000;
/// Ticks until an NMI that had no effect is sent again: a second or so.
const AGAIN_TICKS: u64 = 2_000_000_000;

#[repr(C, align(4096))]
struct Stack([u8; STACK_BYTES]);

/// Stacks of all processors but QEMU's CPU 0: one for each of the guest, because there is one more (`replacement`).
static mut STACKS: [Stack; CPU_SLOTS] = [const { Stack([0; STACK_BYTES]) }; CPU_SLOTS];

/// What a processor runs once it has a stack.
pub type Entry = extern "sysv64" fn() -> !;

unsafe extern "C" {
    static real_mode_stub: u8;
    static real_mode_stub_end: u8;
    static mut application_stack: u64;
    static mut application_entry: Entry;
}

pub(super) fn read_apic(register: usize) -> u32 {
    // SAFETY: the local APIC's page is identity mapped.
    unsafe { ptr::with_exposed_provenance::<u32>(register).read_volatile() }
}

pub(super) fn write_apic(register: usize, value: u32) {
    // SAFETY: as for `read_apic`; interrupts are for guests, NMIs for this host.
    unsafe { ptr::with_exposed_provenance_mut::<u32>(register).write_volatile(value) };
}

/// Sends an interrupt. The guest's next command keeps its destination: it may have written that
/// part already.
fn send(cpu: u32, command: u32) {
    let destination = read_apic(COMMAND_HIGH);
    write_apic(COMMAND_HIGH, cpu << 24);
    write_apic(COMMAND_LOW, command);
    while read_apic(COMMAND_LOW) & DELIVERY_PENDING != 0 {
        spin_loop();
    }
    write_apic(COMMAND_HIGH, destination);
}

/// Number of the processor that runs this.
pub fn own_number() -> u32 {
    (read_apic(IDENTIFIER) >> 24).min(MAX_CPUS - 1)
}

fn wait_until(ticks: u64, condition: impl Fn() -> bool) -> bool {
    let start = BareMetal.timestamp();
    while !condition() {
        if BareMetal.timestamp().wrapping_sub(start) > ticks {
            return condition();
        }
        spin_loop();
    }
    true
}

/// Says that this processor runs: the next one may start.
pub fn register() {
    STARTED.fetch_add(1, Ordering::SeqCst);
}

/// Starts these processors at `entry`, one after the other; the number of one that does not come.
pub fn start(numbers: Range<u32>, entry: Entry) -> Result<(), u32> {
    let bytes = (&raw const real_mode_stub_end).addr() - (&raw const real_mode_stub).addr();
    let page = ptr::with_exposed_provenance_mut::<u8>(STUB_ADDRESS as usize);
    let mut kept = [0_u8; 64];
    assert!(bytes <= kept.len());
    // SAFETY: RAM that no processor uses at this moment; it is put back below.
    unsafe {
        ptr::copy_nonoverlapping(page, kept.as_mut_ptr(), bytes);
        ptr::copy_nonoverlapping(&raw const real_mode_stub, page, bytes);
    }
    let started = { numbers }.try_for_each(|number| start_one(number, entry));
    // SAFETY: as above; every processor has left the stub.
    unsafe { ptr::copy_nonoverlapping(kept.as_ptr(), page, bytes) };
    started
}

fn start_one(cpu: u32, entry: Entry) -> Result<(), u32> {
    let before = STARTED.load(Ordering::SeqCst);
    let stacks = (&raw mut STACKS).addr();
    let end = stacks + cpu as usize * STACK_BYTES;
    // SAFETY: the processor before this one has taken its stack and its way.
    unsafe {
        (&raw mut application_stack).write_volatile(end as u64);
        (&raw mut application_entry).write_volatile(entry);
    }
    send(cpu, SEND_INIT);
    wait_until(INIT_TICKS, || false);
    send(cpu, SEND_STARTUP);
    if wait_until(START_TICKS, || STARTED.load(Ordering::SeqCst) != before) {
        Ok(())
    } else {
        Err(cpu)
    }
}

fn state(cpu: u32) -> Option<&'static AtomicU32> {
    STATES.get(usize::try_from(cpu).ok()?)
}

/// Processor `cpu`, which runs this and holds the machine, is about to take this step.
pub fn about_to(cpu: u32, step: Step) {
    let next = match step {
        Step::Guest => INSIDE,
        Step::Wait { .. } => WAITING,
    };
    if let Some(state) = state(cpu) {
        state.store(next, Ordering::SeqCst);
    }
}

/// Processor `cpu`, which runs this, is back.
pub fn back(cpu: u32) {
    if let Some(state) = state(cpu) {
        state.store(OUTSIDE, Ordering::SeqCst);
    }
}

/// Ends the waits of all other processors.
pub fn wake_all(own: u32) {
    for cpu in (0..MAX_CPUS).filter(|cpu| *cpu != own) {
        BareMetal.wake(cpu);
    }
}

fn is_outside(cpu: u32) -> bool {
    state(cpu).is_none_or(|state| state.load(Ordering::SeqCst) == OUTSIDE)
}

/// Waits for a processor that was sent an NMI. QEMU can lose one: its TCG changes a processor's pending interrupts
/// without a lock when a guest writes CR8. One too many ends a later entry at once and is harmless.
fn await_outside(cpu: u32) {
    while !wait_until(AGAIN_TICKS, || is_outside(cpu)) {
        send(cpu, SEND_NMI);
    }
}

impl Processors for BareMetal {
    fn kick_guests(&self, own: u32) -> u32 {
        let is_inside =
            |cpu: &u32| state(*cpu).is_some_and(|state| state.load(Ordering::SeqCst) == INSIDE);
        let mut kicked = 0;
        let mut inside = [false; CPU_SLOTS];
        for (cpu, flag) in (0..).zip(&mut inside) {
            if cpu != own && is_inside(&cpu) {
                send(cpu, SEND_NMI);
                *flag = true;
                kicked += 1;
            }
        }
        for (cpu, _) in (0..).zip(inside).filter(|(_, flag)| *flag) {
            await_outside(cpu);
        }
        kicked
    }

    fn wake(&self, cpu: u32) {
        if is_outside(cpu) {
            return;
        }
        send(cpu, SEND_NMI);
        await_outside(cpu);
    }

    fn leave_at_once(&self, own: u32) {
        send(own, SEND_NMI);
    }
}
