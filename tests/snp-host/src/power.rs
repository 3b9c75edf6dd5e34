// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port writes by which a guest turns the machine off or resets it. They end the run here, so that
//! QEMU does not end without a word.

use crate::hardware::Hardware;
use crate::machine::Machine;
use crate::record::{ExitCode, kind};
use crate::vcpu::Cpu;

/// PM1a control of the q35 machine (ICH9, PMBASE 0x600 + 4): SLP_EN turns it off.
const PM1A_CONTROL: u16 = 0x604;
const SLEEP_ENABLE: u32 = 1 << 13;
/// Reset control: the bit that resets.
const RESET_CONTROL: u16 = 0xCF9;
const RESET_CPU: u32 = 1 << 2;
/// The keyboard controller's command port: pulse the reset line.
const KEYBOARD_COMMAND: u16 = 0x64;
const PULSE_RESET: u32 = 0xFE;

/// What a port write does to the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerChange {
    /// It is turned off.
    Off,
    /// It is reset.
    Reset,
}

impl PowerChange {
    /// What writing the low `bytes` of `value` to `port` does, if anything. The words are written
    /// as Linux does: the control register as 16 or 32 bits, the others as a byte.
    #[must_use]
    pub fn of(port: u16, bytes: u8, value: u32) -> Option<Self> {
        match port {
            PM1A_CONTROL if bytes >= 2 && value & SLEEP_ENABLE != 0 => Some(Self::Off),
            RESET_CONTROL if value & RESET_CPU != 0 => Some(Self::Reset),
            KEYBOARD_COMMAND if value & 0xFF == PULSE_RESET => Some(Self::Reset),
            _ => None,
        }
    }
}

impl<H: Hardware> Machine<'_, H> {
    /// Ends the run because the guest wrote to `port`.
    pub(crate) fn power(&self, cpu: &Cpu, change: PowerChange, port: u16) -> ExitCode {
        let vmpl = cpu.current.number();
        match change {
            PowerChange::Off => {
                self.record(kind::POWER_OFF, format_args!("vmpl={vmpl}"));
                ExitCode::Success
            }
            PowerChange::Reset => {
                self.record(kind::RESET, format_args!("vmpl={vmpl} port={port:#x}"));
                ExitCode::GuestFailed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bits_that_act_end_the_machine() {
        let of = PowerChange::of;
        assert_eq!(of(0x604, 2, 1 << 13), Some(PowerChange::Off));
        assert_eq!(of(0x604, 2, 1 << 10), None); // the sleep type alone
        assert_eq!(of(0x604, 1, 1 << 13), None);
        assert_eq!(of(0xCF9, 1, 6), Some(PowerChange::Reset));
        assert_eq!(of(0xCF9, 1, 2), None);
        assert_eq!(of(0x64, 1, 0xFE), Some(PowerChange::Reset));
        assert_eq!(of(0x64, 1, 0xD1), None);
        assert_eq!(of(0x60, 1, 0xFE), None);
    }
}
