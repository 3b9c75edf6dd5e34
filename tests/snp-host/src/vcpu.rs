// SPDX-License-Identifier: MIT OR Apache-2.0
//! One virtual CPU per (CPU, VMPL): control block, registers and what the host knows of it.

use snp::address::{GuestPhysicalAddress, PAGE_SIZE, Vmpl};
use snp::msr::SevFeatures;
use snp::vmsa::{EFER_SVME, PAT_RESET, Vmsa, VmsaSegment};
use zerocopy::{FromZeros, IntoBytes};

use crate::call_times::ServedCall;
use crate::permission_maps::PermissionMaps;
use crate::vmcb::{COMMON_SAVE_BYTES, VIRTUAL_INTERRUPT_MASKING, Vmcb, intercept};

/// CR0.PG.
pub const CR0_PAGING: u64 = 1 << 31;
/// DR6 and DR7 after reset; a VMSA that QEMU accepts may leave them zero.
const DR6_RESET: u64 = 0xFFFF_0FF0;
const DR7_RESET: u64 = 0x400;

/// The general-purpose registers that VMRUN leaves to software; RAX and RSP are in the VMCB.
/// The order is what `world_switch.S` uses.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "architectural register names")]
pub struct GuestRegisters {
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8_to_r15: [u64; 8],
}

/// An FXSAVE area with the reset values of the control words.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub struct FloatState(pub [u8; 512]);

impl Default for FloatState {
    fn default() -> Self {
        let mut area = [0; 512];
        area[..2].copy_from_slice(&0x037F_u16.to_le_bytes());
        area[24..28].copy_from_slice(&0x1F80_u32.to_le_bytes());
        Self(area)
    }
}

/// The vCPU of one VMPL.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct Vcpu {
    /// Control block; page aligned because VMRUN takes its physical address.
    pub vmcb: Vmcb,
    /// Registers outside the control block.
    pub registers: GuestRegisters,
    /// x87 and SSE registers while another VMPL runs.
    pub float: FloatState,
    /// XCR0 while another VMPL runs.
    pub xcr0: u64,
    /// Level this vCPU runs at.
    pub vmpl: Vmpl,
    /// MSR 0xC001_0130 as the guest sees it.
    pub ghcb_msr: u64,
    /// GHCB the guest registered.
    pub registered_ghcb: Option<GuestPhysicalAddress>,
    /// VMSA page that was registered; the boot VMSA is never read again.
    pub vmsa: Option<GuestPhysicalAddress>,
    /// VMPL 0 of the boot CPU, whose state is always here.
    pub is_boot: bool,
    /// SEV_FEATURES of the VMSA.
    pub features: SevFeatures,
    /// #HV doorbell page.
    pub doorbell: Option<GuestPhysicalAddress>,
}

impl Vcpu {
    /// A vCPU without a guest.
    #[must_use]
    pub fn new(vmpl: Vmpl, maps: &PermissionMaps, pass_through: bool) -> Self {
        let mut vmcb = Vmcb::new_zeroed();
        let control = &mut vmcb.control;
        control.intercept_exceptions = intercept::INVALID_OPCODE;
        // CPUID is answered in every mode: the processor's own answer shows SVM.
        control.intercept_instructions =
            intercept::NMI | intercept::CPUID | intercept::MSR | intercept::SHUTDOWN;
        control.intercept_virtualization = intercept::VIRTUALIZATION;
        if !pass_through {
            control.intercept_instructions |=
                intercept::HLT | intercept::IOIO | intercept::RDPMC | intercept::INVD;
            control.intercept_virtualization |= intercept::CACHE_AND_WAIT;
        }
        control.io_map = maps.io_address();
        control.msr_map = maps.msr_address();
        control.asid = 1 + u32::from(vmpl.number());
        // Nothing is asked of the TLB (TLB_CONTROL = 0): the processor under this host keeps no translation across a world
        // switch, which loads CR3. To ask costs a flush more at each entry.
        control.nested_paging = 1;
        Self {
            vmcb,
            registers: GuestRegisters::default(),
            float: FloatState::default(),
            xcr0: 1,
            vmpl,
            ghcb_msr: 0,
            registered_ghcb: None,
            vmsa: None,
            is_boot: false,
            features: SevFeatures::new(),
            doorbell: None,
        }
    }

