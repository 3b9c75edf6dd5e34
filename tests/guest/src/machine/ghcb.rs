// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registered GHCBs, one for each vCPU: a page of the pool, so that no page of the guest has to be converted.

use core::fmt;
use core::fmt::Write;
use guest_shim::SharedBuffer;
use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use snp::ghcb_msr::{Request, parse_register_ghcb};
use snp::instructions::{vmgexit, write_ghcb_msr};
use test_guest::console::Console;
use test_guest::ghcb_channel::{GhcbChannel, GhcbPage};

use super::cpu::{self, PerCpu};
use super::processor::request;
use super::spin_lock::SpinLock;

/// Addresses of the pages; 0 until one is registered.
static ADDRESSES: PerCpu = PerCpu::new();
/// Held for a line, so that the lines of several vCPUs stay whole.
static CONSOLE: SpinLock<()> = SpinLock::new(());
/// Looks at the console's lock before a line is written without it: its holder may have died.
const CONSOLE_PATIENCE: u32 = 10_000_000;

/// The registered GHCB of whichever vCPU uses this. The guest maps the window one to one, so its
/// address is a pointer.
#[derive(Debug, Clone, Copy)]
pub struct RegisteredGhcb(());

impl RegisteredGhcb {
    /// Registers a page of the pool with the host for this vCPU and makes it the target of every later VMGEXIT.
    /// `None` when the host does not accept exactly this page.
    pub fn register(page: &SharedBuffer) -> Option<Self> {
        // A buffer that is dropped stays in use for ever, as the host and the exception handlers
        // need it to.
        let address = page.address();
        let gpa = GuestPhysicalAddress::new(address);
        parse_register_ghcb(request(Request::RegisterGhcb(gpa)), gpa).ok()?;
        // SAFETY: CPL 0, and the page is shared; SVSM calls put the value back after themselves.
        unsafe { write_ghcb_msr(address) };
        ADDRESSES.set(cpu::number(), address);
        Some(Self(()))
    }

    /// The page, if it is registered.
    pub fn get() -> Option<Self> {
        (ADDRESSES.own() != 0).then_some(Self(()))
    }

    /// Exits through it.
    pub const fn channel(self) -> GhcbChannel<Self> {
        GhcbChannel::new(self)
    }

    /// Pointer to a byte of the page.
    fn byte(&self, offset: usize) -> *mut u8 {
        assert!((offset as u64) < PAGE_SIZE, "outside the GHCB");
        (self.address() + offset as u64) as *mut u8
    }
}

impl GhcbPage for RegisteredGhcb {
    fn address(&self) -> u64 {
        ADDRESSES.own()
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: The byte lies in the page, which is ours and mapped shared; the host may read
            // and write it at any time, hence volatile.
            unsafe { self.byte(offset + index).write_volatile(*byte) };
        }
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: As in `write`.
            *byte = unsafe { self.byte(offset + index).read_volatile() };
        }
    }

    fn exit(&self) {
        // SAFETY: The MSR holds the page's address: everything else puts it back after use.
        // Interrupts are off for ever.
        unsafe { vmgexit() };
    }
}

/// Writes a line to the console; without a GHCB it is lost.
pub fn console_line(line: fmt::Arguments<'_>) {
    let _whole = CONSOLE.lock_within(CONSOLE_PATIENCE);
    write_line(line);
}

/// Writes a line of what `look` finds while no other vCPU writes one: such lines are in the order in
/// which things happened.
pub fn console_line_of<T: fmt::Display>(look: impl FnOnce() -> T) -> T {
    let _whole = CONSOLE.lock_within(CONSOLE_PATIENCE);
    let found = look();
    write_line(format_args!("{found}"));
    found
}

fn write_line(line: fmt::Arguments<'_>) {
    if let Some(ghcb) = RegisteredGhcb::get() {
        let mut console = Console::new(ghcb.channel());
        // Writing to the console reports no errors.
        let _ = writeln!(console, "{line}");
    }
}
