// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes to interrupt controllers that would end or confuse this host.
//!
//! The guest has the machine's own local APICs and I/O APIC. INIT would reset a processor under
//! this host, an SMI run the firmware, an NMI look like one of its kicks; the guest starts its CPUs
//! by AP creation and needs none of them. A message interrupt of a device is not looked at: the
//! guest would have to mean it.

use crate::hardware::Devices;

/// The local APIC's page: identifier, and interrupt command.
const LOCAL_APIC: u64 = 0xFEE0_0000;
const IDENTIFIER: u64 = LOCAL_APIC + 0x20;
const COMMAND: u64 = LOCAL_APIC + 0x300;
/// The I/O APIC's two registers, and the first of its redirection entries.
const IO_APIC_INDEX: u64 = 0xFEC0_0000;
const IO_APIC_DATA: u64 = 0xFEC0_0010;
const FIRST_ENTRY: u64 = 0x10;

/// Whether delivery mode `[10:8]` of `value` is fixed or lowest priority, or ExtINT where that is
/// no danger.
const fn is_ordinary(value: u64) -> bool {
    matches!((value >> 8) & 7, 0 | 1 | 7)
}

/// Whether the guest may write `value` to the device memory at `gpa`.
pub fn allows(devices: &impl Devices, gpa: u64, value: u64) -> bool {
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
    use super::*;
    use crate::test_hardware::TestHardware;

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
