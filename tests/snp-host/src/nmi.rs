// SPDX-License-Identifier: MIT OR Apache-2.0
//! NMIs that the guest's CPUs send each other through their local APICs.
//!
//! The machine's own APICs never see such a command: an NMI that reaches a processor is always this host's kick
//! ([`crate::hardware::Processors`]), and nothing but the state here is an NMI of the guest's. It belongs to the sender's VMPL,
//! there and on its target, so that VMPL 0 never takes what a guest sends; a level with restricted injection takes none and may
//! send none. The target is kicked, and takes the NMI by event injection (APM volume 2, 15.20) when it enters that level.
//!
//! As KVM has it for encrypted guests (arch/x86/kvm/svm, `svm_inject_nmi`): an NMI blocks others until the guest says that
//! it is complete (GHCB specification, event 0x80000003), since its IRET cannot be intercepted. One more is kept meanwhile.
//! A new VMSA is an INIT to KVM, which forgets what is pending and leaves the block. A reset hold ends by a new VMSA alone
//! here; KVM ends it by an NMI, too.
//!
//! The shadow of STI and of a load of SS holds no NMI back here: VMRUN of QEMU does not restore it, and no exit would end it.

use snp::address::Vmpl;

use crate::counters::Event;
use crate::hardware::Hardware;
use crate::launch::CPU_SLOTS;
use crate::machine::Machine;
use crate::vcpu::Cpu;
use crate::vmcb::event;

/// Most that wait for a vCPU: one to be taken at once, and one behind it (KVM, `process_nmi`).
const MOST: u8 = 2;

/// The NMIs of one vCPU.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// They wait to be injected.
    pending: u8,
    /// One was injected and is not complete.
    is_blocked: bool,
}

/// By CPU and VMPL.
#[derive(Debug, Default)]
pub struct Nmis([[State; 4]; CPU_SLOTS]);

impl Nmis {
    fn state(&mut self, cpu: u32, vmpl: Vmpl) -> Option<&mut State> {
        self.0
            .get_mut(usize::try_from(cpu).ok()?)?
            .get_mut(vmpl.index())
    }

    /// Whether one waits for this vCPU that nothing blocks.
    pub fn is_due(&self, cpu: u32, vmpl: Vmpl) -> bool {
        usize::try_from(cpu)
            .ok()
            .and_then(|cpu| self.0.get(cpu)?.get(vmpl.index()))
            .is_some_and(|state| state.pending != 0 && !state.is_blocked)
    }

    /// Adds one; false if as many wait already as are kept.
    fn add(&mut self, cpu: u32, vmpl: Vmpl) -> bool {
        let Some(state) = self.state(cpu, vmpl) else {
            return false;
        };
        let room = state.pending < MOST - u8::from(state.is_blocked);
        state.pending += u8::from(room);
        room
    }

    /// Takes one that is due. It blocks others.
    fn take(&mut self, cpu: u32, vmpl: Vmpl) {
        if let Some(state) = self.state(cpu, vmpl) {
            *state = State {
                pending: state.pending.saturating_sub(1),
                is_blocked: true,
            };
        }
    }

    fn complete(&mut self, cpu: u32, vmpl: Vmpl) {
        if let Some(state) = self.state(cpu, vmpl) {
            state.is_blocked = false;
        }
    }

    /// Forgets what waits for a vCPU that begins anew.
    pub(crate) fn forget(&mut self, cpu: u32, vmpl: Vmpl) {
        if let Some(state) = self.state(cpu, vmpl) {
            state.pending = 0;
        }
    }
}

impl<H: Hardware> Machine<'_, H> {
    /// The VMPL that runs sends an NMI to its own level of each of `targets`. False if that level takes none.
    pub(crate) fn send_nmi(&mut self, cpu: &Cpu, targets: impl Iterator<Item = u32>) -> bool {
        if cpu.vcpu().features.restricted_injection() {
            return false;
        }
        for target in targets {
            let kept = self.nmis.add(target, cpu.current);
            self.counters.event(if kept {
                Event::NmiSent
            } else {
                Event::NmiMerged
            });
            // Another CPU that takes it when it is complete with one has no use for a kick.
            if target != cpu.apic_id && self.nmis.is_due(target, cpu.current) {
                self.hardware.wake(target);
            }
        }
        true
    }

    /// The guest is complete with an NMI: the next one may come.
    pub(crate) fn nmi_complete(&mut self, cpu: &Cpu) {
        self.nmis.complete(cpu.apic_id, cpu.current);
    }

    /// Injects an NMI into the VMPL that is about to be entered, if one is due. Where another event is injected, it comes
    /// behind that: the guest is left again at once.
    pub(crate) fn inject_nmi(&mut self, cpu: &mut Cpu) {
        let (number, vmpl) = (cpu.apic_id, cpu.current);
        let vcpu = cpu.vcpu_mut();
        if !self.nmis.is_due(number, vmpl) || vcpu.features.restricted_injection() {
            return;
        }
        let injected = &mut vcpu.vmcb.control.event_injection;
        if *injected & event::VALID != 0 {
            self.hardware.leave_at_once(number);
            return;
        }
        *injected = event::NMI;
        self.nmis.take(number, vmpl);
        self.counters.event(Event::NmiInjected);
    }
}
