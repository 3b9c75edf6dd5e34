// SPDX-License-Identifier: MIT OR Apache-2.0
//! What CPUID tells the guest: the processor's answers without what this host uses for itself (SVM,
//! 5-level paging), and with SEV-SNP.

use snp::cpuid::{CpuidPage, LEAF_ENCRYPTION};

use crate::hardware::Processor;
use crate::memory_plan::C_BIT;

/// Leaf 1 ECX: OSXSAVE, which mirrors the guest's CR4.
const OSXSAVE: u32 = 1 << 27;
/// Leaf 7 ECX: LA57.
const LA57: u32 = 1 << 16;
/// Leaf 0x8000_0001 ECX: SVM.
const SVM: u32 = 1 << 2;
/// Leaf 0x8000_0008 EBX: INVLPGB; EDX `[15:0]` is its largest page count.
const INVLPGB: u32 = 1 << 3;
const INVLPGB_COUNT: u32 = 7;
/// Leaf 0x8000_001F EAX: SEV, SEV-ES, SEV-SNP, VMPL, RMPQUERY.
const ENCRYPTION_FEATURES: u32 = (1 << 1) | (1 << 3) | (1 << 4) | (1 << 5) | (1 << 6);
/// The same leaf's EBX: C-bit, 1 bit of address reduction, 4 VMPLs, no software coherency needed.
const ENCRYPTION_LAYOUT: u32 = C_BIT | (1 << 6) | (4 << 12) | (1 << 31);
/// State components of leaf 0xD that a CPUID page must name: x87 only.
const LEAF_XSAVE: u32 = 0xD;
/// Leaf 0xD subleaf 1 EAX: XSAVEC. TCG has neither it nor XSAVES, without which Linux accepts no CPUID
/// page that has XSAVE: it cannot size the save area. A kernel is told on its command line not to use
/// it (`clearcpuid=xsavec`).
const XSAVEC: u32 = 1 << 1;

/// EAX, EBX, ECX, EDX for a leaf; `osxsave` is the guest's CR4.OSXSAVE.
pub fn answer(processor: &impl Processor, leaf: u32, subleaf: u32, osxsave: bool) -> [u32; 4] {
    let [mut eax, mut ebx, mut ecx, mut edx] = processor.cpuid(leaf, subleaf);
    match leaf {
        1 => ecx = (ecx & !OSXSAVE) | if osxsave { OSXSAVE } else { 0 },
        7 if subleaf == 0 => ecx &= !LA57,
        LEAF_XSAVE if subleaf == 1 => eax |= XSAVEC,
        0x8000_0000 => eax = eax.max(LEAF_ENCRYPTION),
        0x8000_0001 => ecx &= !SVM,
        0x8000_0008 => {
            ebx |= INVLPGB;
            edx = (edx & !0xFFFF) | INVLPGB_COUNT;
        }
        LEAF_ENCRYPTION => [eax, ebx, ecx, edx] = [ENCRYPTION_FEATURES, ENCRYPTION_LAYOUT, 0, 0],
        _ => {}
    }
    [eax, ebx, ecx, edx]
}

/// Fills in the leaves that a launch image's CPUID page lists.
pub fn fill_page(processor: &impl Processor, page: &mut CpuidPage) {
    let count = page.used().len();
    for entry in page.entries.iter_mut().take(count) {
        let answer = answer(processor, entry.eax_in, entry.ecx_in, false);
        [entry.eax, entry.ebx, entry.ecx, entry.edx] = answer;
        if entry.eax_in == LEAF_XSAVE && entry.ecx_in < 2 {
            entry.xcr0_in = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;
    use crate::test_hardware::TestHardware;

    #[test]
    fn svm_is_hidden_and_snp_is_shown() {
        let processor = TestHardware::default();
        assert_eq!(answer(&processor, 0x8000_0001, 0, false)[2] & SVM, 0);
        assert_eq!(answer(&processor, 7, 0, false)[2] & LA57, 0);
        assert_eq!(answer(&processor, 1, 0, false)[2] & OSXSAVE, 0);
        assert_eq!(answer(&processor, 1, 0, true)[2] & OSXSAVE, OSXSAVE);
        assert_eq!(answer(&processor, 0xD, 1, false)[0] & XSAVEC, XSAVEC);
        let mut page = CpuidPage::new_zeroed();
        page.count = 1;
        page.entries[0].eax_in = LEAF_ENCRYPTION;
        fill_page(&processor, &mut page);
        assert_eq!(page.c_bit_position(), Some(C_BIT));
        assert_eq!(page.entries[0].eax & (1 << 4), 1 << 4);
        assert_eq!(page.entries[1].ebx, 0);
    }
}
