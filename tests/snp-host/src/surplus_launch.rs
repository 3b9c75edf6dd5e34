// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosts that run a launch VMSA that nobody needs.
//!
//! KVM launches a VMSA for each vCPU (SNP_LAUNCH_FINISH), all alike, and the digest covers them. A guest needs the first
//! one: its other CPUs start by AP creation. Nothing but the image itself keeps the host from running another one, when it
//! likes, beside what runs by then.

use bitfield_struct::bitfield;
use snp::address::Vmpl;

use crate::counters::Event;
use crate::hardware::Hardware;
use crate::machine::Machine;
use crate::page_attack::Left;
use crate::record::kind;
use crate::vcpu::{Cpu, Vcpu};

/// `data` of a record that arms it.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SurplusLaunchWord {
    /// Only the exits that begin, interrupt and end calls count; otherwise all of VMPL 0.
    pub in_calls: bool,
    /// Exits before it, from 1 on.
    #[bits(31)]
    pub count: u32,
}

/// A launch VMSA that has not run yet.
#[derive(Clone, Debug)]
pub struct SurplusLaunch {
    in_calls: bool,
    left: u32,
    /// The vCPU as it was launched.
    vcpu: Vcpu,
}

impl SurplusLaunch {
    /// Reads a record; `launched` is the boot CPU's vCPU, not yet run. `None` when it has none, or the count is 0.
    #[must_use]
    pub fn decode(data: u32, launched: &Vcpu) -> Option<Self> {
        let word = SurplusLaunchWord::from_bits(data);
        (launched.is_boot && word.count() != 0).then(|| Self {
            in_calls: word.in_calls(),
            left: word.count(),
            vcpu: launched.clone(),
        })
    }

    /// An exit passes, which is one of a call's or not; true when it is the one.
    fn passes(&mut self, vmpl: Vmpl, in_call: bool) -> bool {
        let counts = if self.in_calls {
            in_call
        } else {
            vmpl == Vmpl::Vmpl0
        };
        let due = counts && self.left == 1;
        // None counts below 0: the last CPU takes what is armed when it exits, which may be many exits from now.
        self.left = self.left.saturating_sub(u32::from(counts));
        due
    }
}

impl<H: Hardware> Machine<'_, H> {
    /// Runs what is armed on the guest's last CPU when the moment has come, whatever that CPU does. A machine with one CPU
    /// is launched with one VMSA, which runs already.
    pub(crate) fn run_surplus_launch(&mut self, left: Left, in_call: bool) {
        let last = self.cpus - 1;
        let due = self
            .attacks
            .surplus
            .as_mut()
            .is_some_and(|surplus| surplus.passes(left.vmpl, in_call));
        if due && last != 0 {
            self.post_launch(last);
            self.counters.event(Event::AttackStruck);
            self.record(
                kind::TRACE,
                format_args!("attack=surplus-launch cpu={last}"),
            );
        }
    }

    /// `cpu` leaves whatever it runs and begins where the boot CPU began.
    pub(crate) fn enter_launch(&mut self, cpu: &mut Cpu) {
        self.suspend(cpu);
        if let Some(surplus) = self.attacks.surplus.take() {
            cpu.current = Vmpl::Vmpl0;
            *cpu.at_mut(Vmpl::Vmpl0) = surplus.vcpu;
        }
    }
}
