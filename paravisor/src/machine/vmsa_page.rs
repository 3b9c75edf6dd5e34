// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VMSA of a guest's vCPU: a page that the processor writes whenever the guest stops.
//!
//! The guest can run only while EFER.SVME is set in it, so VMPL0 clears the bit before it looks at a
//! call and sets it when the answer is written (SVSM specification, section 5).
//!
//! The boot vCPU's page is ours; the others are pages of the guest, whose state word the caller holds
//! and which the host may take away. So every access can fault.

use core::arch::asm;
use core::mem::offset_of;

use paravisor::termination::Reason;
use snp::address::{GuestPhysicalAddress, PageSize, Vmpl};
use snp::operands::{InstructionCode, RmpAdjustTarget, RmpPermissions};
use snp::svsm::CallRegisters;
use snp::vmsa::{EFER_SVME, EXIT_CODE_VMGEXIT, Vmsa};
use svsm_swiotlb::platform::{Fault, GuestMemory, PageInstructions};
use zerocopy::IntoBytes;

use super::Machine;

/// R9, behind R8.
const R9: usize = offset_of!(Vmsa, r8_to_r15) + size_of::<u64>();

/// The page.
#[derive(Debug, Clone, Copy)]
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

    /// A page that is a VMSA.
    pub const fn of(page: GuestPhysicalAddress) -> Self {
        Self { page }
    }

    /// Its address.
    pub const fn page(&self) -> GuestPhysicalAddress {
        self.page
    }

    /// Lets the host run the vCPU, with a TLB that knows nothing older (PCPU_ID).
    ///
    /// # Errors
    /// [`Fault`] when the page is gone; likewise below.
    pub fn allow_running(&self) -> Result<(), Fault> {
        self.write(offset_of!(Vmsa, pcpu_id), 0)?;
        self.set_runnable(true)
    }

    /// Keeps the host from running it.
    pub fn forbid_running(&self) -> Result<(), Fault> {
        self.set_runnable(false)
    }

    /// Whether the guest stopped because it executed VMGEXIT.
    pub fn stopped_by_vmgexit(&self) -> Result<bool, Fault> {
        Ok(self.read(offset_of!(Vmsa, exit_code))? == EXIT_CODE_VMGEXIT)
    }

    /// The registers of a call.
    pub fn call(&self) -> Result<CallRegisters, Fault> {
        Ok(CallRegisters {
            rax: self.read(offset_of!(Vmsa, rax))?,
            rcx: self.read(offset_of!(Vmsa, rcx))?,
            rdx: self.read(offset_of!(Vmsa, rdx))?,
            r8: self.read(offset_of!(Vmsa, r8_to_r15))?,
            r9: self.read(R9)?,
        })
    }

    /// The registers the guest goes on with.
    pub fn answer(&self, registers: &CallRegisters) -> Result<(), Fault> {
        self.write(offset_of!(Vmsa, rax), registers.rax)?;
        self.write(offset_of!(Vmsa, rcx), registers.rcx)?;
        self.write(offset_of!(Vmsa, rdx), registers.rdx)?;
        self.write(offset_of!(Vmsa, r8_to_r15), registers.r8)?;
        self.write(R9, registers.r9)
    }

    /// Sets or clears EFER.SVME, without which the host cannot run the vCPU, and no other bit, in one step: the processor
    /// writes EFER whenever the guest stops. A host that runs the vCPU at this moment only stalls us: the write is a
    /// nested fault until it stops.
    fn set_runnable(&self, runnable: bool) -> Result<(), Fault> {
        const BIT: u32 = EFER_SVME.trailing_zeros();
        let byte = self.page.bits() + offset_of!(Vmsa, efer) as u64 + u64::from(BIT / 8);
        let bit: u8 = 1 << (BIT % 8);
        let (set, keep) = if runnable { (bit, !0) } else { (0, !bit) };
        let faulted: u64;
        // SAFETY: A byte of a VMSA page, which is ours or the guest's, and in which no Rust object
        // lives; the caller holds the word of a page of the guest. A fault resumes at the third label,
        // of either instruction.
        unsafe {
            asm!(
                "2: lock and byte ptr [{byte}], {keep}",
                "5: lock or byte ptr [{byte}], {set}",
                "xor {faulted:e}, {faulted:e}",
                "jmp 4f",
                "3: mov {faulted:e}, 1",
                "4:",
                ".pushsection .fixup_table, \"a\"",
                ".quad 2b, 3b",
                ".quad 5b, 3b",
                ".popsection",
                byte = in(reg) byte,
                keep = in(reg_byte) keep,
                set = in(reg_byte) set,
                faulted = out(reg) faulted,
                options(nostack),
            );
        }
        if faulted == 0 { Ok(()) } else { Err(Fault) }
    }

    const fn field(&self, offset: usize) -> GuestPhysicalAddress {
        GuestPhysicalAddress::new(self.page.bits() + offset as u64)
    }

    fn read(&self, offset: usize) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        Machine.read(self.field(offset), &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&self, offset: usize, value: u64) -> Result<(), Fault> {
        Machine.write(self.field(offset), &value.to_le_bytes())
    }
}