    /// Whether the guest runs with paging off, where every access is private.
    #[must_use]
    pub const fn is_unpaged(&self) -> bool {
        self.vmcb.save.cr0 & CR0_PAGING == 0
    }

    /// Takes over the state in `vmsa`.
    pub fn load(&mut self, vmsa: &Vmsa) {
        let common = vmsa.as_bytes().get(..COMMON_SAVE_BYTES).unwrap_or_default();
        if let Some(save) = self.vmcb.save.as_mut_bytes().get_mut(..COMMON_SAVE_BYTES) {
            save.copy_from_slice(common);
        }
        let save = &mut self.vmcb.save;
        let or_reset = |value: &mut u64, reset| {
            if *value == 0 {
                *value = reset;
            }
        };
        or_reset(&mut save.dr6, DR6_RESET);
        or_reset(&mut save.dr7, DR7_RESET);
        or_reset(&mut save.guest_pat, PAT_RESET);
        // VMRUN refuses a null TR; a launch VMSA may have one.
        if save.tr.attributes == 0 {
            save.tr.attributes = VmsaSegment::BUSY_TSS;
            save.ldtr.attributes = VmsaSegment::LDT;
        }
        self.registers = GuestRegisters {
            rbx: vmsa.rbx,
            rcx: vmsa.rcx,
            rdx: vmsa.rdx,
            rsi: vmsa.rsi,
            rdi: vmsa.rdi,
            rbp: vmsa.rbp,
            r8_to_r15: vmsa.r8_to_r15,
        };
        self.xcr0 = vmsa.xcr0 | 1;
        self.features = SevFeatures::from_bits(vmsa.sev_features);
        let control = &mut self.vmcb.control;
        control.event_injection = vmsa.event_injection;
        control.interrupt_shadow = 0;
        // A restricted-injection guest takes no interrupt: they wait until another VMPL runs.
        control.interrupt_control = if self.features.restricted_injection() {
            VIRTUAL_INTERRUPT_MASKING
        } else {
            0
        };
    }

    /// Writes the state back to `vmsa` with `exit_code`, as hardware does at an exit.
    pub fn store(&self, vmsa: &mut Vmsa, exit_code: u64) {
        let vmpl = vmsa.vmpl;
        let save = self
            .vmcb
            .save
            .as_bytes()
            .get(..COMMON_SAVE_BYTES)
            .unwrap_or_default();
        if let Some(common) = vmsa.as_mut_bytes().get_mut(..COMMON_SAVE_BYTES) {
            common.copy_from_slice(save);
        }
        vmsa.vmpl = vmpl;
        vmsa.rbx = self.registers.rbx;
        vmsa.rcx = self.registers.rcx;
        vmsa.rdx = self.registers.rdx;
        vmsa.rsi = self.registers.rsi;
        vmsa.rdi = self.registers.rdi;
        vmsa.rbp = self.registers.rbp;
        vmsa.r8_to_r15 = self.registers.r8_to_r15;
        vmsa.xcr0 = self.xcr0;
        vmsa.event_injection = 0;
        vmsa.exit_code = exit_code;
        vmsa.exit_info_1 = self.vmcb.control.exit_info_1;
        vmsa.exit_info_2 = self.vmcb.control.exit_info_2;
    }

    /// Whether EFER.SVME is set, without which VMRUN fails.
    #[must_use]
    pub const fn is_runnable(&self) -> bool {
        self.vmcb.save.efer & EFER_SVME != 0
    }

