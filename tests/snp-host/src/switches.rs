// SPDX-License-Identifier: MIT OR Apache-2.0
//! How strict the machine is: the switch word of the launch image.

use bitfield_struct::bitfield;

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
    #[bits(2)]
    __: u8,
    /// How the host treats page-state changes ([`snp_model::psc::HostManner::from_bits`]): the
    /// manner in bits 15:8, its count in bits 23:16.
    pub page_state_manner: u16,
    #[bits(40)]
    __: u64,
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
        assert_eq!(Switches::new().with_page_state_manner(2).into_bits(), 0x200);
    }
}
