// SPDX-License-Identifier: MIT OR Apache-2.0
//! VMGEXIT: the GHCB MSR protocol (GHCB specification, 2.3.1), and the way to the GHCB page.

use snp::address::{GuestPhysicalAddress, PageSize, Vmpl};
use snp::ghcb_msr::{HypervisorFeatures, Request, SevInfo, response};
use snp::psc::PscOperation;
use snp_model::psc::HostManner;

use crate::counters::{Event, Vmgexit};
use crate::cpuid_policy;
use crate::hardware::Hardware;
use crate::inspection::Moment;
use crate::machine::{Flow, Machine};
use crate::memory_plan::C_BIT;
use crate::page_conversion::ConversionRun;
use crate::record::{ExitCode, GUEST_REASON_SET, kind};
use crate::svsm_calls::Form;
use crate::vcpu::Cpu;

/// Versions of the GHCB protocol this host speaks.
const PROTOCOL_VERSION: u16 = 2;
/// Error of a page-state change by MSR; any value but 0 says no.
const REFUSED: u32 = 1;

/// What this host offers.
pub const FEATURES: HypervisorFeatures = HypervisorFeatures::new()
    .with_snp(true)
    .with_ap_creation(true)
    .with_restricted_injection(true)
    .with_apic_id_list(true)
    .with_multi_vmpl(true);

impl<H: Hardware> Machine<'_, H> {
    /// Serves a VMGEXIT; RIP is already behind it.
    ///
    /// # Errors
    /// Why the machine stops.
    pub fn vmgexit(&mut self, cpu: &mut Cpu) -> Flow {
        if cpu.current == Vmpl::Vmpl0 {
            self.inspect(cpu.vcpu(), Moment::FirstRequest);
        }
        let value = cpu.vcpu().ghcb_msr;
        if value.is_multiple_of(PageSize::Size4K.bytes()) {
            return self.ghcb_exit(cpu, GuestPhysicalAddress::new(value));
        }
        let Some(request) = Request::decode(value) else {
            self.counters.vmgexit(cpu.current, Vmgexit::Refused);
            return Err(self.died(cpu, "unknown-msr-request"));
        };
        let (cause, answer) = match request {
            Request::SevInfo => {
                let info = SevInfo {
                    max_version: PROTOCOL_VERSION,
                    min_version: PROTOCOL_VERSION,
                    c_bit: C_BIT.to_le_bytes()[0],
                };
                (Vmgexit::MsrSevInfo, info.encode())
            }
            Request::Cpuid { function, register } => {
                let answer = cpuid_policy::answer(&self.hardware, self.place(cpu), function, 0);
                let value = answer.get(usize::from(register)).copied().unwrap_or(0);
                (Vmgexit::MsrCpuid, response::cpuid(register, value))
            }
            Request::PreferredGhcb => (Vmgexit::MsrPreferred, response::no_preferred_ghcb()),
            Request::RegisterGhcb(page) => {
                cpu.vcpu_mut().registered_ghcb = Some(page);
                self.share_by_use(page);
                self.note_protocol_page(page.bits());
                (Vmgexit::MsrRegister, response::register_ghcb(page))
            }
            Request::PageStateChange { page, operation } => {
                let error = self.change_one_page(cpu, page, operation);
                (Vmgexit::MsrPsc, response::page_state_change(error))
            }
            Request::RunVmpl(vmpl) => {
                self.counters.vmgexit(cpu.current, Vmgexit::MsrRunVmpl);
                // The answer is there when this VMPL runs again.
                cpu.vcpu_mut().ghcb_msr = self.told(cpu, value, response::run_vmpl(0));
                if let Err(refusal) = self.switch_vmpl(cpu, vmpl, Form::Msr) {
                    cpu.vcpu_mut().ghcb_msr = response::run_vmpl(refusal as u32);
                }
                return Ok(());
            }
            Request::Features => (Vmgexit::MsrFeatures, response::features(FEATURES)),
            Request::Terminate { reason_set, reason } => {
                self.counters.vmgexit(cpu.current, Vmgexit::MsrTerminate);
                return Err(self.terminate(cpu, u64::from(reason_set), u64::from(reason)));
            }
        };
        self.counters.vmgexit(cpu.current, cause);
        cpu.vcpu_mut().ghcb_msr = self.told(cpu, value, answer);
        Ok(())
    }

    /// What the VMPL that runs is told: `answer`, or this host's falsehood.
    fn told(&mut self, cpu: &Cpu, request: u64, answer: u64) -> u64 {
        let lie = self
            .attacks
            .reply
            .and_then(|reply| reply.instead(cpu.current, request, answer));
        if lie.is_some() {
            self.counters.event(Event::FalseReply);
        }
        lie.unwrap_or(answer)
    }

    /// A GHCB in a page that has been the host's all the time needs no page-state change: OVMF asks for
    /// none. From here on the guest writes to it.
    fn share_by_use(&mut self, page: GuestPhysicalAddress) {
        if let Some(index) = self.plan.page_index(page.bits())
            && self.rmp.entry(index).is_some_and(|entry| !entry.assigned)
        {
            self.shared_view.mark(index, true);
        }
    }

    fn change_one_page(&mut self, cpu: &Cpu, page: GuestPhysicalAddress, operation: u8) -> u32 {
        let Ok(operation) = PscOperation::try_from(operation) else {
            return REFUSED;
        };
        match self.manner.next(cpu.current) {
            HostManner::Refuse | HostManner::FailAfter(0) => return REFUSED,
            HostManner::Lie => return 0,
            _ => {}
        }
        let mut run = ConversionRun::default();
        let changed = self.change_page_state(cpu, &mut run, page, PageSize::Size4K, operation);
        self.report_conversions(cpu, &mut run);
        if changed.is_ok() { 0 } else { REFUSED }
    }

    /// The guest ends the machine.
    pub fn terminate(&self, cpu: &Cpu, reason_set: u64, reason: u64) -> ExitCode {
        self.record(
            kind::TERMINATE,
            format_args!(
                "vmpl={} set={reason_set:#x} reason={reason:#x}",
                cpu.current.number()
            ),
        );
        match (reason_set == u64::from(GUEST_REASON_SET), reason) {
            (true, 0) => ExitCode::Success,
            (true, _) => ExitCode::GuestFailed,
            (false, _) => ExitCode::Terminated,
        }
    }
}
