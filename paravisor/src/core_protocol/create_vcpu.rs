// SPDX-License-Identifier: MIT OR Apache-2.0
//! CREATE_VCPU: a page of the guest becomes the VMSA of a further vCPU. The first one of a processor
//! starts VMPL0 there.

use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PageSize, Vmpl};
use snp::operands::{RmpAdjustTarget, RmpPermissions};
use snp::svsm::{CallRegisters, ResultCode};
use snp::vmsa::Vmsa;
use svsm_swiotlb::page_state::{HeldPages, PageState};
use svsm_swiotlb::platform::{GuestMemory, PageInstructions};
use zerocopy::{FromZeros, IntoBytes};

use super::{CallResult, CoreProtocol, HOST_REFUSED, Refusal, lost, require_page};
use crate::apic_ids::ProcessorId;
use crate::guest_vmsa::acceptable;
use crate::vcpu_control::{StartError, VcpuControl};
use crate::vcpu_table::Reservation;

impl<M: PageInstructions + GuestMemory + VcpuControl> CoreProtocol<'_, M> {
    /// RCX: VMSA page, RDX: calling area, R8: APIC identifier, which must have no vCPU yet.
    pub(super) fn create_vcpu(&self, registers: &CallRegisters) -> CallResult {
        let vmsa = GuestPhysicalAddress::new(registers.rcx);
        let area = GuestPhysicalAddress::new(registers.rdx);
        require_page(vmsa)?;
        require_page(area)?;
        let processor = u32::try_from(registers.r8)
            .ok()
            .and_then(|apic_id| self.processors.find(apic_id))
            .ok_or(ResultCode::INVALID_PARAMETER)?;
        if vmsa == area {
            return Err(ResultCode::INVALID_PARAMETER.into());
        }
        let vmsa_page = self.hold(vmsa, &[PageState::Valid])?;
        let area_page = match self.hold(area, &[PageState::Valid]) {
            Ok(page) => page,
            Err(refusal) => {
                vmsa_page.keep();
                return Err(refusal);
            }
        };
        // Hosts refuse to run a VMSA at a multiple of 2 MiB (erratum).
        if vmsa.is_aligned(LARGE_PAGE_SIZE) {
            return unchanged([vmsa_page, area_page], ResultCode::INVALID_PARAMETER);
        }
        // A second VMSA would let the host run the guest on a processor that VMPL0 believes stopped.
        let Some(slot) = self.vcpus.reserve(processor.number) else {
            return unchanged([vmsa_page, area_page], ResultCode::INVALID_REQUEST);
        };
        match self.seal(vmsa) {
            Ok(true) => {}
            Ok(false) => return unchanged([vmsa_page, area_page], ResultCode::INVALID_PARAMETER),
            Err(refusal) => {
                area_page.keep();
                return Err(refusal); // quarantines the VMSA page
            }
        }
        if let Err(refusal) = self.clear_calling_area(area) {
            self.owner
                .grant(vmsa, PageSize::Size4K)
                .map_err(|_| lost())?;
            vmsa_page.keep();
            return Err(refusal); // quarantines the calling area
        }
        if let Err(refusal) = self.serve(&slot, processor) {
            area_page.keep();
            self.owner
                .grant(vmsa, PageSize::Size4K)
                .map_err(|_| lost())?;
            vmsa_page.keep();
            return Err(refusal);
        }
        // Last, because nothing after it can fail: a VMSA is either in the table or does not exist.
        // The guest may go on reading it: Linux takes SEV_FEATURES from there.
        let target = RmpAdjustTarget::grant(Vmpl::Vmpl2, RmpPermissions::READ).with_vmsa(true);
        if self.owner.adjust(vmsa, PageSize::Size4K, target).is_err() {
            area_page.keep();
            return Err(lost()); // quarantines the VMSA page
        }
        slot.fill(vmsa, area);
        vmsa_page.change_to(PageState::Vmsa);
        area_page.change_to(PageState::CallingArea);
        Ok(())
    }

    /// Sees to it that VMPL0 runs on the processor. There it finds no vCPU yet and waits. The slot is
    /// ours, so nobody else starts it meanwhile.
    fn serve(&self, slot: &Reservation<'_>, processor: ProcessorId) -> CallResult {
        if slot.is_served() {
            return Ok(());
        }
        match self.owner.machine().start_processor(processor) {
            Ok(()) => {
                slot.set_served();
                Ok(())
            }
            Err(StartError::Refused) => Err(HOST_REFUSED.into()),
            Err(StartError::Fatal(reason)) => Err(Refusal::Fatal(reason)),
        }
    }

    /// Takes the page away from the guest and looks at it. `false`: its contents are no acceptable
    /// VMSA and it is the guest's again.
    fn seal(&self, page: GuestPhysicalAddress) -> Result<bool, Refusal> {
        // Revoked and flushed before it is read: no vCPU can change it between check and use.
        self.owner
            .revoke(page, PageSize::Size4K)
            .map_err(|_| lost())?;
        self.owner.machine().flush();
        let mut vmsa = Vmsa::new_zeroed();
        self.owner
            .machine()
            .read(page, vmsa.as_mut_bytes())
            .map_err(|_| lost())?;
        if acceptable(&vmsa, self.guest_features) {
            return Ok(true);
        }
        self.owner
            .grant(page, PageSize::Size4K)
            .map_err(|_| lost())?;
        Ok(false)
    }
}

/// Refuses; the pages are what they were.
fn unchanged(pages: [HeldPages<'_>; 2], code: ResultCode) -> CallResult {
    pages.into_iter().for_each(HeldPages::keep);
    Err(code.into())
}
