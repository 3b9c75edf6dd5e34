// SPDX-License-Identifier: MIT OR Apache-2.0
//! The register state in which the guest's boot vCPU starts.
//!
//! 64-bit direct start: paging on with the start tables, flat segments, interrupts off, RSI = the
//! hand-over page or the zero page, RSP = 0. Firmware starts in real mode, as after a reset. A kernel also gets the descriptor table that the Linux
//! boot protocol ("64-bit boot protocol") demands. Source: APM volume 2, table B-4 and 15.36.8 (VMPLs).

use core::mem::offset_of;

use snp::address::Vmpl;
use snp::msr::SevFeatures;
use snp::vmsa::{EFER_LMA, EFER_LME, EFER_NXE, EFER_SVME, PAT_RESET, Vmsa, VmsaSegment};
use zerocopy::FromZeros;

use crate::boot_block::BootBlock;
use crate::layout::{
    HANDOVER_PAGE, LARGE_PAGE_BYTES, PAGE_BYTES, RESET_VECTOR, START_GDT, START_GDT_BYTES,
    START_PAGE_TABLES,
};

/// CR0: PG, WP, NE, ET, PE.
const CR0: u64 = 0x8001_0031;
/// CR4: PAE, OSFXSR, OSXMMEXCPT.
const CR4: u64 = 0x620;
/// CR0 after a reset: CD, NW, ET.
const CR0_RESET: u64 = 0x6000_0010;
/// DR6 and DR7 at reset.
pub(crate) const DR6: u64 = 0xffff_0ff0;
pub(crate) const DR7: u64 = 0x400;
/// MXCSR, x87 tag word and control word at reset.
pub(crate) const MXCSR: u32 = 0x1f80;
pub(crate) const X87_TAG_WORD: u16 = 0x5555;
pub(crate) const X87_CONTROL_WORD: u16 = 0x40;

/// Features of the guest's VMSA: ours without restricted injection and debug swap, which would take
/// interrupts and debug registers away from a guest that does not know them. What keeps the host's
/// branch predictions, samples and sibling threads away protects the guest as it does us; it needs
/// nothing of the guest, but a kernel may refuse a bit that is newer than it is (IBPB on entry).
#[must_use]
pub const fn guest_features(own: SevFeatures) -> SevFeatures {
    own.with_restricted_injection(false).with_debug_swap(false)
}

/// What differs between the kinds of payload.
struct Start {
    /// Selector of CS.
    code: u16,
    /// Selector of the data segments.
    data: u16,
    /// Base and limit of the descriptor table.
    gdt: (u64, u32),
    /// RSI.
    argument: u64,
}

impl Start {
    fn of(block: &BootBlock) -> Self {
        if block.is_linux() {
            // The table is a measured page of the payload.
            let limit = u32::try_from(START_GDT_BYTES - 1).unwrap_or(0);
            Self {
                code: 0x10,
                data: 0x18,
                gdt: (START_GDT, limit),
                argument: block.boot_params,
            }
        } else {
            Self {
                code: 0x08,
                data: 0x10,
                gdt: (0, 0xffff),
                argument: HANDOVER_PAGE,
            }
        }
    }
}

/// The VMSA of the boot vCPU: of firmware as after a reset, else [`direct_vmsa`]. EFER.SVME is clear
/// until the vCPU may run.
#[must_use]
pub fn start_vmsa(block: &BootBlock, own: SevFeatures, c_bit: u64) -> Vmsa {
    if block.is_firmware() {
        reset_vmsa(own)
    } else {
        direct_vmsa(block, own, c_bit)
    }
}

