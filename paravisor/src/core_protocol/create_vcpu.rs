// SPDX-License-Identifier: MIT OR Apache-2.0
//! CREATE_VCPU: a page of the guest becomes the VMSA of a vCPU. The first one of a processor starts VMPL0 there; a later one
//! takes the place of the one before, which firmware and kernels do not delete first.

use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PageSize, Vmpl};
use snp::operands::{RmpAdjustTarget, RmpPermissions};
use snp::svsm::{CallRegisters, ResultCode};
use snp::vmsa::Vmsa;
use svsm_swiotlb::page_state::{HeldPages, PageState};
use svsm_swiotlb::platform::{GuestMemory, PageInstructions};
use zerocopy::{FromZeros, IntoBytes};

use super::delete_vcpu::Leaving;
use super::{CallResult, CoreProtocol, HOST_REFUSED, Refusal, lost, require_page};
use crate::apic_ids::ProcessorId;
use crate::guest_vmsa::{acceptable, sealed_fields};
use crate::vcpu_control::{StartError, VcpuControl};
use crate::vcpu_table::{Reservation, VcpuIndex};

/// A processor's place, taken for a new vCPU.
#[derive(Debug)]
enum Place<'a> {
    /// It has no vCPU.
    Free(Reservation<'a>),
    /// It has one.
    Taken(Leaving<'a>),
}

impl<'a> Place<'a> {
    /// Gives it back as it was.
    fn keep(self) {
        if let Self::Taken(leaving) = self {
            leaving.keep();
        }
    }

    /// Splits the calling area off the vCPU that goes, unless that has moved it meanwhile or lost it.
    fn leave_area(self, area: GuestPhysicalAddress) -> Result<(Self, HeldPages<'a>), Refusal> {
        let (place, area_page) = match self {
            Self::Taken(leaving) => {
                let (leaving, area_page) = leaving.leave_area(area);
                (Self::Taken(leaving), area_page)
            }
            free @ Self::Free(_) => (free, None),
        };
        match area_page {
            Some(area_page) => Ok((place, area_page)),
            None => {
                place.keep();
                Err(ResultCode::INVALID_ADDRESS.into())
            }
        }
    }
}

impl<M: PageInstructions + GuestMemory + VcpuControl> CoreProtocol<'_, M> {
    /// RCX: VMSA page, RDX: calling area, R8: APIC identifier.
    ///
    /// A vCPU that the processor has and that does not run is replaced, and its pages are the guest's again; the new one may
    /// have its calling area. One that runs is IN_USE, one whose call is served BUSY, and the boot vCPU stays. Whatever can
    /// be refused is refused before the old vCPU goes; behind that only the loss of a page is left.
    pub(super) fn create_vcpu(&self, caller: VcpuIndex, registers: &CallRegisters) -> CallResult {
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
        // Hosts refuse to run a VMSA at a multiple of 2 MiB (erratum).
        if vmsa.is_aligned(LARGE_PAGE_SIZE) {
            vmsa_page.keep();
            return Err(ResultCode::INVALID_PARAMETER.into());
        }
        let (place, area_page) = match self.take_place(caller, processor.number, area) {
            Ok(taken) => taken,
            Err(refusal) => {
                vmsa_page.keep();
                return Err(refusal);
            }
        };
        let efer = match self.inspect(vmsa) {
            Ok(efer) => efer,
            Err(refusal) => {
                area_page.keep();
                place.keep();
                return Err(refusal); // quarantines the VMSA page
            }
        };
        let Some(efer) = efer else {
            area_page.keep();
            place.keep();
            return self.give_back(vmsa, vmsa_page, ResultCode::INVALID_PARAMETER.into());
        };
        let slot = match place {
            Place::Free(slot) => slot,
            Place::Taken(leaving) => match self.replace(leaving) {
                Ok(slot) => slot,
                Err(refusal) => {
                    area_page.keep();
                    return self.give_back(vmsa, vmsa_page, refusal);
                }
            },
        };
        if let Err(refusal) = self.clear_calling_area(area) {
            drop(area_page); // quarantines it
            return self.give_back(vmsa, vmsa_page, refusal);
        }
        if let Err(refusal) = self.serve(&slot, processor) {
            area_page.change_to(PageState::Valid);
            return self.give_back(vmsa, vmsa_page, refusal);
        }
        // Last, because nothing after it can fail: a VMSA is either in the table or does not exist.
        if self.seal(vmsa, efer).is_err() {
            area_page.change_to(PageState::Valid);
            return Err(lost()); // quarantines the VMSA page
        }
        slot.fill(vmsa, area);
        vmsa_page.change_to(PageState::Vmsa);
        area_page.change_to(PageState::CallingArea);
        Ok(())
    }

    /// Takes a processor's place and the calling area of the vCPU that is to have it. BUSY while another call is at either.
    fn take_place(
        &self,
        caller: VcpuIndex,
        number: u32,
        area: GuestPhysicalAddress,
    ) -> Result<(Place<'_>, HeldPages<'_>), Refusal> {
        let vcpu = self.vcpus.place(number).ok_or(ResultCode::BUSY)?;
        let old = self.vcpus.vmsa(vcpu);
        let goes = old.is_some() && vcpu != caller;
        let shares_area = goes && self.vcpus.calling_area(vcpu) == Some(area);
        let area_page = match shares_area {
            true => None,
            false => Some(self.hold(area, &[PageState::Valid])?),
        };
        let place = match old {
            None => {
                let slot = self.vcpus.reserve(number);
                slot.map(Place::Free).ok_or(ResultCode::BUSY)
            }
            // The caller's own runs, the boot vCPU's is not the guest's, and one that was lost may run still.
            Some(_) if !goes => Err(ResultCode::INVALID_REQUEST),
            Some(old) => match self.take_vcpu(old) {
                Ok(leaving) => Ok(Place::Taken(leaving)),
                Err(Refusal::Code(ResultCode::BUSY)) => Err(ResultCode::BUSY),
                Err(_) => Err(ResultCode::INVALID_REQUEST),
            },
        };
        match (place, area_page) {
            (Ok(place), Some(area_page)) => Ok((place, area_page)),
            (Ok(place), None) => place.leave_area(area),
            (Err(code), area_page) => {
                if let Some(area_page) = area_page {
                    area_page.keep();
                }
                Err(code.into())
            }
        }
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

    /// Takes the page away from the guest and looks at it: its EFER. `None`: its contents are no acceptable VMSA.
    fn inspect(&self, page: GuestPhysicalAddress) -> Result<Option<u64>, Refusal> {
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
        Ok(acceptable(&vmsa, self.guest_features).then_some(vmsa.efer))
    }

    /// Turns a page that was inspected into a VMSA that nobody runs before the processor's own VMPL0 lets it. The guest may go
    /// on reading it: Linux takes SEV_FEATURES from there.
    fn seal(&self, page: GuestPhysicalAddress, efer: u64) -> CallResult {
        for (offset, value) in sealed_fields(efer) {
            let field = GuestPhysicalAddress::new(page.bits().saturating_add(offset));
            let written = self.owner.machine().write(field, &value.to_le_bytes());
            written.map_err(|_| lost())?;
        }
        let target = RmpAdjustTarget::grant(Vmpl::Vmpl2, RmpPermissions::READ).with_vmsa(true);
        self.owner
            .adjust(page, PageSize::Size4K, target)
            .map_err(|_| lost())
    }

    /// Refuses; the page that was to be a VMSA is the guest's again.
    fn give_back(
        &self,
        vmsa: GuestPhysicalAddress,
        page: HeldPages<'_>,
        refusal: Refusal,
    ) -> CallResult {
        self.owner
            .grant(vmsa, PageSize::Size4K)
            .map_err(|_| lost())?;
        page.keep();
        Err(refusal)
    }
}
