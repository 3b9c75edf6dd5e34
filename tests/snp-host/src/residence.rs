// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a vCPU's state is: in the processor while its VMPL runs on the CPU, in its VMSA page
//! otherwise, where VMPL 0 reads and changes it. VMPL 0 of the boot CPU has no such page.
//!
//! A guest that waits for an interrupt does not run: its VMSA page is not in use meanwhile, as on
//! hardware between #VMEXIT and VMRUN. When VMPL 0 has made it unfit to run by then, VMPL 0 gets
//! the CPU.

use core::mem::offset_of;

use snp::address::Vmpl;
use snp::ghcb_msr::response;
use snp::vmsa::{EXIT_CODE_VMGEXIT, Vmsa};
use snp_model::run_vmpl::{self, Refusal};
use zerocopy::{FromZeros, IntoBytes};

use crate::counters::Event;
use crate::hardware::Hardware;
use crate::machine::Machine;
use crate::vcpu::{Cpu, Vcpu, WokenBy};
use crate::vmcb::{exit_code, intercept};

/// What a CPU does when its exit is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It runs the guest.
    Guest,
    /// It waits to be woken, with `interrupts` also for one.
    Wait {
        /// An interrupt ends the wait too.
        interrupts: bool,
    },
}

impl<H: Hardware> Machine<'_, H> {
    pub(crate) fn read_vmsa(&self, index: usize) -> Vmsa {
        let mut vmsa = Vmsa::new_zeroed();
        self.hardware
            .read(self.nested.private_page(index), vmsa.as_mut_bytes());
        vmsa
    }

    fn write_vmsa(&self, index: usize, vmsa: &Vmsa) {
        self.hardware
            .write(self.nested.private_page(index), vmsa.as_bytes());
    }

    fn vmsa_index(&self, vcpu: &Vcpu) -> Option<usize> {
        self.plan.page_index(vcpu.vmsa?.bits())
    }

    /// Whether VMRUN of `vcpu` would work.
    ///
    /// # Errors
    /// The reason why not.
    pub(crate) fn check_runnable(&self, vcpu: &Vcpu) -> Result<(), Refusal> {
        match self.vmsa_index(vcpu) {
            Some(index) => {
                let at = self.nested.private_page(index) + offset_of!(Vmsa, efer) as u64;
                run_vmpl::check(self.rmp.entry(index), self.hardware.read_u64(at))
            }
            None if vcpu.is_boot => Ok(()),
            None => Err(Refusal::NoVmsa),
        }
    }

    /// Takes the running VMPL's state out of the processor. x87, SSE and XCR0 first: the VMSA
    /// carries XCR0.
    pub(crate) fn suspend(&mut self, cpu: &mut Cpu) {
        if !core::mem::take(&mut cpu.is_resident) {
            return;
        }
        let leaving = cpu.vcpu_mut();
        self.hardware.save_context(leaving);
        // A page that is no VMSA any more holds something else by now.
        if let Some(index) = self.vmsa_index(leaving)
            && self.rmp.set_in_use(index, false)
        {
            let mut vmsa = self.read_vmsa(index);
            let code = match leaving.vmcb.control.exit_code {
                exit_code::HLT => exit_code::HLT,
                _ => EXIT_CODE_VMGEXIT,
            };
            leaving.store(&mut vmsa, code);
            self.write_vmsa(index, &vmsa);
            self.nested.sync(&self.hardware, &self.rmp, index, false);
        }
    }

    /// Puts the state of the VMPL that is to run into the processor.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed.
    pub(crate) fn resume(&mut self, cpu: &mut Cpu) -> Result<(), Refusal> {
        self.check_runnable(cpu.vcpu())?;
        let entering = cpu.vcpu_mut();
        if let Some(index) = self.vmsa_index(entering) {
            let mut vmsa = self.read_vmsa(index);
            entering.load(&vmsa);
            // The event is taken when the guest is entered, once.
            vmsa.event_injection = 0;
            self.write_vmsa(index, &vmsa);
            self.rmp.set_in_use(index, true);
            // A CPU that runs VMPL 0 meanwhile may write there until it is entered again: nobody flushes for it.
            self.nested.sync(&self.hardware, &self.rmp, index, false);
        }
        self.hardware.load_context(entering);
        cpu.is_resident = true;
        Ok(())
    }

    /// Puts the state of the VMPL that is to run into the processor, or VMPL 0's when that cannot
    /// run. VMPL 0 sees its request to run it fail.
    fn resume_or_return(&mut self, cpu: &mut Cpu) -> Result<(), Refusal> {
        let Err(refusal) = self.resume(cpu) else {
            return Ok(());
        };
        if cpu.current == Vmpl::Vmpl0 {
            return Err(refusal);
        }
        if self.nested.drop_aliases(&self.hardware, &self.rmp) {
            self.translations.is_flushed = true;
            self.flush_others(cpu);
        }
        let left = core::mem::replace(&mut cpu.current, Vmpl::Vmpl0);
        if let Err(refusal) = self.resume(cpu) {
            cpu.current = left;
            return Err(refusal);
        }
        self.counters.event(Event::VmplSwitch);
        let vcpu = cpu.vcpu_mut();
        if vcpu.ghcb_msr == response::run_vmpl(0) {
            vcpu.ghcb_msr = response::run_vmpl(refusal as u32);
        }
        Ok(())
    }

    /// The guest waits, unless something was registered on this CPU since it last did.
    pub(crate) fn halt(&mut self, cpu: &mut Cpu, woken_by: WokenBy) {
        if !core::mem::take(&mut cpu.has_news) {
            (cpu.is_halted, cpu.woken_by) = (true, woken_by);
            self.counters.event(Event::Wait);
        }
    }

    /// What `cpu` does next. The guest is ready to be entered when it is [`Step::Guest`].
    pub fn next_step(&mut self, cpu: &mut Cpu) -> Step {
        self.take_posted(cpu);
        if cpu.woken_by != WokenBy::Registration && self.nmis.is_due(cpu.apic_id, cpu.current) {
            cpu.is_halted = false;
        }
        if cpu.is_halted {
            self.suspend(cpu);
            // A VMPL 0 that takes no interrupts is woken by those of the lower VMPLs.
            let takes_none = cpu.current == Vmpl::Vmpl0
                && cpu.vcpu().features.restricted_injection()
                && cpu.vcpus.iter().skip(1).all(|vcpu| vcpu.vmsa.is_none());
            return Step::Wait {
                interrupts: cpu.woken_by == WokenBy::Interrupt && !takes_none,
            };
        }
        if !cpu.is_resident && self.resume_or_return(cpu).is_err() {
            return Step::Wait { interrupts: false };
        }
        let vcpu = cpu.vcpu_mut();
        vcpu.vmcb.control.nested_cr3 = self.nested.root(vcpu.vmpl, vcpu.is_unpaged());
        vcpu.vmcb.control.intercept_cr_write = if vcpu.is_unpaged() {
            intercept::CR0_WRITE
        } else {
            0
        };
        self.inject_nmi(cpu);
        Step::Guest
    }
}
