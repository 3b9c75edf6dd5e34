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
use crate::vcpu::{Cpu, FloatState, Vcpu};

/// AP-creation operations (GHCB specification, 4.1.9).
const CREATE_ON_INIT: u16 = 0;
const CREATE: u16 = 1;
const DESTROY: u16 = 2;

impl<H: Hardware> Machine<'_, H> {
    fn read_vmsa(&self, index: usize) -> Vmsa {
        let mut vmsa = Vmsa::new_zeroed();
        self.hardware
            .read(self.plan.private_page(index), vmsa.as_mut_bytes());
        vmsa
    }

    fn write_vmsa(&self, index: usize, vmsa: &Vmsa) {
        self.hardware
            .write(self.plan.private_page(index), vmsa.as_bytes());
    }

    /// Makes VMPL `target` run on this CPU next, unless the host skips it
    /// ([`crate::switch_manner`]).
    ///
    /// # Errors
    /// The [`Refusal`] that the caller's answer carries; nothing has changed then.
    pub fn switch_vmpl(&mut self, cpu: &mut Cpu, target: u8) -> Result<(), Refusal> {
        let target = Vmpl::try_from(target).map_err(|_| Refusal::NoVmsa)?;
        if target == cpu.current {
            return Ok(());
        }
        if let Some(event) = self.switch_manner.skips(cpu.current, target) {
            self.counters.event(event);
            return Ok(());
        }
        let vmsa_index = |vcpu: &Vcpu| vcpu.vmsa.and_then(|page| self.plan.page_index(page.bits()));
        let (left, entered) = (vmsa_index(cpu.vcpu()), vmsa_index(cpu.at(target)));
        let next = match entered {
            Some(index) => {
                let vmsa = self.read_vmsa(index);
                run_vmpl::check(self.rmp.entry(index), vmsa.efer)?;
                Some((index, vmsa))
            }
            // VMPL 0 of the boot CPU has no VMSA page; its state is always here.
            None if target == Vmpl::Vmpl0 => None,
            None => return Err(Refusal::NoVmsa),
        };
        let leaving = cpu.vcpu_mut();
        self.hardware.save_context(leaving);
        if let Some(index) = left {
            let mut vmsa = self.read_vmsa(index);
            leaving.store(&mut vmsa, EXIT_CODE_VMGEXIT);
            self.write_vmsa(index, &vmsa);
            self.rmp.set_in_use(index, false);
        }
        self.nested.drop_aliases(&self.hardware, &self.rmp);
        cpu.current = target;
        let entering = cpu.vcpu_mut();
        if let Some((index, mut vmsa)) = next {
            entering.load(&vmsa);
            // The event is taken when the guest is entered, once.
            vmsa.event_injection = 0;
            self.write_vmsa(index, &vmsa);
            self.rmp.set_in_use(index, true);
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
    pub fn create_vcpu(
        &self,
        cpu: &mut Cpu,
        request: ApCreation,
        vmsa: u64,
        features: u64,
    ) -> bool {
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
        let Some(index) = self.plan.page_index(page.bits()) else {
            return false;
        };
        let content = self.read_vmsa(index);
        let usable = self
            .rmp
            .entry(index)
            .is_some_and(|entry| entry.validated && entry.vmsa);
        if !usable
            || content.vmpl != vmpl.number()
            || content.sev_features != features
            || features & 1 == 0
        {
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
