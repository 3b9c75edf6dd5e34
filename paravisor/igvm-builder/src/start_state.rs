// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VMSA of the boot vCPU at VMPL0.
//!
//! The image is entered in 32-bit protected mode with paging off: memory is private then, and the
//! C-bit position, which only the firmware-checked CPUID page tells, need not be known when the
//! image is built (AMD64 APM volume 2, 15.36; table B-4 for the layout).

use igvm::snp_defs::{SevFeatures as IgvmFeatures, SevSelector, SevVmsa};
use snp::msr::SevFeatures;
use zerocopy::FromZeros;

/// EFER.SVME, which a VMSA must carry, and EFER.NXE.
const EFER: u64 = 1 << 12 | 1 << 11;
/// CR0: PE, ET and NE. KVM accepts this value and 0x30 in a launched VMSA.
const CR0: u64 = 0x31;
/// CR4: PAE and MCE.
const CR4: u64 = 0x60;
/// The reset value of the PAT register.
const PAT: u64 = 0x0007_0406_0007_0406;

/// A flat 4 GiB segment.
fn flat(selector: u16, attrib: u16) -> SevSelector {
    SevSelector {
        selector,
        attrib,
        limit: u32::MAX,
        base: 0,
    }
}

/// A 64 KiB system segment, as after a processor reset.
fn system(attrib: u16) -> SevSelector {
    SevSelector {
        selector: 0,
        attrib,
        limit: 0xffff,
        base: 0,
    }
}

/// A descriptor table without room for a descriptor. With room, an exception in the first
/// instructions would take its handler from address 0, which is the guest's memory when the host
/// enters a surplus launch VMSA later on.
fn no_table() -> SevSelector {
    SevSelector {
        limit: 0,
        ..system(0)
    }
}

/// The start state: 32-bit code at `entry`, flat segments, everything else at rest.
///
/// Debug registers stay zero and no field outside QEMU's list of accepted ones is set: its loader
/// refuses any other byte.
#[must_use]
pub fn start_vmsa(entry: u32, features: SevFeatures) -> Box<SevVmsa> {
    let data = flat(0x10, 0x0c93);
    let start = SevVmsa {
        cs: flat(0x08, 0x0c9b),
        ds: data,
        es: data,
        ss: data,
        fs: data,
        gs: data,
        gdtr: no_table(),
        idtr: no_table(),
        ldtr: system(0x82),
        tr: system(0x8b),
        efer: EFER,
        cr0: CR0,
        cr4: CR4,
        rflags: 2,
        rip: u64::from(entry),
        pat: PAT,
        xcr0: 1,
        mxcsr: 0x1f80,
        x87_fcw: 0x37f,
        // The crate lacks names for newer bits.
        sev_features: IgvmFeatures::from_bits(features.into_bits()),
        ..SevVmsa::new_zeroed()
    };
    Box::new(start)
}

#[cfg(test)]
mod tests {
    use super::{SevFeatures, start_vmsa};

    #[test]
    fn an_exception_before_there_are_handlers_finds_none() {
        let vmsa = start_vmsa(0x41_0000, SevFeatures::new());
        assert_eq!((vmsa.idtr.limit, vmsa.gdtr.limit), (0, 0));
    }
}
