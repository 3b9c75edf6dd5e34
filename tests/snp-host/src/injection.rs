// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosts that raise exceptions and interrupts in VMPL 0.
//!
//! Under restricted injection the processor takes nothing but #HV from the host: VMRUN with another event fails (APM
//! volume 2, 15.36.16). This host notes that, and runs the guest without. Elsewhere the event is delivered.

use bitfield_struct::bitfield;
use snp::address::Vmpl;

use crate::counters::Event;
use crate::hardware::Hardware;
use crate::machine::{Flow, Machine};
use crate::vcpu::Cpu;
use crate::vmcb::event;

/// `data` of a record that arms it.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InjectionWord {
    /// Vector.
    pub vector: u8,
    /// Type by the layout of EVENTINJ: 0 interrupt, 2 NMI, 3 exception.
    #[bits(3)]
    pub kind: u8,
    /// Only the exits that begin, interrupt and end calls count; otherwise all of VMPL 0.
    pub in_calls: bool,
    /// Exits before it.
    #[bits(20)]
    pub count: u32,
}

/// Types of events (APM volume 2, 15.20).
const INTERRUPT: u8 = 0;
const NMI: u8 = 2;
const EXCEPTION: u8 = 3;
/// Vector of #VC, whose frame this host writes by itself ([`crate::exception_frame`]).
const COMMUNICATION: u8 = 29;
/// Exceptions with an error code: 8, 10 to 14 and 17.
const ERROR_CODE_VECTORS: u32 = 1 << 8 | 0b1_1111 << 10 | 1 << 17;
/// The error code of a #VC that no instruction of VMPL 0 has asked for: VMMCALL.
const UNASKED: u64 = crate::vmcb::exit_code::VMMCALL;

/// One event, not yet raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    vector: u8,
    kind: u8,
    in_calls: bool,
    left: u32,
}

impl Injection {
    /// Reads a record; `None` when there is no such type of event.
    #[must_use]
    pub fn decode(data: u32) -> Option<Self> {
        let word = InjectionWord::from_bits(data);
        matches!(word.kind(), INTERRUPT | NMI | EXCEPTION).then_some(Self {
            vector: word.vector(),
            kind: word.kind(),
            in_calls: word.in_calls(),
            left: word.count(),
        })
    }

    /// Whether an exit of `left`, which is one of a call's or not, is one to count.
    const fn counts(self, left: Vmpl, in_call: bool) -> bool {
        if self.in_calls {
            in_call
        } else {
            matches!(left, Vmpl::Vmpl0)
        }
    }

    /// EVENTINJ; error codes are 0.
    const fn event(self) -> u64 {
        let with_code = self.kind == EXCEPTION
            && self.vector < 32
            && ERROR_CODE_VECTORS >> self.vector & 1 != 0;
        let code = if with_code { event::ERROR_CODE } else { 0 };
        event::VALID | (self.kind as u64) << 8 | self.vector as u64 | code
    }
}

impl<H: Hardware> Machine<'_, H> {
    /// Raises what is armed, when its moment has come: behind an exit of `left`, which is one of a call's or not.
    ///
    /// # Errors
    /// The guest cannot take a #VC.
    pub(crate) fn inject_vector(&mut self, cpu: &mut Cpu, left: Vmpl, in_call: bool) -> Flow {
        let Some(injection) = &mut self.attacks.vector else {
            return Ok(());
        };
        if injection.counts(left, in_call) {
            injection.left = injection.left.saturating_sub(1);
        }
        if injection.left != 0 || cpu.current != Vmpl::Vmpl0 || cpu.is_halted {
            return Ok(());
        }
        let injection = *injection;
        self.attacks.vector = None;
        let vcpu = cpu.vcpu_mut();
        if vcpu.features.restricted_injection() {
            self.counters.event(Event::InjectionRefused);
            return Ok(());
        }
        self.counters.event(Event::Injected);
        if (injection.kind, injection.vector) == (EXCEPTION, COMMUNICATION) {
            return self.inject_communication(cpu, UNASKED);
        }
        vcpu.vmcb.control.event_injection = injection.event();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_form_of_the_manual() {
        let event = |kind, vector| {
            let word = InjectionWord::new().with_kind(kind).with_vector(vector);
            Injection::decode(word.into_bits()).map(Injection::event)
        };
        assert_eq!(event(3, 13), Some(event::GENERAL_PROTECTION));
        assert_eq!(event(3, 6), Some(event::INVALID_OPCODE));
        assert_eq!(event(2, 2), Some(0x8000_0202));
        assert_eq!(event(0, 0x80), Some(0x8000_0080));
        assert_eq!((event(1, 0), event(4, 0)), (None, None));
    }

    #[test]
    fn exits_of_vmpl_0_count_or_those_of_calls() {
        for in_calls in [false, true] {
            let word = InjectionWord::new().with_kind(3).with_in_calls(in_calls);
            let injection = Injection::decode(word.into_bits()).unwrap();
            assert_eq!(injection.counts(Vmpl::Vmpl0, false), !in_calls);
            assert!(injection.counts(Vmpl::Vmpl0, true));
            // The guest's exit that begins a call.
            assert_eq!(injection.counts(Vmpl::Vmpl2, true), in_calls);
            assert!(!injection.counts(Vmpl::Vmpl2, false));
        }
    }
}
