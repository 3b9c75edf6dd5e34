// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual machine control block: what VMRUN reads and #VMEXIT writes.
//!
//! Source: AMD64 APM volume 2, appendix B (tables B-1 and B-2) and section 15.9 for the intercept
//! bits. Only the fields that this host uses have names.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes at the start of a VMSA that have the layout of the start of the VMCB save area.
pub const COMMON_SAVE_BYTES: usize = 0x270;

/// A segment register as VMCB and VMSA hold it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SegmentRegister {
    /// Selector.
    pub selector: u16,
    /// `[7:0]` type, S, DPL and P; `[11:8]` AVL, L, D/B and G of the descriptor.
    pub attributes: u16,
    /// Limit in bytes, after applying G.
    pub limit: u32,
    /// Linear base address.
    pub base: u64,
}

impl SegmentRegister {
    /// The L bit among the attributes: 64-bit code.
    pub const LONG: u16 = 1 << 9;
    /// Descriptor privilege level among the attributes; VMRUN takes the CPL from that of SS.
    pub const PRIVILEGE: u16 = 3 << 5;
}

/// Bits of [`ControlArea::intercept_instructions`].
pub mod intercept {
    /// Physical interrupts.
    pub const INTERRUPT: u32 = 1;
    /// NMI, by which another CPU ends a guest's run.
    pub const NMI: u32 = 1 << 1;
    /// RDPMC.
    pub const RDPMC: u32 = 1 << 15;
    /// CPUID.
    pub const CPUID: u32 = 1 << 18;
    /// INVD.
    pub const INVD: u32 = 1 << 22;
    /// HLT.
    pub const HLT: u32 = 1 << 24;
    /// IN and OUT by the permission map.
    pub const IOIO: u32 = 1 << 27;
    /// RDMSR and WRMSR by the permission map.
    pub const MSR: u32 = 1 << 28;
    /// Shutdown (triple fault).
    pub const SHUTDOWN: u32 = 1 << 31;
    /// In the second word: VMRUN (mandatory), VMMCALL, VMLOAD, VMSAVE, STGI, CLGI and SKINIT.
    pub const VIRTUALIZATION: u32 = 0x7F;
    /// In the second word: WBINVD, MONITOR, MWAIT.
    pub const CACHE_AND_WAIT: u32 = 7 << 9;
    /// Among the exceptions: #UD, as which the emulated instructions arrive.
    pub const INVALID_OPCODE: u32 = 1 << 6;
    /// Among the control-register writes: CR0.
    pub const CR0_WRITE: u16 = 1;
}

/// Exit codes that the host handles (APM volume 2, appendix C).
pub mod exit_code {
    /// Write to CR0.
    pub const CR0_WRITE: u64 = 0x10;
    /// #UD.
    pub const INVALID_OPCODE: u64 = 0x46;
    /// Physical interrupt.
    pub const INTERRUPT: u64 = 0x60;
    /// NMI.
    pub const NMI: u64 = 0x61;
    /// RDPMC.
    pub const RDPMC: u64 = 0x6F;
    /// CPUID.
    pub const CPUID: u64 = 0x72;
    /// INVD.
    pub const INVD: u64 = 0x76;
    /// HLT.
    pub const HLT: u64 = 0x78;
    /// IN or OUT.
    pub const IOIO: u64 = 0x7B;
    /// RDMSR or WRMSR.
    pub const MSR: u64 = 0x7C;
    /// Triple fault.
    pub const SHUTDOWN: u64 = 0x7F;
    /// VMRUN; VMLOAD, VMSAVE, STGI, CLGI and SKINIT follow VMMCALL.
    pub const VMRUN: u64 = 0x80;
    /// VMMCALL, and so VMGEXIT.
    pub const VMMCALL: u64 = 0x81;
    /// The last of the virtualization instructions.
    pub const SKINIT: u64 = 0x86;
    /// WBINVD.
    pub const WBINVD: u64 = 0x89;
    /// MONITOR.
    pub const MONITOR: u64 = 0x8A;
    /// MWAIT.
    pub const MWAIT: u64 = 0x8B;
    /// Nested page fault.
    pub const NESTED_FAULT: u64 = 0x400;
    /// Access to a private page that is not validated; never leaves the guest on hardware.
    pub const NOT_VALIDATED: u64 = 0x404;
    /// VMGEXIT as a VMSA reports it.
    pub const VMGEXIT: u64 = 0x403;
}

/// [`ControlArea::interrupt_control`]: the guest's RFLAGS.IF does not mask physical interrupts, so
/// the host's (clear) IF holds them back until another VMPL runs.
pub const VIRTUAL_INTERRUPT_MASKING: u64 = 1 << 24;