    /// Whether a #VMEXIT has written this host's own state here; `host_table` is the root of its page
    /// tables. Such a vCPU must not be entered: the guest would go on in the host's code.
    ///
    /// QEMU's processor does so when nested paging goes on behind #VMEXIT: the host's first instruction there is a nested
    /// fault at the host's page tables, and a second #VMEXIT. On QEMU's CPU 0 that happens
    /// (docs/DECISIONS.md, D21), which therefore runs no guest. GIF is 0 at that instruction and opens only in `take_nmi`,
    /// with interrupts off and outside of any guest, so nothing else leads there; the state is still compared after each
    /// run, before anything acts on it. A guest that loads this CR3 by itself has no memory there, and ends too.
    #[must_use]
    pub const fn holds_host_state(&self, host_table: u64) -> bool {
        let (save, address) = (&self.vmcb.save, !(PAGE_SIZE - 1));
        save.cr0 & CR0_PAGING != 0 && save.cr3 & address == host_table & address
    }

    /// The low half of the general-purpose register with this encoding (0 EAX, 1 ECX, … 7 EDI).
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a 32-bit operand")]
    pub const fn low_register(&self, encoding: u8) -> u32 {
        let (save, registers) = (&self.vmcb.save, &self.registers);
        (match encoding & 7 {
            0 => save.rax,
            1 => registers.rcx,
            2 => registers.rdx,
            3 => registers.rbx,
            4 => save.rsp,
            5 => registers.rbp,
            6 => registers.rsi,
            _ => registers.rdi,
        }) as u32
    }

    /// Ends the current instruction, `length` bytes long.
    pub const fn advance(&mut self, length: u64) {
        self.vmcb.save.rip = self.vmcb.save.rip.wrapping_add(length);
        self.vmcb.control.interrupt_shadow = 0;
    }
}

/// What ends a guest's wait: the first one that applies, and all behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WokenBy {
    /// An interrupt: it halted with interrupts on.
    Interrupt,
    /// An NMI: it halted with interrupts off.
    Nmi,
    /// Something registered on its CPU: it waits in a reset hold.
    Registration,
}

/// A CPU of the guest: one vCPU per VMPL, of which one runs.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// By VMPL.
    pub vcpus: [Vcpu; 4],
    /// The VMPL that runs.
    pub current: Vmpl,
    /// APIC id.
    pub apic_id: u32,
    /// The state of the VMPL that runs is in the processor and its control block; otherwise it is
    /// in its VMSA page, or there is none.
    pub is_resident: bool,
    /// The guest waits.
    pub is_halted: bool,
    /// What ends its wait.
    pub woken_by: WokenBy,
    /// Something was registered on this CPU since it last waited: the next wait ends at once.
    pub has_news: bool,
    /// An INVLPGB of everything waits for its TLBSYNC.
    pub began_flush: bool,
    /// The call that VMPL 0 serves on this CPU.
    pub served: Option<ServedCall>,
}

impl Cpu {
    /// A CPU whose VMPL 0 runs first.
    #[must_use]
    pub fn new(apic_id: u32, maps: &PermissionMaps, pass_through: bool) -> Self {
        let vcpus = Vmpl::ALL.map(|vmpl| Vcpu::new(vmpl, maps, pass_through));
        Self {
            vcpus,
            current: Vmpl::Vmpl0,
            apic_id,
            is_resident: false,
            is_halted: false,
            woken_by: WokenBy::Interrupt,
            has_news: false,
            began_flush: false,
            served: None,
        }
    }

    /// The VMPL that runs ran for so many ticks.
    pub fn ran(&mut self, ticks: u64) {
        if let Some(call) = self.served.as_mut().filter(|_| self.current == Vmpl::Vmpl0) {
            call.ran(ticks);
        }
    }

    /// The vCPU that runs.
    #[must_use]
    pub const fn vcpu(&self) -> &Vcpu {
        self.at(self.current)
    }

    /// The vCPU that runs.
    pub const fn vcpu_mut(&mut self) -> &mut Vcpu {
        self.at_mut(self.current)
    }

