// SPDX-License-Identifier: MIT OR Apache-2.0
//! SW_EXITCODE of the non-automatic exits (GHCB specification, table 7).

/// Read of DR7.
pub const READ_DR7: u64 = 0x27;
/// Write of DR7.
pub const WRITE_DR7: u64 = 0x37;
/// RDTSC.
pub const RDTSC: u64 = 0x6E;
/// RDPMC.
pub const RDPMC: u64 = 0x6F;
/// CPUID.
pub const CPUID: u64 = 0x72;
/// INVD.
pub const INVD: u64 = 0x76;
/// HLT.
pub const HLT: u64 = 0x78;
/// IN, OUT, INS or OUTS; information 1 is [`super::IoExitInformation`].
pub const IOIO: u64 = 0x7B;
/// RDMSR (information 1 is 0) or WRMSR (1).
pub const MSR: u64 = 0x7C;
/// VMMCALL.
pub const VMMCALL: u64 = 0x81;
/// RDTSCP.
pub const RDTSCP: u64 = 0x87;
/// WBINVD.
pub const WBINVD: u64 = 0x89;
/// MONITOR.
pub const MONITOR: u64 = 0x8A;
/// MWAIT.
pub const MWAIT: u64 = 0x8B;
/// MMIO read: information 1 is the address, 2 the length, the data lands at SW_SCRATCH.
pub const MMIO_READ: u64 = 0x8000_0001;
/// MMIO write, likewise.
pub const MMIO_WRITE: u64 = 0x8000_0002;
/// The guest has handled an NMI.
pub const NMI_COMPLETE: u64 = 0x8000_0003;
/// The vCPU waits for INIT-SIPI.
pub const AP_RESET_HOLD: u64 = 0x8000_0004;
/// AP jump table of an SEV-ES guest.
pub const AP_JUMP_TABLE: u64 = 0x8000_0005;
/// Page-state change; SW_SCRATCH is the address of the descriptor.
pub const PAGE_STATE_CHANGE: u64 = 0x8000_0010;
/// A message to the platform security processor: information 1 is the request, 2 the response.
pub const GUEST_REQUEST: u64 = 0x8000_0011;
/// The same with more data: RAX is their address, RBX the number of pages.
pub const EXTENDED_GUEST_REQUEST: u64 = 0x8000_0012;
/// AP creation; information 1 is [`super::ApCreation`], 2 the VMSA, RAX SEV_FEATURES.
pub const AP_CREATION: u64 = 0x8000_0013;
/// #HV doorbell; information 1 is one of [`super::doorbell`], 2 the page.
pub const HV_DOORBELL: u64 = 0x8000_0014;
/// #HV interprocessor interrupt.
pub const HV_IPI: u64 = 0x8000_0015;
/// #HV timer.
pub const HV_TIMER: u64 = 0x8000_0016;
/// APIC identifier list.
pub const APIC_ID_LIST: u64 = 0x8000_0017;
/// Run another VMPL; information 1 is the level.
pub const RUN_VMPL: u64 = 0x8000_0018;
/// Hypervisor features, returned in information 2.
pub const HYPERVISOR_FEATURES: u64 = 0x8000_FFFD;
/// Terminate; information 1 is the reason set, 2 the reason.
pub const TERMINATE: u64 = 0x8000_FFFE;
/// The #VC handler met an event it does not know.
pub const UNSUPPORTED: u64 = 0x8000_FFFF;
