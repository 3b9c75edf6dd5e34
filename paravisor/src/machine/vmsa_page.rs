// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VMSA of the guest's vCPU on this processor: a page of ours that the processor writes whenever
//! the guest stops.
//!
//! The guest can run only while EFER.SVME is set in it, so VMPL0 clears the bit before it looks at a
//! call and sets it when the answer is written (SVSM specification, section 5).

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use paravisor::termination::Reason;
use snp::address::{GuestPhysicalAddress, PageSize, Vmpl};
use snp::operands::InstructionCode;
use snp::operands::{RmpAdjustTarget, RmpPermissions};
use snp::svsm::CallRegisters;
use snp::vmsa::{EFER_SVME, EXIT_CODE_VMGEXIT, Vmsa};
use svsm_swiotlb::platform::{GuestMemory, PageInstructions};
use zerocopy::IntoBytes;

use super::{Machine, pointer};

/// The page.
#[derive(Debug)]
pub struct VmsaPage {
    page: GuestPhysicalAddress,
}

impl VmsaPage {
    /// Fills `page`, which is ours, and turns it into a VMSA that the guest's level may read.
    ///
    /// # Errors
    /// [`Reason::GrantFailed`].
    pub fn create(page: GuestPhysicalAddress, vmsa: &Vmsa) -> Result<Self, Reason> {
        let target = RmpAdjustTarget::grant(Vmpl::Vmpl2, RmpPermissions::READ).with_vmsa(true);
        Machine
            .write(page, vmsa.as_bytes())
            .map_err(|_| Reason::NotValidated)?;
        match Machine.rmpadjust(page, PageSize::Size4K, target) {
            Ok(InstructionCode::SUCCESS) => Ok(Self { page }),
            _ => Err(Reason::GrantFailed),
        }
    }

    /// Its address.
    pub const fn page(&self) -> GuestPhysicalAddress {
        self.page
    }

    /// Lets the host run the vCPU, with a TLB that knows nothing older (PCPU_ID).
    pub fn allow_running(&self) {
        self.write(offset_of!(Vmsa, pcpu_id), 0);
        self.efer().fetch_or(EFER_SVME, Ordering::AcqRel);
    }

    /// Keeps the host from running it.
    pub fn forbid_running(&self) {
        self.efer().fetch_and(!EFER_SVME, Ordering::AcqRel);
    }

    /// EFER, for changes in one step: until SVME is clear the host may run the guest, and the processor
    /// then stores a new value.
    fn efer(&self) -> &AtomicU64 {
        // SAFETY: An aligned field of a page that is mapped, private and ours for good. All accesses to
        // this field are atomic; the processor's are no accesses of Rust.
        unsafe { AtomicU64::from_ptr(self.field(offset_of!(Vmsa, efer))) }
    }

    /// Whether the guest stopped because it executed VMGEXIT.
    pub fn stopped_by_vmgexit(&self) -> bool {
        self.read(offset_of!(Vmsa, exit_code)) == EXIT_CODE_VMGEXIT
    }

    /// The registers of a call.
    pub fn call(&self) -> CallRegisters {
        CallRegisters {
            rax: self.read(offset_of!(Vmsa, rax)),
            rcx: self.read(offset_of!(Vmsa, rcx)),
            rdx: self.read(offset_of!(Vmsa, rdx)),
            r8: self.read(offset_of!(Vmsa, r8_to_r15)),
        }
    }

    /// The registers the guest goes on with.
    pub fn answer(&self, registers: &CallRegisters) {
        self.write(offset_of!(Vmsa, rax), registers.rax);
        self.write(offset_of!(Vmsa, rcx), registers.rcx);
        self.write(offset_of!(Vmsa, rdx), registers.rdx);
        self.write(offset_of!(Vmsa, r8_to_r15), registers.r8);
    }

    fn field(&self, offset: usize) -> *mut u64 {
        pointer::<u8>(self.page.bits()).wrapping_add(offset).cast()
    }

    fn read(&self, offset: usize) -> u64 {
        // SAFETY: The offset is that of an aligned field; the page is mapped, ours, and has no other
        // accessor in Rust. The processor changes it only while the guest runs.
        unsafe { self.field(offset).read_volatile() }
    }

    fn write(&self, offset: usize, value: u64) {
        // SAFETY: As for `read`.
        unsafe { self.field(offset).write_volatile(value) }
    }
}
