// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sorting the exits of a guest: what hardware would turn into #VC becomes #VC, an automatic exit
//! (HLT) is served at once (APM volume 2, 15.35.4), what the emulated SNP instructions need is done here, everything else stops the machine with a report.

use snp::address::Vmpl;
use snp::msr::{self, SevStatus};

use crate::counters::Exit;
use crate::cpuid_policy;
use crate::decode::{Cr0Write, Trapped};
use crate::hardware::Hardware;
use crate::machine::{Flow, Machine};
use crate::msr_policy;
use crate::page_attack::Left;
use crate::record::kind;
use crate::vcpu::{CR0_PAGING, Cpu, WokenBy};
use crate::vmcb::{event, exit_code};
use snp::vmsa::{EFER_LMA, EFER_LME};

/// Length of HLT.
const ONE_BYTE: u64 = 1;
/// RFLAGS.IF.
const INTERRUPT_FLAG: u64 = 1 << 9;
/// Length of CPUID, RDMSR and WRMSR.
const TWO_BYTES: u64 = 2;
/// CR0.ET reads as one.
const CR0_EXTENSION_TYPE: u64 = 1 << 4;
/// What LMSW changes: PE (only upwards), MP, EM, TS.
const MACHINE_STATUS_WORD: u64 = 0xF;

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half of a register"
)]
pub(crate) const fn low(value: u64) -> u32 {
    value as u32
}

