// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carrying out an attack on pages ([`crate::attack`]), and what hardware has against it: the reverse map's address.
//!
//! A host does by RMPUPDATE and its nested tables what it likes, at any time, to any page but a VMSA in use. What it
//! cannot do is to validate, or to keep a page validated that it assigns anew.

use snp::address::{PAGE_SIZE, PageSize, Vmpl};

use crate::attack::{Action, Moment, Target};
use crate::counters::Event;
use crate::hardware::Hardware;
use crate::machine::{Flow, Machine};
use crate::record::{ExitCode, kind};
use crate::vcpu::Cpu;

/// Faults at an attacked page that nothing ends, until the machine stops and says so.
const PATIENCE: u32 = 1000;

/// What a CPU did, for the attacks that count it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// The VMPL that left.
    pub vmpl: Vmpl,
    /// It served a call.
    pub served: bool,
}

impl<H: Hardware> Machine<'_, H> {
    /// Called behind each exit.
    ///
    /// # Errors
    /// Why the machine stops.
    pub(crate) fn attack_behind_exit(&mut self, cpu: &mut Cpu, left: Left) -> Flow {
        let began = !left.served && cpu.served.is_some();
        let ended = left.served && cpu.served.is_none();
        let in_call = began || left.served;
        if let Some(attack) = &mut self.attacks.page {
            let sweeps = matches!(attack.moment, Moment::Sweep | Moment::SweepValidations);
            if began && sweeps {
                attack.call_begins();
            }
            let target = match attack.moment {
                Moment::Exit if left.vmpl == Vmpl::Vmpl0 => {
                    attack.passes().then(|| self.target_page(cpu)).flatten()
                }
                Moment::Call if in_call => attack.passes().then(|| self.target_page(cpu)).flatten(),
                Moment::Sweep if in_call => attack.passes_in_call(),
                _ => None,
            };
            if let Some(page) = target {
                self.strike(cpu, page);
            }
        }
        if ended
            && let Some(attack) = &mut self.attacks.page
            && attack.call_ends()
        {
            self.counters.event(Event::AttackMissed);
        }
        self.run_surplus_launch(left, in_call);
        self.inject_vector(cpu, left.vmpl, in_call)
    }

    /// Called before a PVALIDATE of VMPL 0 that validates page `index`.
    pub(crate) fn attack_before_validation(&mut self, cpu: &Cpu, index: usize) {
        let Some(attack) = &mut self.attacks.page else {
            return;
        };
        let due = match attack.moment {
            Moment::Validation => attack.passes(),
            Moment::SweepValidations => cpu.served.is_some() && attack.passes_in_call().is_some(),
            _ => false,
        };
        if due {
            self.strike(cpu, index);
        }
    }

    /// The guest names a page that the host may attack in its next call: its number in bits 23:0, that of a series of
    /// calls above.
    pub(crate) fn name_page(&mut self, value: u32) {
        let page = self
            .plan
            .page_index(u64::from(value & 0xFF_FFFF) * PAGE_SIZE);
        if let (Some(attack), Some(page)) = (&mut self.attacks.page, page) {
            attack.name(page, value >> 24);
        }
    }

    fn target_page(&self, cpu: &Cpu) -> Option<usize> {
        let attack = self.attacks.page?;
        let vcpu = cpu.at(Vmpl::Vmpl0);
        let linear = match attack.target {
            Target::Address => return self.plan.page_index(attack.address),
            Target::Code => vcpu.vmcb.save.rip,
            Target::Stack => vcpu.vmcb.save.rsp,
        };
        let at = self.translate(vcpu, linear).ok()?;
        self.plan.page_index(at.gpa)
    }

    /// Does it to page `index`.
    fn strike(&mut self, cpu: &Cpu, index: usize) {
        let Some(attack) = &mut self.attacks.page else {
            return;
        };
        let in_use = self.rmp.entry(index).is_none_or(|entry| entry.in_use);
        let secrets = self.attacks.secrets.filter(|secrets| *secrets != index);
        if in_use || !self.nested.frames.has_room() {
            return;
        }
        attack.struck();
        let action = attack.action;
        match (action, secrets) {
            (Action::Share, _) => {
                // Fails for no page of RAM.
                if self.convert(index, PageSize::Size4K, true).is_err() {
                    return;
                }
            }
            (Action::ReadOnly, _) => {
                self.smash(index);
                self.nested.frames.read_only = Some(index);
                self.nested.sync(&self.hardware, &self.rmp, index, false);
            }
            (Action::Validate, _) => {
                self.smash(index);
                // A page that is the host's stays so.
                let _ = self
                    .rmp
                    .pvalidate(index, PageSize::Size4K, true, Vmpl::Vmpl0);
                self.nested.sync(&self.hardware, &self.rmp, index, false);
            }
            (Action::Remap, Some(secrets)) => {
                self.assign_anew(index);
                self.assign_anew(secrets);
                self.nested.frames.exchange(index, secrets);
                self.sync_both(index, secrets);
            }
            (Action::DoubleMap | Action::SwitchMap, Some(secrets)) => {
                self.assign_anew(index);
                self.smash(secrets);
                self.nested.frames.show(index, secrets);
                self.sync_both(index, secrets);
            }
            _ => self.assign_anew(index),
        }
        self.translations.is_flushed = true;
        (self.attacks.victim, self.attacks.faults) = (Some(index), 0);
        self.counters.event(Event::AttackStruck);
        let gpa = self.plan.shared_page(index);
        let rip = cpu.vcpu().vmcb.save.rip;
        self.record(
            kind::TRACE,
            format_args!(
                "attack={action:?} gpa={gpa:#x} vmpl={} rip={rip:#x}",
                cpu.current.number()
            ),
        );
    }

    /// RMPUPDATE to an assigned page that is not validated, whatever it is now. What is private already keeps its contents.
    fn assign_anew(&mut self, index: usize) {
        self.smash(index);
        if self.rmp.entry(index).is_some_and(|entry| entry.assigned) {
            self.rmp.rmpupdate(index, PageSize::Size4K, false);
            self.rmp.rmpupdate(index, PageSize::Size4K, true);
            self.nested.sync(&self.hardware, &self.rmp, index, false);
        } else {
            // One page of RAM always fits.
            let _ = self.convert(index, PageSize::Size4K, false);
        }
    }

    fn sync_both(&self, one: usize, other: usize) {
        for index in [one, other] {
            self.nested.sync(&self.hardware, &self.rmp, index, false);
        }
    }

    /// A private access, or an instruction on a page, met a frame for which the reverse map names another page: a nested
    /// page fault, and the host's turn. `Ok` when the access is tried again.
    ///
    /// # Errors
    /// The host insists on its mapping: it would fault for ever.
    pub(crate) fn other_owner(&mut self, cpu: &Cpu, index: usize) -> Flow {
        self.counters.event(Event::ReverseMapRefused);
        let switches = self
            .attacks
            .page
            .is_some_and(|attack| attack.action == Action::SwitchMap);
        if !switches {
            return Err(self.violation(cpu, "reverse-map", self.plan.shared_page(index)));
        }
        let before = self.nested.frames.claim(index);
        self.assign_anew(index);
        self.sync_both(index, before);
        self.translations.is_flushed = true;
        Ok(())
    }

    /// A write to the page that the host maps read-only: it faults again and again.
    ///
    /// # Errors
    /// It has done so often enough to say what the matter is.
    pub(crate) fn read_only_fault(&mut self, cpu: &Cpu, gpa: u64) -> Flow {
        self.counters.event(Event::ReadOnlyFault);
        self.repeated_fault(cpu, "read-only-page", gpa)
    }

    /// An access to a page that is not validated. VMPL 0 ends the VM over its own, unless that page has the code which ends
    /// it: then its handler faults without end.
    ///
    /// # Errors
    /// It has done so often enough to say what the matter is.
    pub(crate) fn lost_page_fault(&mut self, cpu: &Cpu, index: usize) -> Flow {
        if cpu.current != Vmpl::Vmpl0 || self.attacks.victim != Some(index) {
            return Ok(());
        }
        self.repeated_fault(cpu, "lost-handler", self.plan.shared_page(index))
    }

    fn repeated_fault(&mut self, cpu: &Cpu, what: &str, gpa: u64) -> Flow {
        self.attacks.faults += 1;
        if self.attacks.faults < PATIENCE {
            return Ok(());
        }
        self.record(
            kind::DIED,
            format_args!(
                "what={what} gpa={gpa:#x} vmpl={} rip={:#x}",
                cpu.current.number(),
                cpu.vcpu().vmcb.save.rip
            ),
        );
        Err(ExitCode::Died)
    }

    /// Stops the machine when a lower VMPL is let into a page whose frame the host has exchanged, or that it assigned anew,
    /// before it was zeroed: it would see what the frame held.
    ///
    /// # Errors
    /// It would.
    pub(crate) fn check_grant(&self, cpu_vmpl: Vmpl, index: usize) -> Result<(), u64> {
        let attacked = self.attacks.victim == Some(index) || self.nested.frames.is_moved(index);
        if cpu_vmpl != Vmpl::Vmpl0 || !attacked {
            return Ok(());
        }
        let frame = self.nested.private_page(index);
        match self.hardware.first_difference(frame, PAGE_SIZE, 0) {
            Some(_) => Err(self.plan.shared_page(index)),
            None => Ok(()),
        }
    }
}
