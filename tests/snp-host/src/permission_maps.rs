// SPDX-License-Identifier: MIT OR Apache-2.0
//! The I/O and MSR permission maps (APM volume 2, 15.10 and 15.11): which accesses exit.

use crate::msr_policy;

/// MSRs that a VMSA carries, so that a guest may access them without an exit.
const UNINTERCEPTED: [u32; 19] = [
    0x174,
    0x175,
    0x176, // SYSENTER
    0x1D9, // DEBUGCTL
    0x277, // PAT
    0x6A0,
    0x6A2,
    0x6A4,
    0x6A8, // CET
    0xDA0, // XSS
    0xC000_0080,
    0xC000_0081,
    0xC000_0082,
    0xC000_0083,
    0xC000_0084, // EFER, STAR to SFMASK
    0xC000_0100,
    0xC000_0101,
    0xC000_0102,
    0xC000_0103, // FS, GS, kernel GS base, TSC_AUX
];
/// MSRs intercepted in every mode: the host keeps the GHCB MSR and SEV_STATUS per vCPU, and the flag of the boot CPU is
/// that of another processor.
const ALWAYS_INTERCEPTED: [u32; 3] = [
    snp::msr::GHCB,
    snp::msr::SEV_STATUS,
    msr_policy::APIC_BASE_MSR,
];

/// First MSRs of the three vectors the map has, 2 bits per MSR.
const MSR_VECTORS: [u32; 3] = [0, 0xC000_0000, 0xC001_0000];
const MSRS_PER_VECTOR: u32 = 0x2000;

/// Both maps, page aligned: the processor takes their physical addresses.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct PermissionMaps {
    io: [u8; 0x3000],
    msr: [u8; 0x2000],
}

impl PermissionMaps {
    /// Maps that intercept everything, or with `pass_through` only what the host must emulate.
    #[must_use]
    pub fn new(pass_through: bool) -> Self {
        let fill = if pass_through { 0 } else { 0xFF };
        let mut maps = Self {
            io: [fill; 0x3000],
            msr: [fill; 0x2000],
        };
        for msr in UNINTERCEPTED {
            maps.set(msr, false);
        }
        for msr in ALWAYS_INTERCEPTED {
            maps.set(msr, true);
        }
        maps
    }

    fn set(&mut self, msr: u32, intercepted: bool) {
        let Some((vector, first)) = (0_u32..).zip(MSR_VECTORS).find(|(_, first)| {
            msr.checked_sub(*first)
                .is_some_and(|offset| offset < MSRS_PER_VECTOR)
        }) else {
            return;
        };
        let bit = 2 * (vector * MSRS_PER_VECTOR + msr - first);
        if let Some(byte) = self.msr.get_mut(bit as usize / 8) {
            let mask = 3 << (bit % 8);
            *byte = if intercepted {
                *byte | mask
            } else {
                *byte & !mask
            };
        }
    }

    /// Physical address of the I/O map; the host's memory is identity mapped. The processor reads it by
    /// that number, so the compiler has to take the bytes for used.
    #[must_use]
    pub fn io_address(&self) -> u64 {
        self.io.as_ptr().expose_provenance() as u64
    }

    /// Physical address of the MSR map.
    #[must_use]
    pub fn msr_address(&self) -> u64 {
        self.msr.as_ptr().expose_provenance() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bits() {
        let maps = PermissionMaps::new(true);
        // 0xC001_0130 and 0xC001_0131: third vector at 0x1000, byte 0x130 / 4, low nibble.
        assert_eq!(maps.msr[0x1000 + 0x4C], 0x0F);
        assert_eq!(maps.msr[0x1B / 4], 0xC0); // the local APIC's base
        let strict = PermissionMaps::new(false);
        assert_eq!(strict.msr[0x800 + 0x20], 0x00); // EFER, STAR, LSTAR, CSTAR
        assert_eq!(strict.msr[0x800 + 0x21], 0xFC); // SFMASK
        assert_eq!(strict.msr[0], 0xFF);
        assert!(strict.io.iter().all(|byte| *byte == 0xFF));
    }
}
