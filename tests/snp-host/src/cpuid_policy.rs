// SPDX-License-Identifier: MIT OR Apache-2.0
//! What CPUID tells the guest: the processor's answers without what this host uses for itself (SVM,
//! 5-level paging) or cannot carry over a switch of VMPLs (XSAVE and what it saves), and with
//! SEV-SNP.
//!
//! QEMU's processor has XSAVE without XSAVEC, which no SNP processor is like: Linux ends when it
//! looks at leaf 0xD of such a one. So there is no XSAVE, and no leaf 0xD: the standard leaves end
//! before it.
//!
//! Which CPU it is, and of how many, is this host's to say: the processor that runs the guest's boot CPU has another number on QEMU's
//! machine, which has one processor more than the guest has CPUs (docs/DECISIONS.md, D21). As on QEMU's own, the CPUs are cores of one
//! package.
//!
//! MONITOR and MWAIT are not shown, as KVM does not: they are #VC and end at once, so that an idle
//! processor which used them would never rest.

use snp::cpuid::{CpuidPage, LEAF_ENCRYPTION};

use crate::hardware::Processor;
use crate::memory_plan::C_BIT;

/// Last standard leaf that is shown.
const LAST_LEAF: u32 = 0xC;
const LEAF_XSAVE: u32 = 0xD;
/// Leaf 1 ECX: MONITOR, FMA, x2APIC, TSC deadline, XSAVE, OSXSAVE, AVX, F16C.
const HIDDEN_1_ECX: u32 =
    (1 << 3) | (1 << 12) | (1 << 21) | (1 << 24) | (1 << 26) | (1 << 27) | (1 << 28) | (1 << 29);
/// Leaf 7 EBX: AVX2, MPX and the AVX-512 family.
const HIDDEN_7_EBX: u32 =
    (1 << 5) | (1 << 14) | (3 << 16) | (1 << 21) | (7 << 26) | (1 << 30) | (1 << 31);
/// Leaf 7 ECX: AVX-512 VBMI, PKU, OSPKE, VBMI2, VAES, VPCLMULQDQ, VNNI, BITALG, VPOPCNTDQ, LA57,
/// shadow stacks.
const HIDDEN_7_ECX: u32 = (1 << 1)
    | (3 << 3)
    | (1 << 6)
    | (1 << 7)
    | (1 << 9)
    | (1 << 10)
    | (1 << 11)
    | (1 << 12)
    | (1 << 14)
    | (1 << 16);
/// Leaf 7 EDX: more of AVX-512, AMX, branch tracking.
const HIDDEN_7_EDX: u32 = (3 << 2) | (1 << 8) | (1 << 20) | (7 << 22);
/// Leaf 0x8000_0001 ECX: SVM, XOP, LWP, FMA4, MONITORX.
const HIDDEN_EXTENDED_ECX: u32 = (1 << 2) | (1 << 11) | (1 << 15) | (1 << 16) | (1 << 29);
const LEAF_MONITOR: u32 = 5;
/// Leaf 0x8000_0008 EBX: INVLPGB; EDX `[15:0]` is its largest page count.
const INVLPGB: u32 = 1 << 3;
const INVLPGB_COUNT: u32 = 7;
/// Leaf 0x8000_001F EAX: SEV, SEV-ES, SEV-SNP, VMPL, RMPQUERY.
const ENCRYPTION_FEATURES: u32 = (1 << 1) | (1 << 3) | (1 << 4) | (1 << 5) | (1 << 6);
/// The same leaf's EBX: C-bit, 1 bit of address reduction, 4 VMPLs, no software coherency needed.
const ENCRYPTION_LAYOUT: u32 = C_BIT | (1 << 6) | (4 << 12) | (1 << 31);

/// Leaves of the topology, and the sub-leaves meant here: cores in the extended topology, the cache that all share.
const LEAF_TOPOLOGY: u32 = 0xB;
const TOPOLOGY_CORES: u32 = 1;
const LEAF_CACHES: u32 = 0x8000_001D;
const SHARED_CACHE: u32 = 3;
const LEAF_NODES: u32 = 0x8000_001E;

/// A CPU's place among those of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its APIC id.
    pub apic_id: u32,
    /// How many there are.
    pub cpus: u32,
}

impl Place {
    /// Bits of an APIC id.
    const fn id_bits(self) -> u32 {
        self.cpus.next_power_of_two().ilog2()
    }

    /// Writes this place into a leaf's EAX, EBX, ECX and EDX. A processor by itself has no place.
    const fn write(self, leaf: u32, subleaf: u32, registers: [u32; 4]) -> [u32; 4] {
        let Self { apic_id, cpus } = self;
        let [eax, ebx, ecx, edx] = registers;
        let most = cpus.saturating_sub(1);
        match (leaf, subleaf) {
            _ if cpus < 2 => registers,
            (1, _) => [
                eax,
                (ebx & 0xFFFF) | (cpus << 16) | (apic_id << 24),
                ecx,
                edx,
            ],
            (LEAF_TOPOLOGY, TOPOLOGY_CORES) => [self.id_bits(), cpus, ecx, apic_id],
            (LEAF_TOPOLOGY, _) => [eax, ebx, ecx, apic_id],
            (0x8000_0008, _) => [eax, ebx, (self.id_bits() << 12) | most, edx],
            (LEAF_CACHES, SHARED_CACHE) => [(eax & !(0xFFF << 14)) | (most << 14), ebx, ecx, edx],
            // The core's number is its APIC id: each has one thread.
            (LEAF_NODES, _) => [apic_id, (ebx & !0xFF) | apic_id, ecx, edx],
            _ => registers,
        }
    }
}

