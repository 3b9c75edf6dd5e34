// SPDX-License-Identifier: MIT OR Apache-2.0
//! CREATE_VCPU: a page of the guest becomes the VMSA of a further vCPU.

use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PageSize, Vmpl};
use snp::operands::{RmpAdjustTarget, RmpPermissions};
use snp::svsm::{CallRegisters, ResultCode};
use snp::vmsa::Vmsa;
use svsm_swiotlb::page_state::PageState;
use svsm_swiotlb::platform::{GuestMemory, PageInstructions};
use zerocopy::{FromZeros, IntoBytes};

use super::{CallResult, CoreProtocol, Refusal, lost, require_page};
use crate::guest_vmsa::acceptable;

impl<M: PageInstructions + GuestMemory> CoreProtocol<'_, M> {
    /// RCX: VMSA page, RDX: calling area, R8: APIC identifier.
    pub(super) fn create_vcpu(&self, registers: &CallRegisters) -> CallResult {
        let vmsa = GuestPhysicalAddress::new(registers.rcx);
        let area = GuestPhysicalAddress::new(registers.rdx);
        require_page(vmsa)?;
        require_page(area)?;
        let apic_id = u32::try_from(registers.r8)
            .ok()
            .filter(|apic_id| *apic_id < self.vcpu_count)
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
        let made = match vmsa.is_aligned(LARGE_PAGE_SIZE) {
            true => Ok(false),
            false => self.make_vmsa(vmsa),
        };
        match made {
            Ok(true) => {}
            Ok(false) => {
                vmsa_page.keep();
                area_page.keep();
                return Err(ResultCode::INVALID_PARAMETER.into());
            }
            Err(refusal) => {
                area_page.keep();
                return Err(refusal); // quarantines the VMSA page
            }
        }
        if let Err(refusal) = self.clear_calling_area(area) {
            self.unmake_vmsa(vmsa)?;
            vmsa_page.keep();
            return Err(refusal); // quarantines the calling area
        }
        if self.vcpus.add(vmsa, area, apic_id).is_none() {
            self.unmake_vmsa(vmsa)?;
            vmsa_page.keep();
            area_page.keep();
            return Err(ResultCode::INVALID_REQUEST.into());
        }
        vmsa_page.change_to(PageState::Vmsa);
        area_page.change_to(PageState::CallingArea);
        Ok(())
    }

    /// Takes the page away from the guest, looks at it, and makes it a VMSA. `false`: its contents
    /// are not acceptable and it is the guest's again.
    fn make_vmsa(&self, page: GuestPhysicalAddress) -> Result<bool, Refusal> {
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
        if !acceptable(&vmsa, self.guest_features) {
            self.owner
                .grant(page, PageSize::Size4K)
                .map_err(|_| lost())?;
            return Ok(false);
        }
        // The guest may go on reading it: Linux takes SEV_FEATURES from there.
        let target = RmpAdjustTarget::grant(Vmpl::Vmpl2, RmpPermissions::READ).with_vmsa(true);
        self.owner
            .adjust(page, PageSize::Size4K, target)
            .map_err(|_| lost())?;
        Ok(true)
    }

    /// Makes a VMSA an ordinary page of the guest again.
    fn unmake_vmsa(&self, page: GuestPhysicalAddress) -> CallResult {
        self.owner.grant(page, PageSize::Size4K).map_err(|_| lost())
    }
}