/// A vCPU after a reset (APM volume 2, table 14-1), at the reset vector below 4 GiB. Paging is off, so
/// all memory is private.
fn reset_vmsa(own: SevFeatures) -> Vmsa {
    let segment = |attributes| VmsaSegment {
        attributes,
        limit: 0xffff,
        ..VmsaSegment::default()
    };
    let data = segment(VmsaSegment::REAL_MODE_DATA);
    let mut vmsa = common_vmsa(own);
    vmsa.cs = segment(VmsaSegment::REAL_MODE_CODE);
    (vmsa.cs.selector, vmsa.cs.base) = (0xf000, RESET_VECTOR & !0xffff);
    vmsa.ds = data;
    vmsa.es = data;
    vmsa.fs = data;
    vmsa.gs = data;
    vmsa.ss = data;
    vmsa.gdtr = segment(0);
    vmsa.cr0 = CR0_RESET;
    vmsa.rip = RESET_VECTOR & 0xffff;
    vmsa
}

/// What does not depend on where a vCPU starts.
fn common_vmsa(own: SevFeatures) -> Vmsa {
    let table = |attributes| VmsaSegment {
        attributes,
        limit: 0xffff,
        ..VmsaSegment::default()
    };
    let mut vmsa = Vmsa::new_zeroed();
    vmsa.idtr = table(0);
    vmsa.ldtr = table(VmsaSegment::LDT);
    vmsa.tr = table(VmsaSegment::BUSY_TSS);
    vmsa.vmpl = Vmpl::Vmpl2.number();
    vmsa.dr6 = DR6;
    vmsa.dr7 = DR7;
    vmsa.rflags = 2;
    vmsa.g_pat = PAT_RESET;
    vmsa.xcr0 = 1;
    vmsa.mxcsr = MXCSR;
    vmsa.x87_tag_word = X87_TAG_WORD;
    vmsa.x87_control_word = X87_CONTROL_WORD;
    vmsa.sev_features = guest_features(own).into_bits();
    vmsa
}

/// A vCPU that starts at the payload's entry point in 64-bit mode.
fn direct_vmsa(block: &BootBlock, own: SevFeatures, c_bit: u64) -> Vmsa {
    let start = Start::of(block);
    let data = VmsaSegment::flat(start.data, VmsaSegment::DATA);
    let mut vmsa = common_vmsa(own);
    vmsa.cs = VmsaSegment::flat(start.code, VmsaSegment::CODE_64);
    vmsa.ds = data;
    vmsa.es = data;
    vmsa.fs = data;
    vmsa.gs = data;
    vmsa.ss = data;
    (vmsa.gdtr.base, vmsa.gdtr.limit) = start.gdt;
    vmsa.efer = EFER_NXE | EFER_LMA | EFER_LME;
    vmsa.cr0 = CR0;
    vmsa.cr3 = START_PAGE_TABLES | c_bit;
    vmsa.cr4 = CR4;
    vmsa.rip = block.payload_entry;
    vmsa.rsi = start.argument;
    vmsa
}

/// The first of two adjoining pages that is not 2 MiB aligned, as a VMSA has to be (erratum, KVM
/// refuses the other).
#[must_use]
pub const fn usable_page(first: u64) -> u64 {
    if first.is_multiple_of(LARGE_PAGE_BYTES) {
        first + PAGE_BYTES
    } else {
        first
    }
}

/// Whether a VMSA that a guest built may run: at its own level, with the features of its creator,
/// and marked as runnable.
#[must_use]
pub const fn acceptable(vmsa: &Vmsa, caller_features: u64) -> bool {
    vmsa.vmpl == Vmpl::Vmpl2.number()
        && vmsa.efer & EFER_SVME != 0
        && vmsa.sev_features == caller_features
}

/// What is written over in a VMSA that a guest built, as offsets and words: the host cannot run it before VMPL0 lets it, and it
/// starts with a TLB that knows nothing older, no event and no interrupt (APM volume 2, table B-4). `efer` is its own.
#[must_use]
pub const fn sealed_fields(efer: u64) -> [(u64, u64); 5] {
    [
        (offset_of!(Vmsa, efer) as u64, efer & !EFER_SVME),
        (offset_of!(Vmsa, virtual_interrupt_control) as u64, 0),
        (offset_of!(Vmsa, tlb_id) as u64, 0),
        (offset_of!(Vmsa, pcpu_id) as u64, 0),
        (offset_of!(Vmsa, event_injection) as u64, 0),
    ]
}

