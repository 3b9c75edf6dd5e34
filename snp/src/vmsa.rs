// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VM save area of an SEV-ES and SEV-SNP guest (APM volume 2, table B-4).
//!
//! Bytes 0x000 to 0x26F have the layout of a VMCB's save area. A VMSA page must not be 2 MiB
//! aligned (erratum; KVM refuses it).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// EFER.SVME: an SNP vCPU can be run only while its VMSA has this bit.
pub const EFER_SVME: u64 = 1 << 12;
/// EFER.NXE.
pub const EFER_NXE: u64 = 1 << 11;
/// EFER.LMA.
pub const EFER_LMA: u64 = 1 << 10;
/// EFER.LME.
pub const EFER_LME: u64 = 1 << 8;
/// EXITCODE after the guest executed VMGEXIT.
pub const EXIT_CODE_VMGEXIT: u64 = 0x403;
/// G_PAT at reset.
pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// Guest physical address at which a launch places the first VMSA.
pub const LAUNCH_VMSA: u64 = 0xFFFF_FFFF_F000;

/// A segment register; the attributes are the descriptor's bits 55:52 and 47:40.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct VmsaSegment {
    /// Selector.
    pub selector: u16,
    /// Type, S, DPL and P in bits 7:0; AVL, L, D/B and G in bits 11:8.
    pub attributes: u16,
    /// Limit in bytes.
    pub limit: u32,
    /// Base.
    pub base: u64,
}

impl VmsaSegment {
    /// 64-bit code segment.
    pub const CODE_64: u16 = 0xA9B;
    /// 32-bit code segment.
    pub const CODE_32: u16 = 0xC9B;
    /// Code segment after a reset.
    pub const REAL_MODE_CODE: u16 = 0x9B;
    /// Data segment after a reset.
    pub const REAL_MODE_DATA: u16 = 0x93;
    /// Flat data segment.
    pub const DATA: u16 = 0xC93;
    /// Local descriptor table.
    pub const LDT: u16 = 0x82;
    /// Busy task-state segment.
    pub const BUSY_TSS: u16 = 0x8B;

    /// A segment that covers 4 GiB.
    pub const fn flat(selector: u16, attributes: u16) -> Self {
        Self {
            selector,
            attributes,
            limit: 0xFFFF_FFFF,
            base: 0,
        }
    }
}

