// SPDX-License-Identifier: MIT OR Apache-2.0
//! SVSM calls, and what the shim and the acceptance of RAM ask of their kernel.

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use guest_shim::transport::MsrTransport;
use guest_shim::virtio::{GlobalPool, Stop as HalStop, VirtioHal};
use guest_shim::{CallFailed, CopyIn, Platform, Pool, Reservation};
use protocol::Call;
use protocol::memory_form::{CallBlock, Unanswered, decode_answer, outer_call};
use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use snp::ghcb_msr::{Request, parse_page_state_change};
use snp::psc::PscOperation;
use snp::svsm::{CallId, CallRegisters, calling_area, core_protocol};
use spin::Once;
use test_guest::acceptance::AcceptancePlatform;
use test_guest::arena::Range;
use test_guest::page_state;
use test_guest::stop::Stop;

use super::cpu::{self, PerCpu};
use super::ending::fail;
use super::ghcb::RegisteredGhcb;
use super::memory::ExchangePage;
use super::processor::request;

/// Longest buffer that the reservation for small ones serves: request headers, status bytes,
/// descriptor lists.
pub const SMALL_BYTES: usize = 64;

/// Longest buffer that the reservation for network frames serves.
pub const FRAME_BYTES: usize = 2048;

/// Calling areas of the vCPUs.
static CALLING_AREAS: PerCpu = PerCpu::new();
/// Growths that each vCPU asked for.
pub static GROWS: PerCpu = PerCpu::new();
/// Give-backs that each vCPU asked for.
pub static RELEASES: PerCpu = PerCpu::new();

/// SVSM calls by the MSR protocol, over the calling area of whichever vCPU makes one.
#[derive(Debug, Clone, Copy)]
pub struct Svsm(());

impl Svsm {
    /// Calls over the boot vCPU's calling area, and those that [`Svsm::add`] names.
    ///
    /// # Safety
    /// The area is mapped private and writable for ever, and no Rust object lies in it.
    pub unsafe fn new(calling_area: u64) -> Option<Self> {
        CALLING_AREAS.set(0, calling_area);
        (calling_area != 0).then_some(Self(()))
    }

    /// Names the calling area of a further vCPU, which does not run yet.
    ///
    /// # Safety
    /// As for [`Svsm::new`].
    pub unsafe fn add(&self, cpu: usize, calling_area: u64) {
        CALLING_AREAS.set(cpu, calling_area);
    }

    /// Makes a call; `None` when the SVSM did not see it.
    pub fn call(&self, mut registers: CallRegisters) -> Option<CallRegisters> {
        let area = NonNull::new(CALLING_AREAS.own() as *mut u8)?;
        // SAFETY: Whoever named the area vouches for it. CPL 0, interrupts off for ever, and it is
        // this vCPU's. Lists lie in exchange pages; the wrong calls of the self-test name memory
        // that no Rust object lives in.
        let outcome = unsafe { MsrTransport::new(area).call(&mut registers) };
        outcome.ok().map(|()| registers)
    }

    /// Makes a call of the pool's protocol from a block in this vCPU's calling area, as a Linux module does.
    ///
    /// # Errors
    /// See [`Unanswered`]; [`Unanswered::NotRun`] also when this vCPU has no calling area.
    pub fn call_from_memory(
        &self,
        protocol: u32,
        call: &CallRegisters,
    ) -> Result<CallRegisters, Unanswered> {
        let area = CALLING_AREAS.own();
        if area == 0 {
            return Err(Unanswered::NotRun);
        }
        let block = area + calling_area::BUFFER;
        // SAFETY: Behind the header of this vCPU's calling area, whose mapping is vouched for; the area is aligned to its
        // page, and no Rust object lies in it.
        unsafe { (block as *mut CallBlock).write_volatile(CallBlock::of(call)) };
        let outer = outer_call(protocol, GuestPhysicalAddress::new(block));
        decode_answer(&self.call(outer).ok_or(Unanswered::NotRun)?)
    }
}

/// The shim's view of this kernel.
#[derive(Debug)]
pub struct Kernel {
    svsm: Svsm,
    window: Range,
}

impl Kernel {
    /// A kernel that has mapped `window` shared, one to one, whole and write-back.
    ///
    /// # Safety
    /// That is so, for ever, and no other mapping of it exists.
    pub const unsafe fn new(svsm: Svsm, window: Range) -> Self {
        Self { svsm, window }
    }
}

// SAFETY: `new` vouches for the window's mapping, which all vCPUs share; interrupts are off for
// ever; the copy functions are the shim's own.
unsafe impl Platform for Kernel {
    fn call(&self, registers: &mut CallRegisters) -> Result<(), CallFailed> {
        let id = CallId::from_rax(registers.rax);
        if id.protocol != core_protocol::NUMBER {
            if id.call == Call::Grow.number() {
                GROWS.count();
            } else if id.call == Call::Release.number() {
                RELEASES.count();
            }
        }
        *registers = self.svsm.call(*registers).ok_or(CallFailed)?;
        Ok(())
    }

    fn cpu(&self) -> usize {
        cpu::number()
    }

    fn interrupts_save(&self) -> usize {
        0
    }