impl<H: Hardware> Machine<'_, H> {
    /// Handles the exit that the VMCB of the running vCPU describes.
    ///
    /// # Errors
    /// Why the machine stops.
    pub fn handle_exit(&mut self, cpu: &mut Cpu) -> Flow {
        if self.take_posted(cpu) {
            return Ok(());
        }
        let left = Left {
            vmpl: cpu.current,
            served: cpu.served.is_some(),
        };
        let code = cpu.vcpu().vmcb.control.exit_code;
        let mut flow = self.sort_exit(cpu);
        // Exits that are this host's own doing are no moments of the guest's.
        let is_guests = !matches!(
            code,
            exit_code::INTERRUPT | exit_code::NMI | exit_code::NESTED_FAULT
        );
        if is_guests && flow.is_ok() {
            flow = self.attack_behind_exit(cpu, left);
        }
        self.flush_others(cpu);
        flow
    }

    fn sort_exit(&mut self, cpu: &mut Cpu) -> Flow {
        let vmpl = cpu.current;
        let vcpu = cpu.vcpu();
        let code = vcpu.vmcb.control.exit_code;
        if self.switches.trace() {
            let (control, rip) = (&vcpu.vmcb.control, vcpu.vmcb.save.rip);
            let (rax, rcx) = (vcpu.vmcb.save.rax, vcpu.registers.rcx);
            let (info_1, info_2) = (control.exit_info_1, control.exit_info_2);
            self.record(
                kind::TRACE,
                format_args!(
                    "cpu={} vmpl={} exit={code:#x} info1={info_1:#x} info2={info_2:#x} rip={rip:#x} rax={rax:#x} rcx={rcx:#x}",
                    cpu.apic_id,
                    vmpl.number(),
                ),
            );
        }
        if !cpu.vcpu().is_runnable() {
            // The next VMRUN of such a guest fails on hardware.
            return Err(self.died(cpu, "efer-svme-cleared"));
        }
        let cause = match code {
            exit_code::CR0_WRITE => Exit::Cr0,
            exit_code::INVALID_OPCODE => Exit::InvalidOpcode,
            exit_code::VMMCALL => Exit::Vmmcall,
            exit_code::CPUID => Exit::Cpuid,
            exit_code::MSR => Exit::Msr,
            exit_code::IOIO => Exit::Io,
            exit_code::HLT => Exit::Halt,
            exit_code::NESTED_FAULT => Exit::NestedFault,
            exit_code::INTERRUPT | exit_code::NMI => Exit::Interrupt,
            _ => Exit::OtherInstruction,
        };
        self.counters.exit(vmpl, cause);
        match code {
            exit_code::INVALID_OPCODE | exit_code::VMMCALL => self.trapped_instruction(cpu),
            exit_code::NESTED_FAULT => self.fault_in_delivery(cpu),
            exit_code::CR0_WRITE => self.cr0_write(cpu),
            exit_code::MSR => self.msr_access(cpu),
            exit_code::CPUID if self.switches.pass_through() => {
                self.cpuid_raw(cpu);
                Ok(())
            }
            exit_code::HLT => {
                // An automatic exit: #VC is for what the guest has to give an account of.
                let vcpu = cpu.vcpu_mut();
                vcpu.advance(ONE_BYTE);
                let woken_by = if vcpu.vmcb.save.rflags & INTERRUPT_FLAG != 0 {
                    WokenBy::Interrupt
                } else {
                    WokenBy::Nmi
                };
                self.halt(cpu, woken_by);
                Ok(())
            }
            exit_code::CPUID
            | exit_code::IOIO
            | exit_code::RDPMC
            | exit_code::INVD
            | exit_code::WBINVD
            | exit_code::MONITOR
            | exit_code::MWAIT => self.inject_communication(cpu, code),
            exit_code::INTERRUPT | exit_code::NMI => Ok(()),
            exit_code::VMRUN..=exit_code::SKINIT => {
                cpu.vcpu_mut().vmcb.control.event_injection = event::INVALID_OPCODE;
                Ok(())
            }
            exit_code::SHUTDOWN => Err(self.died(cpu, "triple-fault")),
            _ => Err(self.died(cpu, "unhandled-exit")),
        }
    }

    /// A nested page fault. When it interrupted the delivery of an event, the event is delivered again with the access that is
    /// tried again (APM volume 2, 15.20), unless an exception takes its place.
    fn fault_in_delivery(&mut self, cpu: &mut Cpu) -> Flow {
        let (rip, interrupted) = {
            let vmcb = &cpu.vcpu().vmcb;
            (vmcb.save.rip, vmcb.control.exit_interrupt_info)
        };
        self.nested_fault(cpu)?;
        let vmcb = &mut cpu.vcpu_mut().vmcb;
        if interrupted & event::VALID != 0 && vmcb.save.rip == rip {
            vmcb.control.event_injection = interrupted;
        }
        Ok(())
    }

    fn cpuid_raw(&self, cpu: &mut Cpu) {
        let place = self.place(cpu);
        let vcpu = cpu.vcpu_mut();
        let (save, registers) = (&mut vcpu.vmcb.save, &mut vcpu.registers);
        let answer = cpuid_policy::answer(&self.hardware, place, low(save.rax), low(registers.rcx));
        [save.rax, registers.rbx, registers.rcx, registers.rdx] = answer.map(u64::from);
        vcpu.advance(TWO_BYTES);
    }

    /// RDMSR and WRMSR of what the VMSA does not carry: the host keeps the GHCB MSR and SEV_STATUS,
    /// everything else is #VC.
    fn msr_access(&mut self, cpu: &mut Cpu) -> Flow {
        let by_policy = msr_policy::read(cpu, low(cpu.vcpu().registers.rcx));
        let vcpu = cpu.vcpu_mut();
        let write = vcpu.vmcb.control.exit_info_1 & 1 != 0;
        let rdx = vcpu.registers.rdx;
        let written = (rdx << 32) | u64::from(low(vcpu.vmcb.save.rax));
        let read = match (low(vcpu.registers.rcx), write) {
            (msr::GHCB, true) => {
                vcpu.ghcb_msr = written;
                vcpu.advance(TWO_BYTES);
                self.doorbell_after_request(cpu);
                return self.request_behind(cpu);
            }
            (msr::GHCB, false) => Some(vcpu.ghcb_msr),
            (msr::SEV_STATUS, false) => Some(SevStatus::of_features(vcpu.features).into_bits()),
            _ if self.switches.pass_through() => (!write).then_some(by_policy.unwrap_or(0)),
            _ => return self.inject_communication(cpu, exit_code::MSR),
        };
        if let Some(value) = read {
            vcpu.vmcb.save.rax = u64::from(low(value));
            vcpu.registers.rdx = value >> 32;
        }
        vcpu.advance(TWO_BYTES);
        Ok(())
    }

    /// Does the VMGEXIT that follows a write of the GHCB MSR at once, as kernels have it: on hardware that write is no exit
    /// either. At VMPL 0 both stay exits of their own, because this host's attacks count the exits of VMPL 0.
    fn request_behind(&mut self, cpu: &mut Cpu) -> Flow {
        let vcpu = cpu.vcpu();
        let follows = vcpu.vmpl != Vmpl::Vmpl0
            && Trapped::decode(self.instruction_bytes(vcpu)) == Some(Trapped::Vmgexit);
        if follows {
            return self.trapped_instruction(cpu);
        }
        Ok(())
    }

    /// A write to CR0 while paging is off: the nested tables change when paging is turned on.
    fn cr0_write(&self, cpu: &mut Cpu) -> Flow {
        let Some(write) = Cr0Write::decode(&self.instruction_bytes(cpu.vcpu())) else {
            return Err(self.died(cpu, "cr0-write-not-decoded"));
        };
        let vcpu = cpu.vcpu_mut();
        let source = u64::from(vcpu.low_register(write.register));
        let save = &mut vcpu.vmcb.save;
        save.cr0 = if write.machine_status_word {
            (save.cr0 & !(MACHINE_STATUS_WORD & !1)) | (source & MACHINE_STATUS_WORD)
        } else {
            source
        } | CR0_EXTENSION_TYPE;
        if save.cr0 & CR0_PAGING != 0 && save.efer & EFER_LME != 0 {
            save.efer |= EFER_LMA;
        }
        vcpu.advance(write.length);
        Ok(())
    }
}
