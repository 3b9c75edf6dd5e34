// SPDX-License-Identifier: MIT OR Apache-2.0
//! Delivering #VC: the frame is built here, because QEMU's EVENTINJ pushes no error code for
//! vector 29. One that cannot be delivered becomes a double fault, and that failing a shutdown.
//! Source: APM volume 2, 8.9 (long-mode interrupt control transfers), 8.2.9 (#DF), and 8.7 for protected
//! mode without paging, in which firmware asks for CPUID before it turns paging on.

use snp::vmsa::EFER_LMA;

use crate::counters::Event;
use crate::exits::low;
use crate::guest_memory::Unreachable;
use crate::hardware::Hardware;
use crate::machine::{Flow, Machine};
use crate::vcpu::{Cpu, Vcpu};
use crate::vmcb::{SegmentRegister, exit_code};

/// An exception with an error code.
#[derive(Clone, Copy, Debug)]
struct Exception {
    vector: u64,
    error_code: u64,
}

/// Vector of #VC.
const COMMUNICATION: u64 = 29;
const DOUBLE_FAULT: Exception = Exception {
    vector: 8,
    error_code: 0,
};
/// Bytes of a long-mode gate, and of one of protected mode.
const GATE_BYTES: u64 = 16;
const LEGACY_GATE_BYTES: u64 = 8;
/// CR0.PE and RFLAGS.VM.
const PROTECTION: u64 = 1;
const VIRTUAL_8086: u64 = 1 << 17;
/// RSP0 and IST1 in a 64-bit TSS.
const TSS_RSP0: u64 = 0x04;
const TSS_IST1: u64 = 0x24;
/// Trap, nested task and resume flags, which delivery clears, and the interrupt flag, which an
/// interrupt gate clears too.
const TRAP_NESTED_RESUME: u64 = (1 << 8) | (1 << 14) | (1 << 16);
const INTERRUPT_FLAG: u64 = 1 << 9;
const RESUME_FLAG: u64 = 1 << 16;
const INTERRUPT_GATE: u64 = 14;

/// A gate of the guest's IDT; of one of protected mode, `high` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gate {
    low: u64,
    high: u64,
}

impl Gate {
    const fn is_present(self) -> bool {
        self.low & (1 << 47) != 0
    }

    const fn offset(self) -> u64 {
        (self.low & 0xFFFF) | ((self.low >> 32) & 0xFFFF_0000) | (self.high << 32)
    }

    const fn selector(self) -> u16 {
        let bytes = self.low.to_le_bytes();
        u16::from_le_bytes([bytes[2], bytes[3]])
    }

    const fn interrupt_stack(self) -> u64 {
        (self.low >> 32) & 7
    }

    const fn kind(self) -> u64 {
        (self.low >> 40) & 0xF
    }
}