/// The page. Reserved parts are private and stay as they were read.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Vmsa {
    /// ES.
    pub es: VmsaSegment,
    /// CS.
    pub cs: VmsaSegment,
    /// SS.
    pub ss: VmsaSegment,
    /// DS.
    pub ds: VmsaSegment,
    /// FS.
    pub fs: VmsaSegment,
    /// GS.
    pub gs: VmsaSegment,
    /// GDTR.
    pub gdtr: VmsaSegment,
    /// LDTR.
    pub ldtr: VmsaSegment,
    /// IDTR.
    pub idtr: VmsaSegment,
    /// TR.
    pub tr: VmsaSegment,
    /// PL0_SSP to PL3_SSP.
    pub pl_ssp: [u64; 4],
    /// U_CET.
    pub u_cet: u64,
    reserved_0c8: [u8; 2],
    /// The VMPL this VMSA runs at.
    pub vmpl: u8,
    /// Current privilege level.
    pub cpl: u8,
    reserved_0cc: [u8; 4],
    /// EFER.
    pub efer: u64,
    reserved_0d8: [u8; 0x68],
    /// XSS.
    pub xss: u64,
    /// CR4.
    pub cr4: u64,
    /// CR3.
    pub cr3: u64,
    /// CR0.
    pub cr0: u64,
    /// DR7.
    pub dr7: u64,
    /// DR6.
    pub dr6: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RIP.
    pub rip: u64,
    /// DR0 to DR3.
    pub dr: [u64; 4],
    /// Masks of DR0 to DR3.
    pub dr_mask: [u64; 4],
    reserved_1c0: [u8; 0x18],
    /// RSP.
    pub rsp: u64,
    /// S_CET.
    pub s_cet: u64,
    /// SSP.
    pub ssp: u64,
    /// Interrupt SSP table.
    pub interrupt_ssp_table: u64,
    /// RAX.
    pub rax: u64,
    /// STAR.
    pub star: u64,
    /// LSTAR.
    pub lstar: u64,
    /// CSTAR.
    pub cstar: u64,
    /// SFMASK.
    pub sfmask: u64,
    /// KernelGSBase.
    pub kernel_gs_base: u64,
    /// SYSENTER_CS.
    pub sysenter_cs: u64,
    /// SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// CR2.
    pub cr2: u64,
    reserved_248: [u8; 0x20],
    /// G_PAT.
    pub g_pat: u64,
    /// DEBUGCTL.
    pub debug_control: u64,
    reserved_278: [u8; 0x70],
    /// PKRU.
    pub pkru: u32,
    /// TSC_AUX.
    pub tsc_aux: u32,
    /// Guest TSC scale.
    pub tsc_scale: u64,
    /// Guest TSC offset.
    pub tsc_offset: u64,
    /// Nonce of register protection.
    pub register_protection_nonce: u64,
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    /// RBX.
    pub rbx: u64,
    reserved_320: u64,
    /// RBP.
    pub rbp: u64,
    /// RSI.
    pub rsi: u64,
    /// RDI.
    pub rdi: u64,
    /// R8 to R15.
    pub r8_to_r15: [u64; 8],
    reserved_380: [u8; 0x10],
    /// EXITINFO1 of the last automatic exit.
    pub exit_info_1: u64,
    /// EXITINFO2 of the last automatic exit.
    pub exit_info_2: u64,
    /// EXITINTINFO.
    pub exit_interrupt_info: u64,
    /// NRIP.
    pub next_rip: u64,
    /// [`crate::msr::SevFeatures`] as bits.
    pub sev_features: u64,
    /// Virtual interrupt control.
    pub virtual_interrupt_control: u64,
    /// EXITCODE of the last exit.
    pub exit_code: u64,
    /// Virtual top of memory.
    pub virtual_tom: u64,
    /// TLB_ID.
    pub tlb_id: u64,
    /// PCPU_ID; 0 forces a TLB flush at the next VMRUN.
    pub pcpu_id: u64,
    /// EVENTINJ.
    pub event_injection: u64,
    /// XCR0.
    pub xcr0: u64,
    reserved_3f0: [u8; 0x10],
    /// x87 data pointer.
    pub x87_data_pointer: u64,
    /// MXCSR.
    pub mxcsr: u32,
    /// x87 tag word.
    pub x87_tag_word: u16,
    /// x87 status word.
    pub x87_status_word: u16,
    /// x87 control word.
    pub x87_control_word: u16,
    reserved_412: [u8; 0xBEE],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<VmsaSegment>() == 16);
    assert!(size_of::<Vmsa>() == 4096);
    assert!(offset_of!(Vmsa, tr) == 0x90);
    assert!(offset_of!(Vmsa, pl_ssp) == 0xA0);
    assert!(offset_of!(Vmsa, vmpl) == 0xCA);
    assert!(offset_of!(Vmsa, cpl) == 0xCB);
    assert!(offset_of!(Vmsa, efer) == 0xD0);
    assert!(offset_of!(Vmsa, xss) == 0x140);
    assert!(offset_of!(Vmsa, cr4) == 0x148);
    assert!(offset_of!(Vmsa, rip) == 0x178);
    assert!(offset_of!(Vmsa, dr) == 0x180);
    assert!(offset_of!(Vmsa, rsp) == 0x1D8);
    assert!(offset_of!(Vmsa, rax) == 0x1F8);
    assert!(offset_of!(Vmsa, sysenter_cs) == 0x228);
    assert!(offset_of!(Vmsa, cr2) == 0x240);
    assert!(offset_of!(Vmsa, g_pat) == 0x268);
    assert!(offset_of!(Vmsa, debug_control) == 0x270);
    assert!(offset_of!(Vmsa, pkru) == 0x2E8);
    assert!(offset_of!(Vmsa, tsc_scale) == 0x2F0);
    assert!(offset_of!(Vmsa, rcx) == 0x308);
    assert!(offset_of!(Vmsa, rbp) == 0x328);
    assert!(offset_of!(Vmsa, r8_to_r15) == 0x340);
    assert!(offset_of!(Vmsa, exit_info_1) == 0x390);
    assert!(offset_of!(Vmsa, sev_features) == 0x3B0);
    assert!(offset_of!(Vmsa, exit_code) == 0x3C0);
    assert!(offset_of!(Vmsa, event_injection) == 0x3E0);
    assert!(offset_of!(Vmsa, xcr0) == 0x3E8);
    assert!(offset_of!(Vmsa, x87_data_pointer) == 0x400);
    assert!(offset_of!(Vmsa, mxcsr) == 0x408);
    assert!(offset_of!(Vmsa, x87_tag_word) == 0x40C);
    assert!(offset_of!(Vmsa, x87_control_word) == 0x410);
};

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn golden_bytes() {
        let mut vmsa = Vmsa::new_zeroed();
        vmsa.cs = VmsaSegment::flat(8, VmsaSegment::CODE_32);
        vmsa.efer = EFER_SVME;
        vmsa.vmpl = 2;
        let bytes = vmsa.as_bytes();
        assert_eq!(
            bytes[0x10..0x18],
            [8, 0, 0x9B, 0x0C, 0xFF, 0xFF, 0xFF, 0xFF]
        );
        assert_eq!(bytes[0xCA], 2);
        assert_eq!(bytes[0xD1], 0x10);
    }
}
