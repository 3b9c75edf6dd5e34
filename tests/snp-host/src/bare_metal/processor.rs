// SPDX-License-Identifier: MIT OR Apache-2.0
//! SVM and the world switch (APM volume 2, chapter 15).

use core::arch::{asm, global_asm, x86_64::__cpuid_count, x86_64::_rdtsc};
use core::mem::offset_of;
use core::ptr;

use snp_host::hardware::Processor;
use snp_host::launch::CPU_SLOTS;
use snp_host::vcpu::{GuestRegisters, Vcpu};
use snp_host::vmcb::Vmcb;
use x86_64::registers::control::{Cr3, Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

use super::BareMetal;

global_asm!(include_str!("world_switch.S"));

const _: () = {
    assert!(offset_of!(GuestRegisters, rsi) == 24);
    assert!(offset_of!(GuestRegisters, rbp) == 40);
    assert!(offset_of!(GuestRegisters, r8_to_r15) == 48);
};

/// VM_HSAVE_PA: where VMRUN keeps the host's state.
const HOST_SAVE_AREA_MSR: u32 = 0xC001_0117;

#[repr(C, align(4096))]
struct HostSaveArea([u8; 4096]);

static mut HOST_SAVE_AREAS: [HostSaveArea; CPU_SLOTS] =
    [const { HostSaveArea([0; 4096]) }; CPU_SLOTS];

unsafe extern "sysv64" {
    fn enter_guest(vmcb: *mut Vmcb, registers: *mut GuestRegisters);
}

/// Gives processor `cpu`, which runs this, its host save area and clears the global interrupt flag:
/// interrupts are for the guest. It is set for a moment only, to take an NMI ([`take_nmi`]).
pub fn enable_svm(cpu: u32) {
    let areas = (&raw mut HOST_SAVE_AREAS).addr();
    let area = (areas + cpu as usize * size_of::<HostSaveArea>()) as u64;
    // SAFETY: EFER.SVME is set by the boot code; the area is used by nothing but VMRUN.
    unsafe {
        Msr::new(HOST_SAVE_AREA_MSR).write(area);
        asm!("clgi", options(nomem, nostack));
    }
}

/// Root of this host's page tables.
pub fn host_table() -> u64 {
    Cr3::read_raw().0.start_address().as_u64()
}

/// Takes the NMI that ended a guest's run and is still pending: it would end every other run too.
pub fn take_nmi() {
    // SAFETY: with the interrupt flag clear only NMI comes, whose handler does nothing.
    unsafe { asm!("stgi", "nop", "nop", "clgi") };
}

/// Gives this host the guest's bits of CR4 whose change flushes the TLB of QEMU's processor, so that neither entry nor exit
/// changes them: two flushes of six less for each exit. To this host they mean nothing: its pages are the supervisor's, and
/// none is global.
fn match_guest(guest: u64) {
    const FLUSHING: Cr4Flags = Cr4Flags::PAGE_SIZE_EXTENSION
        .union(Cr4Flags::PAGE_GLOBAL)
        .union(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION)
        .union(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION);
    let own = Cr4::read_raw();
    let matched = own & !FLUSHING.bits() | guest & FLUSHING.bits();
    if matched != own {
        // SAFETY: the guest runs with these bits, so the processor has them; what else is in CR4 stays.
        unsafe { Cr4::write_raw(matched) };
    }
}

impl Processor for BareMetal {
    fn timestamp(&self) -> u64 {
        // SAFETY: every 64-bit processor has RDTSC.
        unsafe { _rdtsc() }
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let answer = __cpuid_count(leaf, subleaf);
        [answer.eax, answer.ebx, answer.ecx, answer.edx]
    }

    fn enter(&self, vcpu: &mut Vcpu) {
        match_guest(vcpu.vmcb.save.cr4);
        // SAFETY: the VMCB is page aligned and identity mapped; its nested tables reach guest
        // views and, at most, device memory, never this host. Both pointers stay exclusive.
        unsafe { enter_guest(&raw mut vcpu.vmcb, &raw mut vcpu.registers) };
    }

    fn store_hidden(&self, vcpu: &mut Vcpu) {
        // SAFETY: VMSAVE writes the VMCB at the physical, and so linear, address in RAX.
        unsafe { asm!("vmsave rax", in("rax") ptr::from_mut(&mut vcpu.vmcb), options(nostack)) };
    }

    fn save_context(&self, vcpu: &mut Vcpu) {
        self.store_hidden(vcpu);
        let (low, high): (u32, u32);
        // SAFETY: the host is built without x87 and SSE, so these registers are the guest's; the
        // area is 512 bytes and 16-byte aligned; CR4.OSXSAVE is set.
        unsafe {
            asm!("fxsave64 [{}]", in(reg) ptr::from_mut(&mut vcpu.float), options(nostack));
            asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack));
        }
        vcpu.xcr0 = u64::from(low) | (u64::from(high) << 32);
    }

    fn load_context(&self, vcpu: &mut Vcpu) {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        let (low, high) = (vcpu.xcr0 as u32, (vcpu.xcr0 >> 32) as u32);
        // SAFETY: as for `save_context`; VMLOAD reads the VMCB. An XCR0 the processor refuses
        // faults here, which ends the run with a report.
        unsafe {
            asm!("vmload rax", in("rax") ptr::from_mut(&mut vcpu.vmcb), options(nostack));
            asm!("xsetbv", in("ecx") 0, in("eax") low, in("edx") high, options(nomem, nostack));
            asm!("fxrstor64 [{}]", in(reg) ptr::from_mut(&mut vcpu.float), options(nostack));
        }
    }
}