/// Valid bit, types and error-code bit of [`ControlArea::event_injection`].
pub mod event {
    /// The event is to be injected.
    pub const VALID: u64 = 1 << 31;
    /// Type 3: an exception.
    pub const EXCEPTION: u64 = 3 << 8;
    /// An error code follows in bits `[63:32]`.
    pub const ERROR_CODE: u64 = 1 << 11;
    /// #UD.
    pub const INVALID_OPCODE: u64 = VALID | EXCEPTION | 6;
    /// #GP with error code 0.
    pub const GENERAL_PROTECTION: u64 = VALID | EXCEPTION | ERROR_CODE | 13;
    /// NMI: type 2, vector 2.
    pub const NMI: u64 = VALID | 2 << 8 | 2;
    /// #HV, which has no error code.
    pub const HV: u64 = VALID | EXCEPTION | 28;
    /// #PF; the caller adds the error code.
    pub const PAGE_FAULT: u64 = VALID | EXCEPTION | ERROR_CODE | 14;
}

/// The control area (table B-1).
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "reserved gaps are named only to keep the layout"
)]
pub struct ControlArea {
    /// Intercepted control-register reads.
    pub intercept_cr_read: u16,
    /// Intercepted control-register writes.
    pub intercept_cr_write: u16,
    /// Intercepted debug-register accesses, reads then writes.
    pub intercept_dr: [u16; 2],
    /// Intercepted exception vectors.
    pub intercept_exceptions: u32,
    /// Intercepted instructions, first word ([`intercept`]).
    pub intercept_instructions: u32,
    /// Intercepted instructions, second word.
    pub intercept_virtualization: u32,
    pub reserved_014: [u8; 0x2C],
    /// Physical address of the I/O permission map.
    pub io_map: u64,
    /// Physical address of the MSR permission map.
    pub msr_map: u64,
    /// Added to the guest's time stamp counter.
    pub tsc_offset: u64,
    /// Address space identifier, not zero.
    pub asid: u32,
    /// TLB control: 1 flushes everything at VMRUN.
    pub tlb_control: u32,
    /// Virtual interrupt control.
    pub interrupt_control: u64,
    /// Bit 0: interrupt shadow.
    pub interrupt_shadow: u64,
    /// Why the guest exited.
    pub exit_code: u64,
    /// First detail of the exit.
    pub exit_info_1: u64,
    /// Second detail of the exit.
    pub exit_info_2: u64,
    /// Event that was being delivered when the exit happened.
    pub exit_interrupt_info: u64,
    /// Bit 0: nested paging.
    pub nested_paging: u64,
    pub reserved_098: [u64; 2],
    /// Event to deliver at VMRUN.
    pub event_injection: u64,
    /// Root of the nested tables.
    pub nested_cr3: u64,
    pub reserved_0b8: [u8; 0x348],
}

/// The state save area (table B-2); its first [`COMMON_SAVE_BYTES`] bytes are those of a VMSA.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "architectural register names")]
pub struct SaveArea {
    pub es: SegmentRegister,
    pub cs: SegmentRegister,
    pub ss: SegmentRegister,
    pub ds: SegmentRegister,
    pub fs: SegmentRegister,
    pub gs: SegmentRegister,
    pub gdtr: SegmentRegister,
    pub ldtr: SegmentRegister,
    pub idtr: SegmentRegister,
    pub tr: SegmentRegister,
    pub reserved_0a0: [u8; 0x2B],
    pub cpl: u8,
    pub reserved_0cc: u32,
    pub efer: u64,
    pub reserved_0d8: [u8; 0x70],
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    pub reserved_180: [u8; 0x58],
    pub rsp: u64,
    pub reserved_1e0: [u64; 3],
    pub rax: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub cr2: u64,
    pub reserved_248: [u64; 4],
    pub guest_pat: u64,
    pub reserved_270: [u8; 0x990],
}

/// One virtual machine control block.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
pub struct Vmcb {
    /// What the host decides.
    pub control: ControlArea,
    /// What the guest was doing.
    pub save: SaveArea,
}

const _: () = {
    assert!(size_of::<Vmcb>() == 4096);
    assert!(offset_of!(ControlArea, io_map) == 0x40);
    assert!(offset_of!(ControlArea, asid) == 0x58);
    assert!(offset_of!(ControlArea, interrupt_control) == 0x60);
    assert!(offset_of!(ControlArea, exit_code) == 0x70);
    assert!(offset_of!(ControlArea, nested_paging) == 0x90);
    assert!(offset_of!(ControlArea, event_injection) == 0xA8);
    assert!(offset_of!(ControlArea, nested_cr3) == 0xB0);
    assert!(offset_of!(Vmcb, save) == 0x400);
    assert!(offset_of!(SaveArea, idtr) == 0x80);
    assert!(offset_of!(SaveArea, tr) == 0x90);
    assert!(offset_of!(SaveArea, cpl) == 0xCB);
    assert!(offset_of!(SaveArea, efer) == 0xD0);
    assert!(offset_of!(SaveArea, cr4) == 0x148);
    assert!(offset_of!(SaveArea, rip) == 0x178);
    assert!(offset_of!(SaveArea, rsp) == 0x1D8);
    assert!(offset_of!(SaveArea, rax) == 0x1F8);
    assert!(offset_of!(SaveArea, cr2) == 0x240);
    assert!(offset_of!(SaveArea, guest_pat) == 0x268);
    assert!(offset_of!(SaveArea, reserved_270) == COMMON_SAVE_BYTES);
};