    fn interrupts_restore(&self, _saved: usize) {}

    fn translate(&self, address: u64, bytes: u64) -> Option<NonNull<u8>> {
        let end = address.checked_add(bytes)?;
        let inside = address >= self.window.start && end <= self.window.end;
        if inside {
            NonNull::new(address as *mut u8)
        } else {
            None
        }
    }
}

/// The pool of the first window, where that of the second one is [`POOL`].
pub static FIRST_POOL: Once<Pool<'static, Kernel>> = Once::new();
/// The pool, for the block driver, whose memory interface has no object.
pub static POOL: Once<Pool<'static, Kernel>> = Once::new();
/// Extents for the data of every request in flight.
pub static LARGE: ReservationSlot = ReservationSlot::empty();
/// Extents for the data of every NVMe read in flight.
pub static BLOCKS: ReservationSlot = ReservationSlot::empty();
/// Extents for network frames.
pub static FRAMES: ReservationSlot = ReservationSlot::empty();
/// Extents for their headers, status bytes and descriptor lists.
pub static SMALL: ReservationSlot = ReservationSlot::empty();

/// A reservation that the driver's memory interface finds while it is there.
#[derive(Debug)]
pub struct ReservationSlot(UnsafeCell<Option<Reservation>>);

// SAFETY: Contents change only while no vCPU uses a driver; the functions say so.
unsafe impl Sync for ReservationSlot {}

impl ReservationSlot {
    const fn empty() -> Self {
        Self(UnsafeCell::new(None))
    }

    /// Puts a reservation in.
    ///
    /// # Safety
    /// The slot is empty, and no vCPU uses a driver.
    pub unsafe fn put(&self, reservation: Reservation) {
        // SAFETY: The caller vouches that nobody looks.
        unsafe { *self.0.get() = Some(reservation) };
    }

    /// Takes the reservation out.
    ///
    /// # Safety
    /// No vCPU uses a driver.
    pub unsafe fn take(&self) -> Option<Reservation> {
        // SAFETY: The caller vouches that nobody looks.
        unsafe { (*self.0.get()).take() }
    }

    /// The reservation, if there is one.
    pub fn get(&'static self) -> Option<&'static Reservation> {
        // SAFETY: The contents change by `put` and `take` only, whose callers vouch for no reference.
        unsafe { (*self.0.get()).as_ref() }
    }
}

/// The block driver's memory interface.
pub type Hal = VirtioHal<GuestPool>;

/// Names [`POOL`] to [`Hal`].
#[derive(Debug)]
pub struct GuestPool;

// SAFETY: `POOL` never changes once it is set, and no device register is ever mapped.
unsafe impl GlobalPool for GuestPool {
    type Platform = Kernel;

    // The disk job looks at a buffer only after the request's status was good.
    const DEVICE_WRITES: CopyIn = CopyIn::DeviceWritten;

    fn pool() -> &'static Pool<'static, Kernel> {
        POOL.get().expect("the driver is used after attach")
    }

    fn reservation(length: usize) -> Option<&'static Reservation> {
        if length <= SMALL_BYTES {
            SMALL.get()
        } else if length <= FRAME_BYTES {
            FRAMES.get()
        } else {
            LARGE.get()
        }
    }

    fn mmio(_address: u64, _bytes: usize) -> Option<NonNull<u8>> {
        None
    }

    fn stop(reason: HalStop) -> ! {
        match reason {
            HalStop::Share(no_room) => fail(Stop::Disk, format_args!("{no_room}")),
            other => fail(
                Stop::Disk,
                format_args!("the driver's memory interface: {other:?}"),
            ),
        }
    }
}

/// What accepting RAM needs: SVSM calls, a list page, and page-state changes by the GHCB where there
/// is one, else by the MSR protocol.
#[derive(Debug)]
pub struct Acceptance<'a> {
    /// SVSM calls.
    pub svsm: &'a Svsm,
    /// Page for the lists.
    pub list: ExchangePage,
}

impl Acceptance<'_> {
    /// Asks the host for one page at a time.
    pub fn change_by_msr(range: Range, operation: PscOperation) -> bool {
        let mut address = range.start;
        while address < range.end {
            let page = GuestPhysicalAddress::new(address);
            let answer = request(Request::page_state_change(page, operation));
            if parse_page_state_change(answer).is_err() {
                return false;
            }
            address += PAGE_SIZE;
        }
        true
    }
}

impl AcceptancePlatform for Acceptance<'_> {
    fn make_private(&mut self, range: Range) -> bool {
        match RegisteredGhcb::get() {
            Some(ghcb) => page_state::change(&ghcb.channel(), range, PscOperation::Private).is_ok(),
            None => Self::change_by_msr(range, PscOperation::Private),
        }
    }

    fn call(&mut self, registers: CallRegisters) -> Option<CallRegisters> {
        self.svsm.call(registers)
    }

    fn list_address(&self) -> u64 {
        self.list.address()
    }

    fn write_list(&mut self, bytes: &[u8]) {
        self.list.write(bytes);
    }

    fn read_list(&self, bytes: &mut [u8]) {
        self.list.read(bytes);
    }
}
