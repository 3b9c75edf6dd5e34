// SPDX-License-Identifier: MIT OR Apache-2.0
//! MSRs that a guest reaches by its GHCB: what KVM answers an SNP guest without hardware behind it.

use crate::vcpu::Cpu;

/// Address of the local APIC, enabled; the boot CPU's flag, which on QEMU's machine another processor has.
pub(crate) const APIC_BASE_MSR: u32 = 0x1B;
const APIC_BASE: u64 = 0xFEE0_0000 | (1 << 11);
const BOOT_CPU: u64 = 1 << 8;
/// Microcode revision that KVM reports.
const MICROCODE_MSR: u32 = 0x8B;
const MICROCODE: u64 = 0x0100_0065;

/// Type of all memory that no range register names: write-back, and the registers are in use. A firmware or VMM leaves it
/// so; where they are not in use, a Linux guest maps what is not its RAM uncached.
const MEMORY_TYPE_MSR: u32 = 0x2FF;
const WRITE_BACK: u64 = (1 << 11) | 6;

/// MSRs that read as zero and ignore writes: features that the machine does not have, and settings
/// that make no difference here.
const fn is_ignored(msr: u32) -> bool {
    matches!(msr,
        0x17 | 0x2A | 0x3B | 0x48 | 0x49 | 0x79 | 0xFE | 0x140
        // Machine check: no banks.
        | 0x179..=0x17B | 0x400..=0x47F
        | 0x1A0 | 0x1D9 | 0x1DB..=0x1DE
        // Ranges of memory types: none.
        | 0x200..=0x20F | 0x250 | 0x258 | 0x259 | 0x268..=0x26F | MEMORY_TYPE_MSR
        // x2APIC, which CPUID does not show.
        | 0x800..=0x8FF
        | 0xDA0
        // Counters, AMD configuration, P-states, OS-visible workarounds.
        | 0xC000_0104 | 0xC000_0108 | 0xC000_0300..=0xC000_0303
        | 0xC001_0000..=0xC001_0007 | 0xC001_0010 | 0xC001_0015 | 0xC001_001F | 0xC001_0020
        | 0xC001_0055 | 0xC001_0058 | 0xC001_0061..=0xC001_006B | 0xC001_0074 | 0xC001_0114
        | 0xC001_0140 | 0xC001_0141 | 0xC001_0200..=0xC001_020B
        | 0xC001_1020..=0xC001_102B)
}

/// Value that `msr` reads as on `cpu`; `None` for one that raises #GP.
#[must_use]
pub fn read(cpu: &Cpu, msr: u32) -> Option<u64> {
    match msr {
        APIC_BASE_MSR if cpu.apic_id == 0 => Some(APIC_BASE | BOOT_CPU),
        APIC_BASE_MSR => Some(APIC_BASE),
        MICROCODE_MSR => Some(MICROCODE),
        MEMORY_TYPE_MSR => Some(WRITE_BACK),
        _ => is_ignored(msr).then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permission_maps::PermissionMaps;

    #[test]
    fn the_apic_base_names_the_boot_cpu() {
        let maps = PermissionMaps::new(false);
        let cpu = |apic_id| Cpu::new(apic_id, &maps, false);
        assert_eq!(read(&cpu(0), 0x1B), Some(0xFEE0_0900));
        assert_eq!(read(&cpu(1), 0x1B), Some(0xFEE0_0800));
        assert_eq!(read(&cpu(0), 0x179), Some(0));
        assert_eq!(read(&cpu(0), 0x2FF), Some(0x806));
        assert_eq!(read(&cpu(0), snp::msr::SVSM_CAA), None);
    }
}
