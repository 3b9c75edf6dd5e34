// SPDX-License-Identifier: MIT OR Apache-2.0
//! PVALIDATE, RMPADJUST, RMPQUERY, VMGEXIT, INVLPGB and TLBSYNC, which QEMU's processor does not
//! know: they arrive as #UD or VMMCALL. The rules are those of `snp_model`; operands and results
//! are as in APM volume 3.

use snp::address::{PageSize, Vmpl};
use snp::operands::{InstructionCode, RmpAdjustTarget};
use snp::vmsa::EFER_LMA;
use snp_model::rmp::Outcome;

use crate::counters::{Event, Instruction};
use crate::decode::Trapped;
use crate::exits::low;
use crate::guest_memory::Unreachable;
use crate::hardware::Hardware;
use crate::machine::{Flow, Machine};
use crate::vcpu::{Cpu, Vcpu};
use crate::vmcb::{event, exit_code};

/// OF, SF, ZF, AF, PF and CF, which the instructions write.
const ARITHMETIC_FLAGS: u64 = 0x8D5;
const ZERO_FLAG: u64 = 1 << 6;
const CARRY_FLAG: u64 = 1;

/// What an instruction leaves behind.
#[derive(Clone, Copy, Debug)]
struct Completion {
    code: InstructionCode,
    carry: bool,
}

