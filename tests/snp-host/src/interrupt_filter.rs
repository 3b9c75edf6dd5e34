// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes to interrupt controllers that would end or confuse this host.
//!
//! The guest has the machine's own local APICs and I/O APIC. INIT would reset a processor under
//! this host, an SMI run the firmware, an NMI look like one of its kicks; the guest starts its CPUs
//! by AP creation and needs none of them. A message interrupt of a device is not looked at: the
//! guest would have to mean it.
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

/// Whether delivery mode `[10:8]` of `value` is fixed or lowest priority, or ExtINT where that is
/// no danger.
const fn is_ordinary(value: u64) -> bool {
    matches!((value >> 8) & 7, 0 | 1 | 7)
}

/// Makes the guest's write of `bytes` bytes to the device memory at `gpa`, on the processor that asks for it. Returns whether it
/// was allowed.
pub fn write(devices: &impl Devices, cpus: u32, gpa: u64, bytes: u8, value: u64) -> bool {
    if !allows(devices, gpa, value) {
        return false;
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
    true
}

/// Sends a command to one processor, whatever its destination is. The upper half is as before afterwards.
fn send(devices: &impl Devices, number: u64, command: u64) {
    let high = devices.device_read(COMMAND_HIGH, 4);
    devices.device_write(COMMAND_HIGH, 4, number << IDENTIFIER_SHIFT);
    devices.device_write(COMMAND, 4, command & !SHORTHAND & !LOGICAL);
    devices.device_write(COMMAND_HIGH, 4, high);
}

/// Whether the guest may write `value` to the device memory at `gpa`.
fn allows(devices: &impl Devices, gpa: u64, value: u64) -> bool {
    match gpa {
        IDENTIFIER => false,
        COMMAND => is_ordinary(value),
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
            assert!(write(&apic, 3, COMMAND, 4, command));
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
            assert_eq!(allows(&devices, COMMAND, (mode << 8) | 0x30), allowed);
            devices.input.set(0x12); // the low half of an entry
            assert_eq!(allows(&devices, IO_APIC_DATA, mode << 8), allowed);
            devices.input.set(0x13); // its high half: the destination
            assert!(allows(&devices, IO_APIC_DATA, mode << 8));
        }
        assert!(allows(&devices, COMMAND + 0x10, u64::MAX));
        assert!(!allows(&devices, IDENTIFIER, 0));
    }
}
