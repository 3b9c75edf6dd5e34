// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translations that CPUs keep when a page or a permission is taken back, and what ends them.
//!
//! On hardware nothing but a flush does: RMPADJUST and PVALIDATE leave the translations of other processors alone, and a
//! hypervisor that changes its nested tables may be late with its own flush, or omit it. INVLPGB begins a flush of all
//! processors, TLBSYNC returns when it is done (APM volume 3), and until then an old translation may live: on
//! [`Kicks::OnFlush`] it does. A CPU's own translations end with each of its exits, as VMRUN of this host flushes them.

use crate::counters::{Event, Instruction};
use crate::decode::Trapped;
use crate::hardware::Hardware;
use crate::machine::Machine;
use crate::vcpu::Cpu;

/// RAX of INVLPGB: one address, one PCID, one ASID; and global translations too.
const PART: u64 = 0b0111;
const GLOBAL: u64 = 0b1000;

/// When the other CPUs are made to leave their guests, which ends their translations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kicks {
    /// As soon as anything is taken back: what a guest forgets to flush does not show.
    #[default]
    Always,
    /// Never, not even when the guest flushes: what no host may do.
    Never,
    /// When a flush of everything is complete: whatever else is taken back lives on, as hardware allows it.
    OnFlush,
}

/// What an exit has left to do about translations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translations {
    /// It took back a page or a permission that another CPU may still have a translation of.
    pub is_downgraded: bool,
    /// The same, and they have to end now: a flush is complete, or this host needs it for itself.
    pub is_flushed: bool,
}

impl<H: Hardware> Machine<'_, H> {
    /// INVLPGB or TLBSYNC.
    pub(crate) fn flush_instruction(&mut self, cpu: &mut Cpu, instruction: Trapped) {
        let vcpu = cpu.vcpu_mut();
        vcpu.advance(instruction.length());
        let counted = if instruction == Trapped::Invlpgb {
            // A flush of a part is none of what another page needs.
            cpu.began_flush |= vcpu.vmcb.save.rax & (PART | GLOBAL) == GLOBAL;
            Instruction::Invlpgb
        } else {
            self.translations.is_flushed |= core::mem::take(&mut cpu.began_flush);
            Instruction::Tlbsync
        };
        self.translations.is_downgraded = true;
        self.counters.instruction(cpu.current, counted);
    }

    /// Before the exit ends: no CPU goes on with a translation that has to be gone.
    pub(crate) fn flush_others(&mut self, cpu: &Cpu) {
        let due = core::mem::take(&mut self.translations);
        let kicks = match self.kicks {
            Kicks::Always => due.is_downgraded || due.is_flushed,
            Kicks::OnFlush => due.is_flushed,
            Kicks::Never => false,
        };
        if kicks {
            let kicked = self.hardware.kick_guests(cpu.apic_id);
            self.counters.events_add(Event::Kick, kicked.into());
        }
    }
}
