// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port, device-memory and MSR requests of a GHCB.

use snp::ghcb::{IoExitInformation, malformed, offset};

use crate::counters::Event;
use crate::exits::low;
use crate::firmware_configuration;
use crate::ghcb_exit::{GhcbReply, GhcbRequest};
use crate::hardware::Hardware;
use crate::interrupt_filter::{self, Written};
use crate::machine::{Flow, Machine};
use crate::msr_policy;
use crate::power::PowerChange;
use crate::record::{ATTACK_PORT, EXIT_PORT, MARKER_PORT, PSC_PORT, RECORD_PORT, WATCH_PORT, kind};
use crate::vcpu::Cpu;
use crate::vmcb::event;

/// Ports that are the host's alone: its records, its exit, the firmware configuration device's
/// DMA, which would reach this host's own memory, the one that raises an SMI, and QEMU's list of its processors (CPU hot-plug),
/// which has one more than the guest: firmware would wait for it without end.
fn is_host_port(port: u16) -> bool {
    matches!(port, RECORD_PORT | 0x0514..=0x051B | 0xB2 | 0x0CD8..=0x0CE3)
        || (EXIT_PORT..EXIT_PORT + 4).contains(&port)
}

impl<H: Hardware> Machine<'_, H> {
    /// IN, OUT, INS and OUTS.
    ///
    /// # Errors
    /// The guest turned the machine off or reset it.
    pub fn port_access(&mut self, cpu: &Cpu, request: &GhcbRequest) -> Flow<GhcbReply> {
        let io = IoExitInformation::from_bits(request.info_1);
        let bytes = io.operand_bytes();
        if bytes == 0 {
            return Ok(GhcbReply::malformed(malformed::INVALID_INPUT));
        }
        if io.string() {
            return self.string_access(cpu, request, io);
        }
        Ok(if io.input() {
            let value = self.port_read(io.port(), bytes);
            // A narrow IN leaves the rest of RAX alone.
            let mask = if bytes == 4 {
                u64::MAX
            } else {
                (1 << (8 * u32::from(bytes))) - 1
            };
            GhcbReply::rax((request.rax & !mask) | (u64::from(value) & mask))
        } else if request.has(&[offset::RAX]) {
            self.port_write(cpu, io.port(), bytes, low(request.rax))?;
            GhcbReply::default()
        } else {
            GhcbReply::malformed(malformed::MISSING_INPUT)
        })
    }

    /// INS and OUTS: SW_EXITINFO2 elements in the GHCB's buffer.
    fn string_access(
        &mut self,
        cpu: &Cpu,
        request: &GhcbRequest,
        io: IoExitInformation,
    ) -> Flow<GhcbReply> {
        let bytes = io.operand_bytes();
        let count = if io.repeat() { request.info_2 } else { 1 };
        let buffer = count
            .checked_mul(u64::from(bytes))
            .and_then(|length| request.buffer(length));
        let Some(buffer) = buffer else {
            return Ok(GhcbReply::malformed(malformed::INVALID_SCRATCH));
        };
        let size = usize::from(bytes);
        for address in (0..count).map(|number| buffer + number * u64::from(bytes)) {
            let mut word = [0; 4];
            let element = word.get_mut(..size).unwrap_or_default();
            if io.input() {
                element.copy_from_slice(
                    self.port_read(io.port(), bytes)
                        .to_le_bytes()
                        .get(..size)
                        .unwrap_or_default(),
                );
                self.hardware.write(address, element);
            } else {
                self.hardware.read(address, element);
                self.port_write(cpu, io.port(), bytes, u32::from_le_bytes(word))?;
            }
        }
        Ok(GhcbReply::default())
    }

    fn port_read(&mut self, port: u16, bytes: u8) -> u32 {
        if is_host_port(port) {
            u32::MAX
        } else if port == firmware_configuration::DATA && bytes == 1 {
            let byte = self.hardware.port_read(port, bytes);
            self.configuration.read(byte)
        } else {
            self.hardware.port_read(port, bytes)
        }
    }

    fn port_write(&mut self, cpu: &Cpu, port: u16, bytes: u8, value: u32) -> Flow {
        if let Some(change) = PowerChange::of(port, bytes, value) {
            return Err(self.power(cpu, change, port));
        }
        if port == MARKER_PORT && bytes == 4 {
            let timestamp = self.hardware.timestamp();
            self.record(kind::MARK, format_args!("id={value} tsc={timestamp}"));
            self.snapshot(value);
            self.manner.mark(value);
        } else if port == WATCH_PORT && bytes == 4 {
            self.watch_shared_pages();
        } else if port == ATTACK_PORT && bytes == 4 {
            self.name_page(value);
        } else if port == PSC_PORT && bytes == 4 {
            self.manner.name(value);
        } else if !is_host_port(port) {
            if port == firmware_configuration::SELECTOR {
                self.configuration.select(value);
            }
            self.hardware.port_write(port, bytes, value);
        }
        Ok(())
    }

    /// MMIO read and write: SW_EXITINFO1 address, SW_EXITINFO2 length, data in the buffer.
    /// It is made on the processor that asks, whose local APIC is the one that is meant.
    pub fn device_access(&mut self, cpu: &Cpu, request: &GhcbRequest, write: bool) -> GhcbReply {
        let (gpa, length) = (request.info_1, request.info_2);
        let Ok(bytes @ (1 | 2 | 4 | 8)) = u8::try_from(length) else {
            return GhcbReply::malformed(malformed::INVALID_INPUT);
        };
        if !self.is_device(gpa, length) || !gpa.is_multiple_of(length) {
            return GhcbReply::malformed(malformed::INVALID_INPUT);
        }
        let Some(buffer) = request.buffer(length) else {
            return GhcbReply::malformed(malformed::INVALID_SCRATCH);
        };
        let mut word = [0; 8];
        if write {
            self.hardware.read(
                buffer,
                word.get_mut(..usize::from(bytes)).unwrap_or_default(),
            );
            let value = u64::from_le_bytes(word);
            let made = match interrupt_filter::write(&self.hardware, self.cpus, gpa, bytes, value) {
                Written::Done => {
                    self.destinations.note(cpu.apic_id, gpa, value);
                    true
                }
                Written::Nmi { high } => {
                    let targets = self.destinations.of(value, high, cpu.apic_id, self.cpus);
                    self.send_nmi(cpu, targets)
                }
                Written::Refused => false,
            };
            if !made {
                self.counters.event(Event::InterruptRefused);
            }
        } else {
            word = self.hardware.device_read(gpa, bytes).to_le_bytes();
            self.hardware
                .write(buffer, word.get(..usize::from(bytes)).unwrap_or_default());
        }
        GhcbReply::default()
    }

    /// RDMSR and WRMSR: what is not known raises #GP.
    pub fn ghcb_msr_access(&self, cpu: &Cpu, request: &GhcbRequest) -> GhcbReply {
        let write = request.info_1 & 1 != 0;
        if !request.has(&[offset::RCX]) || (write && !request.has(&[offset::RAX, offset::RDX])) {
            return GhcbReply::malformed(malformed::MISSING_INPUT);
        }
        let Some(value) = msr_policy::read(cpu, low(request.rcx)) else {
            return GhcbReply::exception(event::GENERAL_PROTECTION);
        };
        if write {
            return GhcbReply::default();
        }
        let registers = [
            Some((offset::RAX, u64::from(low(value)))),
            Some((offset::RDX, value >> 32)),
            None,
            None,
        ];
        GhcbReply {
            registers,
            ..GhcbReply::default()
        }
    }
}
