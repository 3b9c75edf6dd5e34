// SPDX-License-Identifier: MIT OR Apache-2.0
//! #HV, the one event that restricted injection leaves to the host (GHCB specification, 4.1.12).
//!
//! VMPL 0 must take a signalled event before it lets a lower VMPL run, although the host may signal
//! between its look at the doorbell page and its VMGEXIT. This host signals at exactly those
//! points, and stops the machine when the guest is run over the head of an event. It does so for
//! switches by the MSR protocol, whose request it sees before the VMGEXIT.

use snp::address::Vmpl;
use snp::ghcb_msr::Request;

use crate::counters::Event;
use crate::hardware::Hardware;
use crate::machine::{Flow, Machine};
use crate::record::ExitCode;
use crate::recurrence::Recurrence;
use crate::vcpu::Cpu;
use crate::vmcb::event;

/// First word of the doorbell page: a vector in bits 7:0, and NoFurtherSignal, which the guest
/// clears when it takes what is pending.
const NO_FURTHER_SIGNAL: u16 = 1 << 15;
/// Vector that the page shows: any but an exception's.
const VECTOR: u16 = 0x20;

/// A point between the request to run a lower VMPL and its VMGEXIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// At the VMGEXIT, after every check of the doorbell page: only #HV tells the guest.
    AtExit,
    /// Behind the write of the request, #HV not yet delivered: only the page tells the guest.
    BeforeCheckUnheard,
    /// Behind the write of the request, with #HV.
    BeforeCheck,
}

impl Moment {
    const fn next(self) -> Self {
        match self {
            Self::AtExit => Self::BeforeCheckUnheard,
            Self::BeforeCheckUnheard => Self::BeforeCheck,
            Self::BeforeCheck => Self::AtExit,
        }
    }
}

/// When the next event comes, and whether one is to be taken.
#[derive(Clone, Copy, Debug)]
pub struct DoorbellEvents {
    when: Recurrence,
    moment: Moment,
    signalled: bool,
}

impl DoorbellEvents {
    /// Events by this schedule, counted in entries of lower VMPLs; each at another moment.
    #[must_use]
    pub const fn new(when: Recurrence) -> Self {
        Self {
            when,
            moment: Moment::AtExit,
            signalled: false,
        }
    }

    fn is_due(&self, moments: &[Moment]) -> bool {
        self.when.is_due() && !self.signalled && moments.contains(&self.moment)
    }
}

/// Whether VMPL 0 is about to run a lower VMPL.
fn wants_lower_vmpl(cpu: &Cpu) -> bool {
    let request = Request::decode(cpu.vcpu().ghcb_msr);
    cpu.current == Vmpl::Vmpl0 && matches!(request, Some(Request::RunVmpl(1..)))
}

impl<H: Hardware> Machine<'_, H> {
    /// Called behind a write to the GHCB MSR.
    pub fn doorbell_after_request(&mut self, cpu: &mut Cpu) {
        let moments = [Moment::BeforeCheckUnheard, Moment::BeforeCheck];
        if wants_lower_vmpl(cpu) && self.doorbell.is_due(&moments) {
            self.signal(cpu);
        }
    }

    /// Called before a VMGEXIT; true when an event comes first, and the VMGEXIT is not executed.
    ///
    /// # Errors
    /// The guest was to be run before it took an event.
    pub fn doorbell_before_exit(&mut self, cpu: &mut Cpu) -> Flow<bool> {
        if !wants_lower_vmpl(cpu) {
            return Ok(false);
        }
        self.check_taken(cpu)?;
        if self.doorbell.is_due(&[Moment::AtExit]) && self.signal(cpu) {
            return Ok(true);
        }
        self.doorbell.when.behaved();
        Ok(false)
    }

    /// Host address of the running vCPU's doorbell page, if it is shared.
    fn doorbell_page(&self, cpu: &Cpu) -> Option<u64> {
        let page = cpu.vcpu().doorbell?.bits();
        let entry = self.rmp.entry(self.plan.page_index(page)?)?;
        (!entry.assigned).then_some(page)
    }

    /// Signals one event; false when the vCPU has no doorbell page.
    fn signal(&mut self, cpu: &mut Cpu) -> bool {
        let Some(page) = self.doorbell_page(cpu) else {
            return false;
        };
        let word = NO_FURTHER_SIGNAL | VECTOR;
        self.hardware.write(page, &word.to_le_bytes());
        self.counters.event(Event::HvSignalled);
        if self.doorbell.moment != Moment::BeforeCheckUnheard {
            cpu.vcpu_mut().vmcb.control.event_injection = event::HV;
            self.counters.event(Event::HvInjected);
        }
        self.doorbell.signalled = true;
        self.doorbell.moment = self.doorbell.moment.next();
        self.doorbell.when.misbehaved();
        true
    }

    /// The guest takes an event by clearing the page's word.
    fn check_taken(&mut self, cpu: &Cpu) -> Result<(), ExitCode> {
        if !self.doorbell.signalled {
            return Ok(());
        }
        if let Some(page) = self.doorbell_page(cpu) {
            let mut word = [0; 2];
            self.hardware.read(page, &mut word);
            if u16::from_le_bytes(word) & NO_FURTHER_SIGNAL != 0 {
                return Err(self.violation(cpu, "entered-over-hv-event", page));
            }
        }
        self.doorbell.signalled = false;
        Ok(())
    }
}