impl<H: Hardware> Machine<'_, H> {
    /// Delivers #VC with `error_code` (an exit code) to the VMPL that runs.
    ///
    /// # Errors
    /// Stops the machine when the guest cannot take the double fault either: a shutdown on hardware.
    pub fn inject_communication(&mut self, cpu: &mut Cpu, error_code: u64) -> Flow {
        if error_code == exit_code::NOT_VALIDATED {
            self.counters.event(Event::NotValidated);
        }
        // TR, whose base finds the stacks, may still be in the processor only.
        self.hardware.store_hidden(cpu.vcpu_mut());
        let exception = Exception {
            vector: COMMUNICATION,
            error_code,
        };
        let vcpu = cpu.vcpu();
        let delivery = self
            .frame(vcpu, exception)
            .or_else(|_| self.frame(vcpu, DOUBLE_FAULT));
        let Ok(delivery) = delivery else {
            return Err(self.died(cpu, "undeliverable-vc"));
        };
        delivery.apply(cpu.vcpu_mut());
        Ok(())
    }

    fn frame(&self, vcpu: &Vcpu, exception: Exception) -> Result<Delivery, Unreachable> {
        if vcpu.vmcb.save.efer & EFER_LMA != 0 {
            self.push_frame(vcpu, exception)
        } else {
            self.push_legacy_frame(vcpu, exception)
        }
    }

    /// Writes the frame to the guest's stack; the registers change only once that has worked.
    fn push_frame(&self, vcpu: &Vcpu, exception: Exception) -> Result<Delivery, Unreachable> {
        let save = &vcpu.vmcb.save;
        let first = exception.vector * GATE_BYTES;
        if first + GATE_BYTES - 1 > u64::from(save.idtr.limit) {
            return Err(Unreachable::Forbidden);
        }
        let address = save.idtr.base.wrapping_add(first);
        let mut words = [[0; 8]; 2];
        self.read_linear(vcpu, address, words.as_flattened_mut())?;
        let [low, high] = words.map(u64::from_le_bytes);
        let gate = Gate { low, high };
        if !gate.is_present() {
            return Err(Unreachable::NotMapped);
        }
        let top = match gate.interrupt_stack() {
            0 if save.cpl != 0 => {
                self.read_linear_u64(vcpu, save.tr.base.wrapping_add(TSS_RSP0))?
            }
            0 => save.rsp,
            number => {
                let offset = TSS_IST1 + 8 * (number - 1);
                self.read_linear_u64(vcpu, save.tr.base.wrapping_add(offset))?
            }
        } & !15;
        // From the lowest address up.
        let frame = [
            exception.error_code,
            save.rip,
            u64::from(save.cs.selector),
            save.rflags | RESUME_FLAG,
            save.rsp,
            u64::from(save.ss.selector),
        ];
        let stack = top.wrapping_sub(size_of_val(&frame) as u64);
        self.write_linear(vcpu, stack, frame.map(u64::to_le_bytes).as_flattened())?;
        Ok(Delivery {
            gate,
            attributes: code_attributes(self.descriptor(vcpu, gate.selector())?),
            base: 0,
            stack,
        })
    }

    /// The same in protected mode, at CPL 0 only: four words, no change of stacks.
    fn push_legacy_frame(
        &self,
        vcpu: &Vcpu,
        exception: Exception,
    ) -> Result<Delivery, Unreachable> {
        let save = &vcpu.vmcb.save;
        let first = exception.vector * LEGACY_GATE_BYTES;
        let in_table = first + LEGACY_GATE_BYTES - 1 <= u64::from(save.idtr.limit);
        let plain = save.cr0 & PROTECTION != 0 && save.rflags & VIRTUAL_8086 == 0 && save.cpl == 0;
        if !plain || !in_table {
            return Err(Unreachable::Forbidden);
        }
        let gate = Gate {
            low: self.read_linear_u64(vcpu, save.idtr.base.wrapping_add(first))?,
            high: 0,
        };
        if !gate.is_present() {
            return Err(Unreachable::NotMapped);
        }
        let frame = [
            low(exception.error_code),
            low(save.rip),
            save.cs.selector.into(),
            low(save.rflags | RESUME_FLAG),
        ];
        let stack = low(save.rsp).wrapping_sub(low(size_of_val(&frame) as u64));
        let address = u64::from(low(save.ss.base).wrapping_add(stack));
        self.write_linear(vcpu, address, frame.map(u32::to_le_bytes).as_flattened())?;
        let descriptor = self.descriptor(vcpu, gate.selector())?;
        Ok(Delivery {
            gate,
            attributes: code_attributes(descriptor),
            base: ((descriptor >> 16) & 0xFF_FFFF) | ((descriptor >> 32) & 0xFF00_0000),
            stack: stack.into(),
        })
    }

    /// A descriptor of the guest's global table.
    fn descriptor(&self, vcpu: &Vcpu, selector: u16) -> Result<u64, Unreachable> {
        let table = vcpu.vmcb.save.gdtr.base;
        self.read_linear_u64(vcpu, table.wrapping_add(u64::from(selector & !7)))
    }
}

/// What delivery changes in the registers.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    gate: Gate,
    attributes: u16,
    base: u64,
    stack: u64,
}

impl Delivery {
    fn apply(self, vcpu: &mut Vcpu) {
        let save = &mut vcpu.vmcb.save;
        if save.cpl != 0 {
            save.cpl = 0;
            save.ss.selector = 0;
            // VMRUN takes the CPL from here.
            save.ss.attributes &= !SegmentRegister::PRIVILEGE;
        }
        save.cs = SegmentRegister {
            selector: self.gate.selector(),
            attributes: self.attributes,
            limit: u32::MAX,
            base: self.base,
        };
        save.rsp = self.stack;
        save.rip = self.gate.offset();
        save.rflags &= !TRAP_NESTED_RESUME;
        if self.gate.kind() == INTERRUPT_GATE {
            save.rflags &= !INTERRUPT_FLAG;
        }
        vcpu.vmcb.control.interrupt_shadow = 0;
    }
}

/// Attributes of a code descriptor in the compressed form of VMCB and VMSA.
const fn code_attributes(descriptor: u64) -> u16 {
    let bytes = descriptor.to_le_bytes();
    u16::from_le_bytes([bytes[5], bytes[6] >> 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_and_descriptors_are_taken_apart() {
        let gate = Gate {
            low: 0x1234_8E02_0008_5678,
            high: 0xFFFF_8000,
        };
        assert!(gate.is_present());
        assert_eq!(gate.offset(), 0xFFFF_8000_1234_5678);
        assert_eq!(
            (gate.selector(), gate.interrupt_stack(), gate.kind()),
            (8, 2, INTERRUPT_GATE)
        );
        assert_eq!(code_attributes(0x00AF_9B00_0000_FFFF), 0xA9B);
    }
}
