// SPDX-License-Identifier: MIT OR Apache-2.0
//! What CREATE_VCPU needs of the machine beyond pages, and the register state in which
//! VMPL0 starts on a further processor.

use snp::address::Vmpl;
use snp::vmsa::{EFER_SVME, PAT_RESET, Vmsa, VmsaSegment};
use zerocopy::FromZeros;

use crate::apic_ids::ProcessorId;
use crate::guest_vmsa::{DR6, DR7, MXCSR, X87_CONTROL_WORD, X87_TAG_WORD};
use crate::termination::Reason;

/// Why VMPL0 does not run on a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartError {
    /// The host refused; the processor is as it was and may be asked for again.
    Refused,
    /// The VM has to end.
    Fatal(Reason),
}

/// The vCPUs of a machine.
pub trait VcpuControl {
    /// Starts VMPL0 on a processor on which it does not run, by one VMGEXIT. At most one call for a
    /// processor runs at a time.
    ///
    /// # Errors
    /// See [`StartError`].
    fn start_processor(&self, processor: ProcessorId) -> Result<(), StartError>;
}

/// What a further processor starts with at VMPL0.
#[derive(Debug, Clone, Copy)]
pub struct ProcessorStart {
    /// First instruction, 64-bit code.
    pub entry: u64,
    /// Stack pointer.
    pub stack: u64,
    /// GS base: how the code finds out which processor it runs on.
    pub gs_base: u64,
    /// Control registers, taken over from the running processor.
    pub cr0: u64,
    /// See `cr0`; with the C-bit.
    pub cr3: u64,
    /// See `cr0`.
    pub cr4: u64,
    /// EFER, likewise.
    pub efer: u64,
    /// SEV_FEATURES of VMPL0.
    pub features: u64,
}

impl ProcessorStart {
    /// The VMSA: 64-bit mode, flat segments, interrupts off, no descriptor table yet. It may run.
    #[must_use]
    pub fn vmsa(&self) -> Vmsa {
        let data = VmsaSegment::flat(0x10, VmsaSegment::DATA);
        let null = VmsaSegment::default();
        let table = |attributes| VmsaSegment { attributes, ..null };
        let mut vmsa = Vmsa::new_zeroed();
        vmsa.cs = VmsaSegment::flat(0x08, VmsaSegment::CODE_64);
        (vmsa.ss, vmsa.ds, vmsa.es) = (data, data, data);
        vmsa.gs.base = self.gs_base;
        vmsa.ldtr = table(VmsaSegment::LDT);
        vmsa.tr = table(VmsaSegment::BUSY_TSS);
        vmsa.vmpl = Vmpl::Vmpl0.number();
        vmsa.efer = self.efer | EFER_SVME;
        (vmsa.cr0, vmsa.cr3, vmsa.cr4) = (self.cr0, self.cr3, self.cr4);
        (vmsa.dr6, vmsa.dr7) = (DR6, DR7);
        vmsa.rflags = 2;
        (vmsa.rip, vmsa.rsp) = (self.entry, self.stack);
        vmsa.g_pat = PAT_RESET;
        vmsa.xcr0 = 1;
        vmsa.mxcsr = MXCSR;
        vmsa.x87_tag_word = X87_TAG_WORD;
        vmsa.x87_control_word = X87_CONTROL_WORD;
        vmsa.sev_features = self.features;
        vmsa
    }
}

#[cfg(test)]
mod tests {
    use super::{EFER_SVME, ProcessorStart};
    use snp::vmsa::{EFER_LMA, EFER_LME, EFER_NXE};

    #[test]
    fn a_processor_starts_where_and_as_the_running_one_is() {
        let start = ProcessorStart {
            entry: 0x41_1000,
            stack: 0x50_0ff8,
            gs_base: 0x48_0000,
            cr0: 0x8001_0033,
            cr3: 1 << 51 | 0x45_0000,
            cr4: 0x20,
            efer: EFER_LME | EFER_LMA | EFER_NXE,
            features: 0x29,
        };
        let vmsa = start.vmsa();
        assert_eq!((vmsa.vmpl, vmsa.cpl, vmsa.sev_features), (0, 0, 0x29));
        assert_eq!(vmsa.efer, 0xd00 | EFER_SVME);
        assert_eq!(
            (vmsa.rip, vmsa.rsp, vmsa.gs.base),
            (0x41_1000, 0x50_0ff8, 0x48_0000)
        );
        assert_eq!(
            (vmsa.cr0, vmsa.cr3, vmsa.cr4),
            (0x8001_0033, 0x0008_0000_0045_0000, 0x20)
        );
        assert_eq!(vmsa.rflags & 1 << 9, 0, "interrupts are off");
        assert_eq!(vmsa.cs.attributes & 0x200, 0x200, "64-bit code");
    }
}
