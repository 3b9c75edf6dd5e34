// SPDX-License-Identifier: MIT OR Apache-2.0
//! Switching a CPU between VMPLs.

use snp::address::Vmpl;
use snp_model::run_vmpl::Refusal;

use crate::call_times::ServedCall;
use crate::counters::Event;
use crate::hardware::Hardware;
use crate::inspection::Moment;
use crate::machine::Machine;
use crate::svsm_calls::Form;
use crate::vcpu::Cpu;

impl<H: Hardware> Machine<'_, H> {
    /// Makes VMPL `target` run on this CPU next, unless the host skips it
    /// ([`crate::switch_manner`]). `form` is how the guest asked.
    ///
    /// # Errors
    /// The [`Refusal`] that the caller's answer carries; nothing has changed then.
    pub fn switch_vmpl(&mut self, cpu: &mut Cpu, target: u8, form: Form) -> Result<(), Refusal> {
        let target = Vmpl::try_from(target).map_err(|_| Refusal::NoVmsa)?;
        if target == cpu.current {
            return Ok(());
        }
        if target == Vmpl::Vmpl0 {
            self.counters.svsm_call(form, cpu.vcpu().vmcb.save.rax);
        }
        if let Some(event) = self.switch_manner.skips(cpu.current, target) {
            self.counters.event(event);
            return Ok(());
        }
        self.check_runnable(cpu.at(target))?;
        if cpu.current == Vmpl::Vmpl0 {
            let moment = match cpu.apic_id {
                0 => Moment::FirstSwitch,
                _ => Moment::FurtherProcessor,
            };
            self.inspect(cpu.vcpu(), moment);
        }
        let rax = cpu.vcpu().vmcb.save.rax;
        self.suspend(cpu);
        if self.nested.drop_aliases(&self.hardware, &self.rmp) {
            self.translations.is_flushed = true;
        }
        cpu.current = target;
        self.resume(cpu)?;
        self.counters.event(Event::VmplSwitch);
        let now = self.hardware.timestamp();
        if target == Vmpl::Vmpl0 {
            cpu.served = Some(ServedCall::begin(rax, now));
            self.manner.call_begins();
        } else if let Some(call) = cpu.served.take() {
            self.counters.svsm_call_ended(call, now);
            self.manner.call_ends();
        }
        Ok(())
    }
}