    /// The vCPU of `vmpl`.
    #[must_use]
    pub const fn at(&self, vmpl: Vmpl) -> &Vcpu {
        let [vmpl0, vmpl1, vmpl2, vmpl3] = &self.vcpus;
        match vmpl {
            Vmpl::Vmpl0 => vmpl0,
            Vmpl::Vmpl1 => vmpl1,
            Vmpl::Vmpl2 => vmpl2,
            Vmpl::Vmpl3 => vmpl3,
        }
    }

    /// The vCPU of `vmpl`.
    pub const fn at_mut(&mut self, vmpl: Vmpl) -> &mut Vcpu {
        let [vmpl0, vmpl1, vmpl2, vmpl3] = &mut self.vcpus;
        match vmpl {
            Vmpl::Vmpl0 => vmpl0,
            Vmpl::Vmpl1 => vmpl1,
            Vmpl::Vmpl2 => vmpl2,
            Vmpl::Vmpl3 => vmpl3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vmsa_survives_load_and_store() {
        let maps = PermissionMaps::new(false);
        let mut vcpu = Vcpu::new(Vmpl::Vmpl2, &maps, false);
        let mut vmsa = Vmsa::new_zeroed();
        vmsa.vmpl = 2;
        vmsa.efer = EFER_SVME;
        vmsa.rip = 0x1234;
        vmsa.rax = 1;
        vmsa.r8_to_r15 = [8, 9, 10, 11, 12, 13, 14, 15];
        vmsa.xcr0 = 7;
        vmsa.sev_features = 0x9;
        vcpu.load(&vmsa);
        assert!(vcpu.is_runnable() && vcpu.is_unpaged());
        assert_eq!(
            vcpu.vmcb.control.interrupt_control,
            VIRTUAL_INTERRUPT_MASKING
        );
        assert_eq!(vcpu.vmcb.save.tr.attributes, VmsaSegment::BUSY_TSS);
        vcpu.vmcb.save.rax = 2;
        // A VMCB has no VMPL: what lies there after a run is not the guest's level.
        vcpu.vmcb.save.reserved_0a0 = [0; 0x2B];
        let mut stored = Vmsa::new_zeroed();
        stored.vmpl = 2;
        vcpu.store(&mut stored, 0x403);
        assert_eq!(
            (stored.vmpl, stored.rip, stored.rax, stored.xcr0),
            (2, 0x1234, 2, 7)
        );
        assert_eq!(stored.r8_to_r15, vmsa.r8_to_r15);
        assert_eq!(stored.exit_code, 0x403);
    }

    #[test]
    fn host_state_is_told_by_its_page_tables() {
        const HOST: u64 = 0x781E_C000;
        let maps = PermissionMaps::new(false);
        let mut vcpu = Vcpu::new(Vmpl::Vmpl2, &maps, false);
        (vcpu.vmcb.save.cr0, vcpu.vmcb.save.cr3) = (CR0_PAGING, HOST | 0x18);
        assert!(vcpu.holds_host_state(HOST));
        vcpu.vmcb.save.cr3 = HOST + 0x1000;
        assert!(!vcpu.holds_host_state(HOST));
        // The C-bit makes it another address; without paging CR3 means nothing.
        vcpu.vmcb.save.cr3 = HOST | 1 << 51;
        assert!(!vcpu.holds_host_state(HOST));
        (vcpu.vmcb.save.cr0, vcpu.vmcb.save.cr3) = (0, HOST);
        assert!(!vcpu.holds_host_state(HOST));
    }

    #[test]
    fn the_strict_machine_intercepts_io_and_halt() {
        let maps = PermissionMaps::new(false);
        let both = intercept::IOIO | intercept::HLT;
        let strict = Vcpu::new(Vmpl::Vmpl0, &maps, false);
        assert_eq!(strict.vmcb.control.intercept_instructions & both, both);
        let lax = Vcpu::new(Vmpl::Vmpl0, &maps, true);
        assert_eq!(lax.vmcb.control.intercept_instructions & both, 0);
    }
}
