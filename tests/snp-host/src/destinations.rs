// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which CPUs an interrupt command is for (APM volume 2, 16.5 and 16.6.1).
//!
//! The machine's own APICs decide that for the commands that they send. For those that this host carries out itself it
//! keeps what they are told of logical destinations.

use crate::launch::CPU_SLOTS;

/// Registers of the local APIC: logical destination, and its format.
const LOGICAL_DESTINATION: u64 = 0xFEE0_00D0;
const FORMAT: u64 = 0xFEE0_00E0;
/// Where identifier, logical identifier and destination are in their registers.
const IDENTIFIER_SHIFT: u32 = 24;
const FORMAT_SHIFT: u32 = 28;
/// Logical destination instead of an identifier, in a command.
const LOGICAL: u64 = 1 << 11;
/// Destination shorthand `[19:18]` of a command.
const SHORTHAND_SHIFT: u32 = 18;
/// A destination that is everybody's.
const EVERYBODY: u8 = 0xFF;
/// Format of logical identifiers: a bit for each CPU; otherwise a cluster's number and four bits.
const FLAT: u8 = 0xF;

/// What the guest's local APICs were told of logical destinations.
#[derive(Clone, Copy, Debug)]
struct Logical {
    identifier: u8,
    format: u8,
}

impl Logical {
    /// Whether `destination` names this CPU.
    const fn answers(self, destination: u8) -> bool {
        let Self { identifier, format } = self;
        destination == EVERYBODY
            || if format == FLAT {
                identifier & destination != 0
            } else {
                identifier >> 4 == destination >> 4 && identifier & destination & 0xF != 0
            }
    }
}

/// By CPU.
#[derive(Debug)]
pub struct Destinations([Logical; CPU_SLOTS]);

impl Default for Destinations {
    /// After reset: a flat format, and nobody has a logical identifier.
    fn default() -> Self {
        let (identifier, format) = (0, FLAT);
        Self([Logical { identifier, format }; CPU_SLOTS])
    }
}

impl Destinations {
    /// Notes what CPU `cpu` writes to `gpa`, if that is about destinations.
    pub fn note(&mut self, cpu: u32, gpa: u64, value: u64) {
        let slot = usize::try_from(cpu)
            .ok()
            .and_then(|cpu| self.0.get_mut(cpu));
        match (gpa, slot) {
            (LOGICAL_DESTINATION, Some(slot)) => slot.identifier = bits(value, IDENTIFIER_SHIFT),
            (FORMAT, Some(slot)) => slot.format = bits(value, FORMAT_SHIFT) & 0xF,
            _ => {}
        }
    }

    /// Those of `cpus` CPUs that a command of CPU `own` is for; `high` is its upper half.
    pub fn of(
        &self,
        command: u64,
        high: u64,
        own: u32,
        cpus: u32,
    ) -> impl Iterator<Item = u32> + use<> {
        let destination = bits(high, IDENTIFIER_SHIFT);
        let shorthand = (command >> SHORTHAND_SHIFT) & 3;
        let names = move |cpu: u32, logical: Logical| match shorthand {
            0 if command & LOGICAL != 0 => logical.answers(destination),
            0 => destination == EVERYBODY || u32::from(destination) == cpu,
            1 => cpu == own,
            2 => true,
            _ => cpu != own,
        };
        // A copy: what the command does needs the machine.
        (0..cpus)
            .zip(self.0)
            .filter_map(move |(cpu, logical)| names(cpu, logical).then_some(cpu))
    }
}

/// The eight bits of a register from `shift` on.
const fn bits(value: u64, shift: u32) -> u8 {
    (value >> shift).to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn of(destinations: &Destinations, command: u64, destination: u64) -> Vec<u32> {
        destinations.of(command, destination << 24, 1, 4).collect()
    }

    #[test]
    fn identifiers_and_shorthands() {
        let destinations = Destinations::default();
        assert_eq!(of(&destinations, 0x400, 2), [2]);
        assert_eq!(of(&destinations, 0x400, 9), []);
        assert_eq!(of(&destinations, 0x400, 0xFF), [0, 1, 2, 3]);
        // Self, all, all but self: the destination means nothing.
        assert_eq!(of(&destinations, 0x4_0400, 2), [1]);
        assert_eq!(of(&destinations, 0x8_0400, 2), [0, 1, 2, 3]);
        assert_eq!(of(&destinations, 0xC_0400, 2), [0, 2, 3]);
    }

    #[test]
    fn logical_destinations_are_what_each_apic_was_told() {
        let mut destinations = Destinations::default();
        assert_eq!(of(&destinations, 0xC00, 1), [], "nobody has one yet");
        for cpu in 0..4 {
            destinations.note(cpu, LOGICAL_DESTINATION, 1 << (24 + cpu));
        }
        assert_eq!(of(&destinations, 0xC00, 0b1010), [1, 3]);
        assert_eq!(of(&destinations, 0xC00, 0xFF), [0, 1, 2, 3]);
        // Two clusters of two.
        for cpu in 0..4 {
            destinations.note(cpu, FORMAT, 0);
            let logical = ((cpu / 2) << 4) | (1 << (cpu % 2));
            destinations.note(cpu, LOGICAL_DESTINATION, u64::from(logical) << 24);
        }
        assert_eq!(of(&destinations, 0xC00, 0x13), [2, 3]);
        assert_eq!(of(&destinations, 0xC00, 0x02), [1]);
    }
}
