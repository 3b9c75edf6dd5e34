// SPDX-License-Identifier: MIT OR Apache-2.0
//! A page of ours that is shared with the host: GHCB and #HV doorbell.
//!
//! The host writes to it at any time, so no reference to its bytes ever exists; every access is
//! volatile and copies.

use core::arch::asm;
use core::cell::UnsafeCell;

use paravisor::layout::{PAGE_BYTES, PageBytes};
use paravisor::processor_memory::ProcessorMemory;
use paravisor::range_list::PhysRange;
use paravisor::termination::Reason;
use snp::address::{GuestPhysicalAddress, PageSize};
use snp::instructions::pvalidate;
use snp::operands::InstructionCode;

use super::{msr_exit, pointer};

/// Bytes of the page.
const BYTES: usize = size_of::<PageBytes>();
/// Bytes of a cache line.
const CACHE_LINE: usize = 64;

/// One page.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct HostPage(UnsafeCell<PageBytes>);

// SAFETY: All accesses are volatile and of a size that the processor does not tear; the other side
// of the page, the host, is unsynchronised anyway and its data are never trusted.
unsafe impl Sync for HostPage {}

impl HostPage {
    /// A zero page, private until [`Self::share`].
    pub const fn new() -> Self {
        Self(UnsafeCell::new([0; BYTES]))
    }

    /// A page of another processor; `None` unless `memory` says that the one at `gpa` is shared with the host.
    pub fn of(memory: &ProcessorMemory, gpa: u64) -> Option<&'static Self> {
        let page = PhysRange::new(gpa, PAGE_BYTES)?;
        let is_one = gpa.is_multiple_of(PAGE_BYTES) && memory.host_pages().contains(&page);
        // SAFETY: The page is in memory that the plan keeps for this: aligned, mapped shared, never
        // validated, and no Rust object is in it but the cell, which any bytes are.
        is_one.then(|| unsafe { &*pointer::<Self>(gpa) })
    }

    /// Its address.
    pub fn gpa(&self) -> GuestPhysicalAddress {
        GuestPhysicalAddress::new(self.0.get().addr() as u64)
    }

    /// Its bytes as a range.
    pub fn range(&self) -> PhysRange {
        let start = self.gpa().bits();
        PhysRange {
            start,
            end: start + PAGE_BYTES,
        }
    }

    /// Makes the page shared: rescinds the validation first, then asks the host. It must not be
    /// touched again until the page tables map it with the C-bit clear.
    ///
    /// # Errors
    /// [`Reason::RescindFailed`] and [`Reason::GhcbShare`].
    pub fn share(&self) -> Result<(), Reason> {
        self.evict();
        // SAFETY: We run at VMPL0 and CPL 0. The page holds no Rust object but the cell itself,
        // whose bytes mean nothing until they are written through the new mapping.
        let result = unsafe { pvalidate(self.gpa().bits(), PageSize::Size4K, false) };
        match result {
            Ok(done) if done.code == InstructionCode::SUCCESS && !done.unchanged => {}
            _ => return Err(Reason::RescindFailed),
        }
        msr_exit::share(self.gpa())
    }

    /// Evicts the page from the caches: a line written through the private mapping must not be written
    /// back after the page has become shared.
    fn evict(&self) {
        for offset in (0..BYTES).step_by(CACHE_LINE) {
            // SAFETY: Flushing a line of our own page changes no byte of it.
            unsafe {
                asm!("clflush [{}]", in(reg) self.0.get().wrapping_byte_add(offset),
                    options(nostack, preserves_flags));
            }
        }
    }

    /// Zeroes the page, whose bytes are undefined after [`Self::share`].
    pub fn clear(&self) {
        for offset in (0..BYTES).step_by(8) {
            self.write(offset, 0_u64);
        }
    }

    /// Reads a value once. `offset` is aligned for it and inside the page.
    pub fn read<T: Plain>(&self, offset: usize) -> T {
        // SAFETY: `pointer` yields an aligned address inside the page; any bits are a `T`.
        unsafe { self.pointer::<T>(offset).read_volatile() }
    }

    /// Writes a value once. `offset` is aligned for it and inside the page.
    pub fn write<T: Plain>(&self, offset: usize, value: T) {
        // SAFETY: As for `read`; nobody holds a reference to the bytes.
        unsafe { self.pointer::<T>(offset).write_volatile(value) }
    }

    /// Writes a value and gives the one before, in one step that the host cannot get between. `offset`
    /// is aligned for it and inside the page.
    pub fn exchange(&self, offset: usize, value: u16) -> u16 {
        let field = self.pointer::<u16>(offset);
        let old: u16;
        // SAFETY: As for `write`; an instruction and no atomic, which would be a reference.
        unsafe {
            asm!("xchg word ptr [{}], {:x}", in(reg) field, inout(reg) value => old,
                options(nostack, preserves_flags));
        }
        old
    }

    /// Address of a field; a misplaced offset is a bug of ours and ends the VM.
    fn pointer<T>(&self, offset: usize) -> *mut T {
        let fits = offset
            .checked_add(size_of::<T>())
            .is_some_and(|end| end <= BYTES);
        if !fits || !offset.is_multiple_of(align_of::<T>()) {
            msr_exit::terminate(Reason::Panic.code());
        }
        self.0.get().wrapping_byte_add(offset).cast()
    }
}

/// Integers that the processor reads and writes in one piece.
pub trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
