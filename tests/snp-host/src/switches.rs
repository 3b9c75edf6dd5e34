// SPDX-License-Identifier: MIT OR Apache-2.0
//! How strict the machine is: the switch word of the launch image.

use bitfield_struct::bitfield;

use crate::recurrence::Recurrence;
use crate::switch_manner::SwitchManner;
use crate::translations::Kicks;

/// Switches of the launch header; all zero is the strict machine.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Switches {
    /// RMP entries are 4 KiB only; otherwise 2 MiB wherever the guest asks for them.
    pub small_pages_only: bool,
    /// RAM is private and not validated at start; otherwise it is hypervisor-owned, as QEMU has it
    /// (IGVM environment information `memory_is_shared`).
    pub ram_starts_private: bool,
    /// An access whose C-bit does not fit converts the page, as KVM does; otherwise it stops the
    /// machine with a report.
    pub implicit_conversion: bool,
    /// Raw CPUID, IN/OUT, MSR and MMIO reach the machine; otherwise they are #VC.
    pub pass_through: bool,
    /// One record per exit.
    pub trace: bool,
    /// The shared view is not filled and checked.
    pub no_pattern: bool,
    /// When other CPUs lose their translations ([`Kicks`]): 0 always, 1 never, 2 when a flush is complete.
    #[bits(2)]
    pub kick_manner: u8,
    /// How the host treats page-state changes ([`snp_model::psc::HostManner::from_bits`]): the
    /// manner in bits 15:8, its count in bits 23:16.
    pub page_state_manner: u16,
    /// When VMPL 0 gets #HV events, counted in entries of lower VMPLs: 0 never, 1 once behind
    /// `doorbell_turns` entries, 2 with that many between any two.
    #[bits(2)]
    pub doorbell_manner: u8,
    /// Which VMPL switches are skipped, `switch_turns` honest ones before each: 0 none, 1 those to
    /// VMPL 0, 2 those from it.
    #[bits(2)]
    pub switch_manner_code: u8,
    #[bits(4)]
    __: u8,
    /// For `doorbell_manner`.
    pub doorbell_turns: u8,
    /// For `switch_manner_code`.
    pub switch_turns: u8,
    /// From when on `page_state_manner` is shown ([`crate::psc_manner::PscManner::new`]).
    pub page_state_from: u16,
}

impl Switches {
    /// When VMPL 0 gets events; `None` when the manner is unknown.
    #[must_use]
    pub const fn doorbell_events(self) -> Option<Recurrence> {
        let turns = self.doorbell_turns();
        match self.doorbell_manner() {
            0 => Some(Recurrence::Never),
            1 => Some(Recurrence::Once { left: turns }),
            2 => Some(Recurrence::every(turns)),
            _ => None,
        }
    }

    /// When other CPUs lose their translations; `None` when the manner is unknown.
    #[must_use]
    pub const fn kicks(self) -> Option<Kicks> {
        match self.kick_manner() {
            0 => Some(Kicks::Always),
            1 => Some(Kicks::Never),
            2 => Some(Kicks::OnFlush),
            _ => None,
        }
    }

    /// Which switches are skipped; `None` when the manner is unknown.
    #[must_use]
    pub const fn switch_manner(self) -> Option<SwitchManner> {
        let when = Recurrence::every(self.switch_turns());
        match self.switch_manner_code() {
            0 => Some(SwitchManner::Honest),
            1 => Some(SwitchManner::Swallow(when)),
            2 => Some(SwitchManner::Spurious(when)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_where_the_runner_writes_them() {
        assert_eq!(Switches::new().with_small_pages_only(true).into_bits(), 1);
        assert_eq!(Switches::new().with_ram_starts_private(true).into_bits(), 2);
        assert_eq!(
            Switches::new().with_implicit_conversion(true).into_bits(),
            4
        );
        assert_eq!(Switches::new().with_pass_through(true).into_bits(), 8);
        assert_eq!(Switches::new().with_trace(true).into_bits(), 16);
        assert_eq!(Switches::new().with_no_pattern(true).into_bits(), 32);
        assert_eq!(Switches::new().with_kick_manner(1).into_bits(), 64);
        assert_eq!(Switches::new().with_page_state_manner(2).into_bits(), 0x200);
        assert_eq!(Switches::new().with_page_state_from(7).into_bits(), 7 << 48);
        let manners = Switches::new()
            .with_doorbell_manner(2)
            .with_doorbell_turns(5)
            .with_switch_manner_code(1)
            .with_switch_turns(7);
        assert_eq!(manners.into_bits(), 0x0705_0600_0000);
        assert_eq!(manners.doorbell_events(), Some(Recurrence::every(5)));
        let swallow = SwitchManner::Swallow(Recurrence::every(7));
        assert_eq!(manners.switch_manner(), Some(swallow));
        let unknown = Switches::new()
            .with_doorbell_manner(3)
            .with_switch_manner_code(3)
            .with_kick_manner(3);
        assert_eq!(unknown.doorbell_events(), None);
        assert_eq!(unknown.switch_manner(), None);
        assert_eq!(unknown.kicks(), None);
    }
}
