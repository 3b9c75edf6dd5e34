// SPDX-License-Identifier: MIT OR Apache-2.0
//! AP creation (GHCB specification, 4.1.9): registering and forgetting VMSAs, on this CPU or on
//! another one, as KVM does (arch/x86/kvm/svm/sev.c, `sev_snp_ap_creation`): nobody is asked whether there is a VMSA already, a
//! CPU that is held or runs the old one is taken away from it, and DESTROY leaves it without one.
//!
//! A CPU changes only its own vCPUs. What is for another one is posted, and that CPU is made to
//! look: it takes the changes up before it runs a guest again.

use snp::address::{GuestPhysicalAddress, LARGE_PAGE_SIZE, PAGE_SIZE, Vmpl};
use snp::ghcb::{ApCreation, malformed, offset};

use crate::ghcb_exit::{GhcbReply, GhcbRequest};
use crate::hardware::Hardware;
use crate::launch::CPU_SLOTS;
use crate::machine::Machine;
use crate::served_features;
use crate::vcpu::{Cpu, FloatState};

/// Operations.
const CREATE_ON_INIT: u16 = 0;
const CREATE: u16 = 1;
pub(crate) const DESTROY: u16 = 2;

/// A change to one vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The VMSA in this page is its state from now on.
    Create(GuestPhysicalAddress),
    /// It has no state any more.
    Destroy,
    /// The CPU begins as the boot CPU began ([`crate::surplus_launch`]).
    Launch,
}

/// Changes by CPU and VMPL; a later one replaces an earlier one.
#[derive(Debug, Default)]
pub struct PostedChanges([[Option<Change>; 4]; CPU_SLOTS]);

impl PostedChanges {
    fn slot(&mut self, cpu: u32, vmpl: Vmpl) -> Option<&mut Option<Change>> {
        self.0
            .get_mut(usize::try_from(cpu).ok()?)?
            .get_mut(vmpl.index())
    }
}

impl<H: Hardware> Machine<'_, H> {
    /// Registers or forgets the VMSA of a VMPL. False when the request is invalid (error 5 of the
    /// GHCB specification).
    ///
    /// On its own CPU a caller may change lower VMPLs, on others those from its own level down, but
    /// not the boot CPU's VMPL 0. A VMSA must be a validated page with the VMSA bit, not 2 MiB
    /// aligned (erratum), not running, for that VMPL, and its features those that the guest
    /// announces and the machine has. INIT reaches no CPU of this machine, so that only the caller's own may be created
    /// on INIT, which is the same as now: it runs when the caller switches to it.
    pub fn create_vcpu(
        &mut self,
        cpu: &mut Cpu,
        request: ApCreation,
        vmsa: u64,
        features: u64,
    ) -> bool {
        let (operation, target) = (request.operation(), request.apic_id());
        let Ok(vmpl) = Vmpl::try_from(request.vmpl()) else {
            return false;
        };
        let own = target == cpu.apic_id;
        let allowed = if own {
            vmpl > cpu.current
        } else {
            let boot = target == 0 && vmpl == Vmpl::Vmpl0;
            target < self.cpus && vmpl >= cpu.current && !boot
        };
        if !allowed {
            return false;
        }
        let change = match operation {
            DESTROY => Change::Destroy,
            CREATE_ON_INIT if !own => return false,
            CREATE | CREATE_ON_INIT => {
                let Some(page) = self.usable_vmsa(vmpl, vmsa, features) else {
                    return false;
                };
                Change::Create(page)
            }
            _ => return false,
        };
        // Before anybody may send it one.
        self.nmis.forget(target, vmpl);
        if own {
            register(cpu, vmpl, change);
        } else if let Some(slot) = self.posted.slot(target, vmpl) {
            *slot = Some(change);
            self.hardware.wake(target);
        }
        true
    }

    /// The list of APIC identifiers (GHCB specification, event 0x80000017): a count and the identifiers, 32 bits each, written to
    /// the RAX shared pages at SW_EXITINFO1. RAX of the reply is how many pages it takes; fewer get no list.
    pub(crate) fn apic_id_list(&self, request: &GhcbRequest) -> GhcbReply {
        const PAGES: u64 = 1;
        const _: () = assert!(4 * (1 + CPU_SLOTS) as u64 <= PAGES * PAGE_SIZE);
        let page = GuestPhysicalAddress::new(request.info_1);
        let index = self.plan.page_index(page.bits());
        let is_shared = index
            .and_then(|index| self.rmp.entry(index))
            .is_some_and(|entry| !entry.assigned);
        if !request.has(&[offset::RAX]) {
            return GhcbReply::malformed(malformed::MISSING_INPUT);
        }
        if request.rax >= PAGES {
            if !is_shared || !page.is_aligned(PAGE_SIZE) {
                return GhcbReply::malformed(malformed::INVALID_INPUT);
            }
            let list = core::iter::once(self.cpus).chain(0..self.cpus);
            for (address, word) in (page.bits()..).step_by(4).zip(list) {
                self.hardware.write(address, &word.to_le_bytes());
            }
        }
        GhcbReply::rax(PAGES)
    }

    fn usable_vmsa(&self, vmpl: Vmpl, vmsa: u64, features: u64) -> Option<GuestPhysicalAddress> {
        let page = GuestPhysicalAddress::new(vmsa);
        if !page.is_aligned(PAGE_SIZE) || page.is_aligned(LARGE_PAGE_SIZE) {
            return None;
        }
        let index = self.plan.page_index(page.bits())?;
        let entry = self.rmp.entry(index)?;
        let content = self.read_vmsa(index);
        let usable = entry.validated
            && entry.vmsa
            && !entry.in_use
            && content.vmpl == vmpl.number()
            && content.sev_features == features
            && features & 1 != 0
            && served_features::missing(features).is_none();
        usable.then_some(page)
    }

    /// Takes up what other CPUs posted for `cpu`; true when the VMPL that runs was replaced, so
    /// that its last exit means nothing any more.
    pub(crate) fn take_posted(&mut self, cpu: &mut Cpu) -> bool {
        let mut replaced = false;
        for vmpl in Vmpl::ALL {
            let slot = self.posted.slot(cpu.apic_id, vmpl);
            let Some(change) = slot.and_then(Option::take) else {
                continue;
            };
            (cpu.has_news, cpu.is_halted) = (true, false);
            if change == Change::Launch {
                self.enter_launch(cpu);
                return true;
            }
            if vmpl == cpu.current {
                self.suspend(cpu);
                replaced = true;
            }
            register(cpu, vmpl, change);
        }
        replaced
    }

    /// Makes `cpu` begin as the boot CPU began.
    pub(crate) fn post_launch(&mut self, cpu: u32) {
        if let Some(slot) = self.posted.slot(cpu, Vmpl::Vmpl0) {
            *slot = Some(Change::Launch);
            self.hardware.wake(cpu);
        }
    }
}

/// A new VMSA is an INIT to KVM, and the GHCB MSR and its registration outlive one: `svm_vcpu_reset` resets them
/// (`sev_es_vcpu_reset`) for a RESET only. OVMF goes on with the old one.
fn register(cpu: &mut Cpu, vmpl: Vmpl, change: Change) {
    let vcpu = cpu.at_mut(vmpl);
    match change {
        Change::Create(page) => {
            vcpu.vmsa = Some(page);
            vcpu.doorbell = None;
            vcpu.float = FloatState::default();
        }
        Change::Destroy | Change::Launch => vcpu.vmsa = None,
    }
}