/// EAX, EBX, ECX, EDX for a leaf, as the CPU at `place` sees it.
pub fn answer(processor: &impl Processor, place: Place, leaf: u32, subleaf: u32) -> [u32; 4] {
    let [mut eax, mut ebx, mut ecx, mut edx] =
        place.write(leaf, subleaf, processor.cpuid(leaf, subleaf));
    match (leaf, subleaf) {
        (0, _) => eax = eax.min(LAST_LEAF),
        (1, _) => ecx &= !HIDDEN_1_ECX,
        (7, 0) => {
            eax = 0;
            ebx &= !HIDDEN_7_EBX;
            ecx &= !HIDDEN_7_ECX;
            edx &= !HIDDEN_7_EDX;
        }
        (LEAF_MONITOR | 7 | LEAF_XSAVE, _) => [eax, ebx, ecx, edx] = [0; 4],
        (0x8000_0000, _) => eax = eax.max(LEAF_ENCRYPTION),
        (0x8000_0001, _) => ecx &= !HIDDEN_EXTENDED_ECX,
        (0x8000_0008, _) => {
            ebx |= INVLPGB;
            edx = (edx & !0xFFFF) | INVLPGB_COUNT;
        }
        // SVM's own leaf.
        (0x8000_000A, _) => [eax, ebx, ecx, edx] = [0; 4],
        (LEAF_ENCRYPTION, _) => {
            [eax, ebx, ecx, edx] = [ENCRYPTION_FEATURES, ENCRYPTION_LAYOUT, 0, 0];
        }
        _ => {}
    }
    [eax, ebx, ecx, edx]
}

/// Fills in the leaves that a launch image's CPUID page lists, as the CPU at `place` sees them. The encryption leaf has
/// one entry; another key with its number, which a hostile VMM lists, gets zeros.
pub fn fill_page(processor: &impl Processor, place: Place, page: &mut CpuidPage) {
    let count = page.used().len();
    for entry in page.entries.iter_mut().take(count) {
        let is_decoy = entry.eax_in == LEAF_ENCRYPTION
            && (entry.ecx_in != 0 || entry.xcr0_in != 0 || entry.xss_in != 0);
        let answer = if is_decoy {
            [0; 4]
        } else {
            answer(processor, place, entry.eax_in, entry.ecx_in)
        };
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

    const ALONE: Place = Place {
        apic_id: 0,
        cpus: 1,
    };

    /// The numbers are those of QEMU's machine with three cores, seen from its last.
    #[test]
    fn a_cpu_is_told_its_place_among_those_of_the_guest() {
        let first = Place {
            apic_id: 0,
            cpus: 2,
        };
        let second = Place {
            apic_id: 1,
            cpus: 2,
        };
        let one = [0xA0_0F11, 0x203_0800, 5, 6];
        assert_eq!(first.write(1, 0, one)[1], 0x2_0800);
        assert_eq!(second.write(1, 0, one)[1], 0x102_0800);
        assert_eq!(second.write(1, 0, one)[2..], [5, 6]);
        let cores = [2, 3, 0x201, 2];
        assert_eq!(second.write(0xB, 1, cores), [1, 2, 0x201, 1]);
        assert_eq!(first.write(0xB, 0, [0, 1, 0x100, 2]), [0, 1, 0x100, 0]);
        let sizes = [0x3934, 1, 0x2002, 0];
        assert_eq!(first.write(0x8000_0008, 0, sizes), [0x3934, 1, 0x1001, 0]);
        let cache = [0x8163, 1, 2, 3];
        assert_eq!(first.write(0x8000_001D, 3, cache), [0x4163, 1, 2, 3]);
        assert_eq!(first.write(0x8000_001D, 0, cache), cache);
        assert_eq!(first.write(0x8000_001E, 0, [2, 2, 0, 0]), [0; 4]);
        assert_eq!(second.write(0x8000_001E, 0, [2, 2, 0, 0]), [1, 1, 0, 0]);
        assert_eq!(ALONE.write(1, 0, one), one);
        let eight = Place {
            apic_id: 7,
            cpus: 8,
        };
        assert_eq!(eight.write(0xB, 1, cores)[..2], [3, 8]);
    }

    #[test]
    fn svm_is_hidden_and_snp_is_shown() {
        let processor = TestHardware::default();
        let answer = |leaf, subleaf| answer(&processor, ALONE, leaf, subleaf);
        assert_eq!(answer(0x8000_0001, 0)[2] & (1 << 2), 0);
        assert_eq!(answer(7, 0)[2] & (1 << 16), 0);
        let mut page = CpuidPage::new_zeroed();
        page.count = 1;
        page.entries[0].eax_in = LEAF_ENCRYPTION;
        fill_page(&processor, ALONE, &mut page);
        assert_eq!(page.c_bit_position(), Some(C_BIT));
        assert_eq!(page.entries[0].eax & (1 << 4), 1 << 4);
        assert_eq!(page.entries[1].ebx, 0);
    }

    #[test]
    fn no_register_is_shown_that_a_switch_would_lose() {
        let processor = TestHardware::default();
        let [.., ecx, _] = answer(&processor, ALONE, 1, 0);
        // XSAVE, OSXSAVE, AVX, FMA, F16C; SSE4.2 stays.
        assert_eq!(ecx & 0x3C00_1000, 0);
        assert_ne!(ecx & (1 << 20), 0);
        let [_, ebx, ..] = answer(&processor, ALONE, 7, 0);
        assert_eq!(ebx & (1 << 5), 0);
        for subleaf in 0..3 {
            assert_eq!(answer(&processor, ALONE, LEAF_XSAVE, subleaf), [0; 4]);
        }
        assert!(answer(&processor, ALONE, 0, 0)[0] < LEAF_XSAVE);
    }
}
