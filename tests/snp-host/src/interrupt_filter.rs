// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes to interrupt controllers that would end or confuse this host.
//!
//! The guest has the machine's own local APICs and I/O APIC. INIT would reset a processor under
//! this host and an SMI run the firmware; the guest starts its CPUs by AP creation and needs neither.
//! An NMI would look like one of this host's kicks: the command of a local APIC is carried out by this host
//! ([`crate::nmi`]), an entry of the I/O APIC that asks for NMI is refused, as no device of the machine's has one to send. What
//! else could send one is not looked at, since a guest would have to mean it, and is taken for a kick, which changes nothing: a
//! device's message interrupt, and the pin LINT1, by which QEMU's monitor raises one.
//!
//! QEMU takes the shorthands "self" and "all but self" by the identifier that a local APIC has now and finds the
//! APIC by the one that it began with. Where the two differ, on the processor in the place of CPU 0
//! (`bare_metal/replacement.rs`), an interrupt to itself would be lost. So such commands are sent by identifier.

use crate::hardware::Devices;

/// The local APIC's page: identifier, and interrupt command.
const LOCAL_APIC: u64 = 0xFEE0_0000;
const IDENTIFIER: u64 = LOCAL_APIC + 0x20;
const COMMAND: u64 = LOCAL_APIC + 0x300;
const COMMAND_HIGH: u64 = LOCAL_APIC + 0x310;
/// Where an identifier is in the identifier's register, and in the command's upper half.
const IDENTIFIER_SHIFT: u32 = 24;
/// Where the registers of a local APIC end, and how far they are apart.
const LOCAL_APIC_END: u64 = LOCAL_APIC + 0x400;
const REGISTER_BYTES: u64 = 16;
/// Logical destination instead of an identifier, in a command.
const LOGICAL: u64 = 1 << 11;
/// Destination shorthand `[19:18]` of a command.
const SHORTHAND_SHIFT: u32 = 18;
const SHORTHAND: u64 = 3 << SHORTHAND_SHIFT;
const TO_SELF: u64 = 1;
const TO_ALL_BUT_SELF: u64 = 3;
/// The I/O APIC's two registers, and the first of its redirection entries.
const IO_APIC_INDEX: u64 = 0xFEC0_0000;
const IO_APIC_DATA: u64 = 0xFEC0_0010;
const FIRST_ENTRY: u64 = 0x10;

/// Delivery mode `[10:8]` of a command or an entry.
const fn delivery_mode(value: u64) -> u64 {
    (value >> 8) & 7
}
const NMI: u64 = 4;

/// Whether the delivery mode of `value` is fixed or lowest priority, or ExtINT where that is
/// no danger.
const fn is_ordinary(value: u64) -> bool {
    matches!(delivery_mode(value), 0 | 1 | 7)
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is made.
    Done,
    /// It is not allowed.
    Refused,
    /// It is a command to send an NMI, for this host to carry out.
    Nmi {
        /// The upper half of the command.
        high: u64,
    },
}

/// Makes the guest's write of `bytes` bytes to the device memory at `gpa`, on the processor that asks for it.
pub fn write(devices: &impl Devices, cpus: u32, gpa: u64, bytes: u8, value: u64) -> Written {
    if !allows(devices, gpa, bytes, value) {
        return Written::Refused;
    }
    if gpa == COMMAND && delivery_mode(value) == NMI {
        let high = devices.device_read(COMMAND_HIGH, 4);
        return Written::Nmi { high };
    }
    let own = || devices.device_read(IDENTIFIER, 4) >> IDENTIFIER_SHIFT;
    match (gpa, (value & SHORTHAND) >> SHORTHAND_SHIFT) {
        (COMMAND, TO_SELF) => send(devices, own(), value),
        (COMMAND, TO_ALL_BUT_SELF) => {
            let own = own();
            for number in (0..u64::from(cpus)).filter(|number| *number != own) {
                send(devices, number, value);
            }
        }
        _ => devices.device_write(gpa, bytes, value),
    }
    Written::Done
}

/// Sends a command to one processor, whatever its destination is. The upper half is as before afterwards.
fn send(devices: &impl Devices, number: u64, command: u64) {
    let high = devices.device_read(COMMAND_HIGH, 4);
    devices.device_write(COMMAND_HIGH, 4, number << IDENTIFIER_SHIFT);
    devices.device_write(COMMAND, 4, command & !SHORTHAND & !LOGICAL);
    devices.device_write(COMMAND_HIGH, 4, high);
}

