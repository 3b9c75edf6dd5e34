// SPDX-License-Identifier: MIT OR Apache-2.0
//! The register state in which a further vCPU starts: in 64-bit mode at once, with the boot vCPU's
//! page tables and descriptor tables (APM volume 2, table B-4).

use snp::address::Vmpl;
use snp::vmsa::{EFER_LMA, EFER_LME, EFER_NXE, EFER_SVME, PAT_RESET, Vmsa, VmsaSegment};
use zerocopy::FromZeros;

/// PG, WP, NE, ET, PE.
const CR0: u64 = 0x8001_0031;
/// PAE, OSFXSR, OSXMMEXCPT.
const CR4: u64 = 0x620;
const DR6: u64 = 0xffff_0ff0;
const DR7: u64 = 0x400;
const MXCSR: u32 = 0x1f80;
const X87_TAG_WORD: u16 = 0x5555;
const X87_CONTROL_WORD: u16 = 0x40;

/// A descriptor table: its address and its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Address.
    pub base: u64,
    /// Bytes minus 1.
    pub limit: u16,
}

/// What a vCPU starts with.
#[derive(Debug, Clone, Copy)]
pub struct ApStart {
    /// A function that gets the number as its argument and does not return.
    pub entry: u64,
    /// One past the stack, a multiple of 16.
    pub stack_end: u64,
    /// The vCPU's number.
    pub number: u64,
    /// CR3.
    pub cr3: u64,
    /// Global descriptor table: code at 8, data at 16.
    pub gdt: Table,
    /// Interrupt descriptor table.
    pub idt: Table,
    /// GS.base.
    pub gs_base: u64,
    /// SEV_FEATURES of the boot vCPU.
    pub sev_features: u64,
}

/// The VMSA.
#[must_use]
pub fn ap_vmsa(start: &ApStart) -> Vmsa {
    let data = VmsaSegment::flat(0x10, VmsaSegment::DATA);
    let table = |table: Table| VmsaSegment {
        limit: table.limit.into(),
        base: table.base,
        ..VmsaSegment::default()
    };
    let system = |attributes| VmsaSegment {
        attributes,
        limit: 0xffff,
        ..VmsaSegment::default()
    };
    let mut vmsa = Vmsa::new_zeroed();
    vmsa.cs = VmsaSegment::flat(0x08, VmsaSegment::CODE_64);
    (vmsa.ds, vmsa.es, vmsa.fs, vmsa.ss) = (data, data, data, data);
    vmsa.gs = VmsaSegment {
        base: start.gs_base,
        ..data
    };
    vmsa.gdtr = table(start.gdt);
    vmsa.idtr = table(start.idt);
    vmsa.ldtr = system(VmsaSegment::LDT);
    vmsa.tr = system(VmsaSegment::BUSY_TSS);
    vmsa.vmpl = Vmpl::Vmpl2.number();
    vmsa.efer = EFER_SVME | EFER_NXE | EFER_LMA | EFER_LME;
    (vmsa.cr0, vmsa.cr3, vmsa.cr4) = (CR0, start.cr3, CR4);
    (vmsa.dr6, vmsa.dr7) = (DR6, DR7);
    vmsa.rflags = 2;
    vmsa.rip = start.entry;
    // As behind the call that pushed a return address nobody needs.
    vmsa.rsp = start.stack_end - 8;
    vmsa.rdi = start.number;
    vmsa.g_pat = PAT_RESET;
    vmsa.xcr0 = 1;
    vmsa.mxcsr = MXCSR;
    vmsa.x87_tag_word = X87_TAG_WORD;
    vmsa.x87_control_word = X87_CONTROL_WORD;
    vmsa.sev_features = start.sev_features;
    vmsa
}

#[cfg(test)]
mod tests {
    use super::{ApStart, Table, ap_vmsa};
    use paravisor::guest_vmsa::acceptable;

    #[test]
    fn the_paravisor_accepts_it_and_it_starts_like_a_called_function() {
        let vmsa = ap_vmsa(&ApStart {
            entry: 0x100_0000,
            stack_end: 0x200_0000,
            number: 3,
            cr3: 1 << 51 | 0x5000,
            gdt: Table {
                base: 0x6000,
                limit: 23,
            },
            idt: Table {
                base: 0x7000,
                limit: 511,
            },
            gs_base: 0x8000,
            sev_features: 1,
        });
        assert!(acceptable(&vmsa, 1));
        assert_eq!((vmsa.rip, vmsa.rdi, vmsa.rsp % 16), (0x100_0000, 3, 8));
        assert_eq!((vmsa.gdtr.base, vmsa.gdtr.limit), (0x6000, 23));
        assert_eq!((vmsa.idtr.base, vmsa.idtr.limit), (0x7000, 511));
        assert_eq!((vmsa.gs.base, vmsa.cr3), (0x8000, 1 << 51 | 0x5000));
        assert_eq!(vmsa.rflags & 1 << 9, 0, "interrupts are off");
    }
}