#[cfg(test)]
mod tests {
    use crate::boot_block::PAYLOAD_LINUX;
    use crate::boot_plan::tests::{boot_block, firmware_boot_block};
    use crate::layout::ZERO_PAGE;

    use super::{EFER_SVME, SevFeatures, acceptable, start_vmsa, usable_page};

    const OWN: SevFeatures = SevFeatures::from_bits(0x29);

    #[test]
    fn the_guest_loses_two_features_and_may_not_run_yet() {
        let vmsa = start_vmsa(&boot_block(), OWN, 1 << 51);
        assert_eq!(vmsa.sev_features, 1);
        assert_eq!(vmsa.efer & EFER_SVME, 0);
        assert_eq!((vmsa.vmpl, vmsa.cpl), (2, 0));
        assert_eq!(vmsa.rip, 0x100_0000);
        assert_eq!(vmsa.cr3, 0x0008_0000_0080_4000);
        assert_eq!((vmsa.rsi, vmsa.rsp), (0x80_0000, 0));
        assert_eq!((vmsa.cs.selector, vmsa.ds.selector), (0x08, 0x10));
    }

    #[test]
    fn the_guest_has_our_protection_from_the_host() {
        for bit in [1 << 6, 1 << 7, 1 << 15, 1 << 21] {
            let own = SevFeatures::from_bits(OWN.into_bits() | bit);
            let vmsa = start_vmsa(&boot_block(), own, 0);
            assert_eq!(vmsa.sev_features, 1 | bit);
        }
    }

    #[test]
    fn a_kernel_starts_as_its_boot_protocol_says() {
        let mut block = boot_block();
        block.payload_kind = PAYLOAD_LINUX;
        block.boot_params = ZERO_PAGE;
        block.payload_entry = 0x100_0200;
        let vmsa = start_vmsa(&block, OWN, 1 << 51);
        assert_eq!((vmsa.rip, vmsa.rsi), (0x100_0200, 0x90_0000));
        let selectors = [vmsa.cs, vmsa.ds, vmsa.es, vmsa.ss].map(|one| one.selector);
        assert_eq!(selectors, [0x10, 0x18, 0x18, 0x18]);
        assert_eq!((vmsa.gdtr.base, vmsa.gdtr.limit), (0x90_2000, 0x1f));
        assert_eq!(vmsa.rflags, 2, "interrupts off");
    }

    #[test]
    fn firmware_starts_as_after_a_reset() {
        let vmsa = start_vmsa(&firmware_boot_block(), OWN, 1 << 51);
        assert_eq!((vmsa.cs.selector, vmsa.cs.base), (0xf000, 0xffff_0000));
        assert_eq!((vmsa.rip, vmsa.rsi, vmsa.cr3), (0xfff0, 0, 0));
        assert_eq!((vmsa.cr0, vmsa.efer), (0x6000_0010, 0));
        let attributes = [vmsa.cs, vmsa.ss, vmsa.ldtr, vmsa.tr].map(|one| one.attributes);
        assert_eq!(attributes, [0x9b, 0x93, 0x82, 0x8b]);
        assert_eq!((vmsa.vmpl, vmsa.sev_features), (2, 1));
    }

    #[test]
    fn a_vmsa_of_a_guest_is_checked() {
        let mut vmsa = start_vmsa(&boot_block(), OWN, 0);
        assert!(!acceptable(&vmsa, 1), "not runnable");
        vmsa.efer |= EFER_SVME;
        assert!(acceptable(&vmsa, 1));
        assert!(!acceptable(&vmsa, 9), "other features");
        vmsa.vmpl = 0;
        assert!(!acceptable(&vmsa, 1), "VMPL0");
    }

    #[test]
    fn a_vmsa_page_is_never_large_aligned() {
        assert_eq!(usable_page(0x60_0000), 0x60_1000);
        assert_eq!(usable_page(0x61_0000), 0x61_0000);
    }
}