/// Whether the guest may write `value` to the device memory at `gpa`. A register of the local APIC is written as a whole, as KVM
/// has it (`apic_mmio_write`): QEMU's takes any four bytes of its sixteen for it.
fn allows(devices: &impl Devices, gpa: u64, bytes: u8, value: u64) -> bool {
    match gpa {
        IDENTIFIER => false,
        COMMAND => bytes == 4 && (is_ordinary(value) || delivery_mode(value) == NMI),
        LOCAL_APIC..LOCAL_APIC_END => bytes == 4 && gpa.is_multiple_of(REGISTER_BYTES),
        IO_APIC_DATA => {
            let index = devices.device_read(IO_APIC_INDEX, 4) & 0xFF;
            index < FIRST_ENTRY || index % 2 == 1 || is_ordinary(value)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;
    use std::vec::Vec;

    use super::*;
    use crate::test_hardware::TestHardware;

    /// A local APIC with this identifier, and what was written to it.
    struct LocalApic(u64, RefCell<Vec<(u64, u64)>>);

    impl Devices for LocalApic {
        fn port_read(&self, _port: u16, _bytes: u8) -> u32 {
            0
        }

        fn port_write(&self, _port: u16, _bytes: u8, _value: u32) {}

        fn device_read(&self, address: u64, _bytes: u8) -> u64 {
            match address {
                IDENTIFIER => self.0 << 24,
                COMMAND_HIGH => 0x700_0000,
                _ => 0,
            }
        }

        fn device_write(&self, address: u64, _bytes: u8, value: u64) {
            self.1.borrow_mut().push((address, value));
        }
    }

    #[test]
    fn shorthands_are_sent_by_identifier() {
        let written = |own: u64, command: u64| {
            let apic = LocalApic(own, RefCell::default());
            assert_eq!(write(&apic, 3, COMMAND, 4, command), Written::Done);
            apic.1.into_inner()
        };
        let sent = |number: u64, command: u64| {
            let high = |value| (COMMAND_HIGH, value);
            [high(number << 24), (COMMAND, command), high(0x700_0000)]
        };
        assert_eq!(written(0, 0x4_40F6), sent(0, 0x40F6));
        assert_eq!(written(2, 0x4_08F6), sent(2, 0xF6));
        let others = [sent(0, 0xFC), sent(2, 0xFC)].concat();
        assert_eq!(written(1, 0xC_08FC), others);
        // No shorthand, and all with self, are as they come.
        for command in [0x08FC, 0x8_00FC] {
            assert_eq!(written(0, command), [(COMMAND, command)]);
        }
    }

    #[test]
    fn only_ordinary_interrupts_are_sent() {
        let devices = TestHardware::default();
        for (mode, allowed) in [
            (0, true),
            (1, true),
            (2, false),
            (4, false),
            (5, false),
            (6, false),
            (7, true),
        ] {
            let command = (mode << 8) | 0x30;
            // An NMI is allowed, and not sent.
            assert_eq!(allows(&devices, COMMAND, 4, command), allowed || mode == 4);
            devices.input.set(0x12); // the low half of an entry
            assert_eq!(allows(&devices, IO_APIC_DATA, 4, mode << 8), allowed);
            devices.input.set(0x13); // its high half: the destination
            assert!(allows(&devices, IO_APIC_DATA, 4, mode << 8));
        }
        assert!(allows(&devices, COMMAND + 0x10, 4, u64::MAX));
        assert!(!allows(&devices, IDENTIFIER, 4, 0));
    }

    #[test]
    fn an_nmi_is_left_to_the_host_with_its_destination() {
        for command in [0x400, 0x4400, 0xC00, 0x4_0400, 0x8_0400, 0xC_0400] {
            let apic = LocalApic(1, RefCell::default());
            let high = 0x700_0000;
            let written = write(&apic, 3, COMMAND, 4, command);
            assert_eq!(written, Written::Nmi { high }, "{command:#x}");
            assert_eq!(apic.1.into_inner(), []);
        }
    }

    /// QEMU's local APIC would take each of them for a command.
    #[test]
    fn no_command_slips_by_in_a_part_of_its_register() {
        let devices = TestHardware::default();
        for (gpa, bytes) in [
            (COMMAND, 8),
            (COMMAND, 2),
            (COMMAND + 4, 4),
            (COMMAND + 8, 8),
            (COMMAND + 12, 4),
        ] {
            let written = write(&devices, 3, gpa, bytes, 0x4500_0000_4500);
            assert_eq!(written, Written::Refused, "{gpa:#x}");
        }
        assert_eq!(devices.input.get(), 0);
    }
}
