// SPDX-License-Identifier: MIT OR Apache-2.0
//! VMPL0 on further processors: their VMSA, and the exit that starts them.

use paravisor::apic_ids::ProcessorId;
use paravisor::termination::Reason;
use paravisor::vcpu_control::{ProcessorStart, StartError, VcpuControl};
use snp::address::{GuestPhysicalAddress, PageSize, Vmpl};
use snp::operands::{InstructionCode, RmpAdjustTarget};
use svsm_swiotlb::platform::{Fault, GuestMemory, PageInstructions};
use x86_64::registers::control::{Cr0, Cr3, Cr4, Efer};
use zerocopy::IntoBytes;

use super::ghcb::{ApOperation, Ghcb};
use super::{Machine, msr_exit, processor};

/// RMPADJUST needs a lower level as its target; none gets any access.
const NOBODY: RmpAdjustTarget = RmpAdjustTarget::revoke(Vmpl::Vmpl1);

/// The state in which `processor` starts: as this one is now, on its own stack.
fn start_state(processor: &processor::Processor) -> ProcessorStart {
    let (root, _) = Cr3::read_raw();
    ProcessorStart {
        entry: (crate::start_further as *const ()).addr() as u64,
        // Where a call would have left it: a return address, of which there is none, above 16 bytes.
        stack: processor.stack_end() - 8,
        gs_base: processor.gs_base(),
        cr0: Cr0::read_raw(),
        cr3: root.start_address().as_u64(),
        cr4: Cr4::read_raw(),
        efer: Efer::read_raw(),
        features: msr_exit::sev_features(),
    }
}

/// Makes the page a VMSA, or an ordinary page again.
fn adjust(page: GuestPhysicalAddress, vmsa: bool) -> Result<(), StartError> {
    match Machine.rmpadjust(page, PageSize::Size4K, NOBODY.with_vmsa(vmsa)) {
        Ok(InstructionCode::SUCCESS) => Ok(()),
        Ok(_) => Err(StartError::Fatal(Reason::GrantFailed)),
        Err(Fault) => Err(StartError::Fatal(Reason::NotValidated)),
    }
}

impl VcpuControl for Machine {
    fn start_processor(&self, id: ProcessorId) -> Result<(), StartError> {
        let ProcessorId { number, apic_id } = id;
        let processor = processor::of(number).ok_or(StartError::Refused)?;
        let page = processor.vmsa_page();
        let start = start_state(processor);
        self.write(page, start.vmsa().as_bytes())
            .map_err(|Fault| StartError::Fatal(Reason::NotValidated))?;
        adjust(page, true)?;
        Ghcb::new(processor::current().ghcb)
            .create_vcpu(
                ApOperation::CreateNow,
                apic_id,
                Vmpl::Vmpl0,
                page,
                start.features,
            )
            .or_else(|_| {
                // Without this the host could run what it has refused. It fails while the vCPU runs:
                // then the host has lied, and what it is at cannot be known.
                adjust(page, false)?;
                Err(StartError::Refused)
            })
    }
}