impl<H: Hardware> Machine<'_, H> {
    /// Handles #UD and VMMCALL.
    ///
    /// # Errors
    /// Why the machine stops.
    pub fn trapped_instruction(&mut self, cpu: &mut Cpu) -> Flow {
        let vmpl = cpu.current;
        let vcpu = cpu.vcpu_mut();
        let Some(instruction) = Trapped::decode(self.instruction_bytes(vcpu)) else {
            if vcpu.vmcb.control.exit_code == exit_code::VMMCALL {
                return self.inject_communication(cpu, exit_code::VMMCALL);
            }
            vcpu.vmcb.control.event_injection = event::INVALID_OPCODE;
            return Ok(());
        };
        if instruction != Trapped::Vmgexit && vcpu.vmcb.save.cpl != 0 {
            vcpu.vmcb.control.event_injection = event::GENERAL_PROTECTION;
            return Ok(());
        }
        let counted = match instruction {
            Trapped::Vmgexit => {
                if self.doorbell_before_exit(cpu)? {
                    return Ok(());
                }
                let vcpu = cpu.vcpu_mut();
                vcpu.advance(instruction.length());
                return self.vmgexit(cpu);
            }
            Trapped::Invlpgb | Trapped::Tlbsync => {
                self.flush_instruction(cpu, instruction);
                return Ok(());
            }
            Trapped::Pvalidate => Instruction::Pvalidate,
            Trapped::RmpAdjust => Instruction::RmpAdjust,
            Trapped::RmpQuery => Instruction::RmpQuery,
        };
        self.counters.instruction(vmpl, counted);
        self.page_instruction(cpu, instruction)
    }

    /// The three instructions with a page operand, RAX = linear address.
    fn page_instruction(&mut self, cpu: &mut Cpu, instruction: Trapped) -> Flow {
        let vcpu = cpu.vcpu_mut();
        let long = vcpu.vmcb.save.efer & EFER_LMA != 0;
        let linear = if long {
            vcpu.vmcb.save.rax
        } else {
            u64::from(low(vcpu.vmcb.save.rax))
        };
        let at = match self.translate(vcpu, linear) {
            Ok(at) => at,
            Err(Unreachable::NotMapped) => {
                vcpu.vmcb.save.cr2 = linear;
                vcpu.vmcb.control.event_injection = event::PAGE_FAULT;
                return Ok(());
            }
            Err(Unreachable::Forbidden) => return Err(self.died(cpu, "operand-not-translated")),
        };
        let Some(index) = self.plan.page_index(at.gpa).filter(|_| at.c_bit) else {
            complete(
                vcpu,
                Completion {
                    code: InstructionCode::FAIL_INPUT,
                    carry: false,
                },
            );
            return Ok(());
        };
        let vmpl = vcpu.vmpl;
        if instruction == Trapped::Pvalidate && vcpu.registers.rdx & 1 != 0 && vmpl == Vmpl::Vmpl0 {
            self.attack_before_validation(cpu, index);
        }
        let is_assigned = self.rmp.entry(index).is_some_and(|entry| entry.assigned);
        if is_assigned && !self.nested.frames.fits(index) {
            self.other_owner(cpu, index)?;
        }
        let vcpu = cpu.vcpu_mut();
        if instruction == Trapped::RmpAdjust
            && RmpAdjustTarget::from_bits(vcpu.registers.rdx).permissions() != 0
            && let Err(gpa) = self.check_grant(vmpl, index)
        {
            return Err(self.violation(cpu, "granted-with-contents", gpa));
        }
        // A small operation on a large entry is a nested page fault, the host smashes and resumes.
        let mut outcome = self.execute(vcpu, instruction, index);
        if outcome == Outcome::NeedsSmash {
            self.smash(index);
            outcome = self.execute(vcpu, instruction, index);
        }
        match outcome {
            Outcome::Done((code, carry)) => {
                complete(vcpu, Completion { code, carry });
                Ok(())
            }
            Outcome::NotValidated => self.inject_communication(cpu, exit_code::NOT_VALIDATED),
            Outcome::NotAssigned if self.switches.implicit_conversion() => {
                self.counters.event(Event::ConvertImplicit);
                let assigned = self.convert(index, PageSize::Size4K, false);
                assigned.map_err(|_| self.died(cpu, "conversion"))
            }
            Outcome::NotAssigned | Outcome::NeedsSmash | Outcome::NoPage => {
                Err(self.violation(cpu, "instruction-on-shared-page", at.gpa))
            }
        }
    }

    /// One attempt; `Done` is (EAX, CF).
    fn execute(
        &mut self,
        vcpu: &mut Vcpu,
        instruction: Trapped,
        index: usize,
    ) -> Outcome<(InstructionCode, bool)> {
        let (caller, rdx) = (vcpu.vmpl, vcpu.registers.rdx);
        let size = if vcpu.registers.rcx & 1 != 0 {
            PageSize::Size2M
        } else {
            PageSize::Size4K
        };
        let target = RmpAdjustTarget::from_bits(rdx);
        let takes_back = match instruction {
            Trapped::Pvalidate => rdx & 1 == 0,
            _ => self.takes_permissions(index, target),
        };
        let outcome = match instruction {
            Trapped::Pvalidate => map(
                self.rmp.pvalidate(index, size, rdx & 1 != 0, caller),
                |result| (result.code, result.unchanged),
            ),
            Trapped::RmpAdjust => map(self.rmp.rmpadjust(index, size, target, caller), |code| {
                (code, false)
            }),
            _ => {
                let queried = Vmpl::try_from(target.vmpl()).unwrap_or(Vmpl::Vmpl0);
                return map(
                    self.rmp.rmpquery(index, queried, caller),
                    |result| match result {
                        Ok((view, size)) => {
                            vcpu.registers.rdx = view.into_bits();
                            vcpu.registers.rcx = u64::from(size == PageSize::Size2M);
                            (InstructionCode::SUCCESS, false)
                        }
                        Err(code) => (code, false),
                    },
                );
            }
        };
        if let Outcome::Done((InstructionCode::SUCCESS, false)) = outcome {
            self.nested
                .sync(&self.hardware, &self.rmp, index, size == PageSize::Size2M);
            self.translations.is_downgraded |= takes_back;
        }
        outcome
    }

    /// Whether RMPADJUST with these operands takes away what a VMPL has.
    fn takes_permissions(&self, index: usize, target: RmpAdjustTarget) -> bool {
        let (Some(entry), Ok(vmpl)) = (self.rmp.entry(index), Vmpl::try_from(target.vmpl())) else {
            return false;
        };
        !entry.permissions(vmpl).within(target.rmp_permissions())
    }
}

fn map<T, U>(outcome: Outcome<T>, change: impl FnOnce(T) -> U) -> Outcome<U> {
    match outcome {
        Outcome::Done(value) => Outcome::Done(change(value)),
        Outcome::NeedsSmash => Outcome::NeedsSmash,
        Outcome::NotAssigned => Outcome::NotAssigned,
        Outcome::NotValidated => Outcome::NotValidated,
        Outcome::NoPage => Outcome::NoPage,
    }
}

/// Writes EAX and the flags and ends the instruction.
fn complete(vcpu: &mut Vcpu, completion: Completion) {
    let save = &mut vcpu.vmcb.save;
    let mut flags = save.rflags & !ARITHMETIC_FLAGS;
    if completion.code == InstructionCode::SUCCESS {
        flags |= ZERO_FLAG;
    }
    if completion.carry {
        flags |= CARRY_FLAG;
    }
    save.rflags = flags;
    save.rax = u64::from(completion.code.0);
    vcpu.advance(Trapped::Pvalidate.length());
}
