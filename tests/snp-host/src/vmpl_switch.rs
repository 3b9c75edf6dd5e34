// SPDX-License-Identifier: MIT OR Apache-2.0
//! Switching a CPU between VMPLs, and registering the VMSA of a lower one.
//!
//! VMPL 0's registers stay in its vCPU, where no guest can reach them. A lower VMPL's are in its
//! VMSA page while it does not run, where VMPL 0 reads and changes them.

use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PAGE_SIZE, Vmpl};
use snp::ghcb::ApCreation;
use snp::vmsa::{EXIT_CODE_VMGEXIT, Vmsa};
use snp_model::run_vmpl::{self, Refusal};
use zerocopy::{FromZeros, IntoBytes};

use crate::counters::Event;
use crate::hardware::Hardware;
use crate::machine::Machine;
use crate::vcpu::{Cpu, FloatState};

/// AP-creation operations (GHCB specification, 4.1.9).
const CREATE_ON_INIT: u16 = 0;
const CREATE: u16 = 1;
const DESTROY: u16 = 2;

impl<H: Hardware> Machine<'_, H> {
    /// Host address of the VMSA page and its entry's index, unless it is no RAM.
    fn vmsa_page(&self, page: GuestPhysicalAddress) -> Option<(u64, usize)> {
        let index = self.plan.page_index(page.bits())?;
        Some((self.plan.private_page(index), index))
    }

    fn read_vmsa(&self, host: u64) -> Vmsa {
        let mut vmsa = Vmsa::new_zeroed();
        self.hardware.read(host, vmsa.as_mut_bytes());
        vmsa
    }

    /// Makes VMPL `target` run on this CPU next.
    ///
    /// # Errors
    /// The [`Refusal`] that the caller's answer carries; nothing has changed then.
    pub fn switch_vmpl(&mut self, cpu: &mut Cpu, target: u8) -> Result<(), Refusal> {
        let target = Vmpl::try_from(target).map_err(|_| Refusal::NoVmsa)?;
        if target == cpu.current {
            return Ok(());
        }
        let next = match cpu.at(target).vmsa.and_then(|page| self.vmsa_page(page)) {
            Some((host, index)) => {
                let vmsa = self.read_vmsa(host);
                run_vmpl::check(self.rmp.entry(index), vmsa.efer)?;
                Some((host, vmsa))
            }
            // VMPL 0 of the boot CPU has no VMSA page; its state is always here.
            None if target == Vmpl::Vmpl0 => None,
            None => return Err(Refusal::NoVmsa),
        };
        let leaving = cpu.vcpu_mut();
        self.hardware.save_context(leaving);
        if let Some((host, _)) = leaving.vmsa.and_then(|page| self.vmsa_page(page)) {
            let mut vmsa = self.read_vmsa(host);
            leaving.store(&mut vmsa, EXIT_CODE_VMGEXIT);
            self.hardware.write(host, vmsa.as_bytes());
        }
        self.nested.drop_aliases(&self.hardware, &self.rmp);
        cpu.current = target;
        let entering = cpu.vcpu_mut();
        if let Some((host, mut vmsa)) = next {
            entering.load(&vmsa);
            // Hardware takes the event when it enters the guest.
            vmsa.event_injection = 0;
            self.hardware.write(host, vmsa.as_bytes());
        }
        self.hardware.load_context(entering);
        self.counters.event(Event::VmplSwitch);
        Ok(())
    }

    /// AP creation: registers or forgets the VMSA of a lower VMPL of this CPU. False when the
    /// request is invalid (error 5 of the GHCB specification).
    ///
    /// A VMSA must be a validated page with the VMSA bit, not 2 MiB aligned (erratum), for that
    /// VMPL, and its features those that the guest announces.
    pub fn create_vcpu(&self, cpu: &mut Cpu, request: ApCreation, vmsa: u64, features: u64) -> bool {
        let Ok(vmpl) = Vmpl::try_from(request.vmpl()) else {
            return false;
        };
        if request.apic_id() != cpu.apic_id || vmpl == Vmpl::Vmpl0 || vmpl <= cpu.current {
            return false;
        }
        match request.operation() {
            CREATE | CREATE_ON_INIT => {}
            DESTROY => {
                cpu.at_mut(vmpl).vmsa = None;
                return true;
            }
            _ => return false,
        }
        let page = GuestPhysicalAddress::new(vmsa);
        if !page.is_aligned(PAGE_SIZE) || page.is_aligned(LARGE_PAGE_SIZE) {
            return false;
        }
        let Some((host, index)) = self.vmsa_page(page) else {
            return false;
        };
        let content = self.read_vmsa(host);
        let usable = self.rmp.entry(index).is_some_and(|entry| entry.validated && entry.vmsa);
        if !usable || content.vmpl != vmpl.number() || content.sev_features != features || features & 1 == 0 {
            return false;
        }
        let vcpu = cpu.at_mut(vmpl);
        vcpu.vmsa = Some(page);
        vcpu.ghcb_msr = 0;
        vcpu.registered_ghcb = None;
        vcpu.float = FloatState::default();
        true
    }
}
