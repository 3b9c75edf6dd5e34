// SPDX-License-Identifier: MIT OR Apache-2.0
//! What belongs to one processor: GHCB, doorbell, a VMSA, descriptor tables, stacks.
//!
//! There is one context for each processor that can be served, all in the image. GS points to that of
//! the processor that runs, so nothing here is shared but the array.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

use paravisor::guest_vmsa::usable_page;
use paravisor::layout::{PAGE_BYTES, PageBytes};
use paravisor::range_list::PhysRange;
use paravisor::vcpu_table::MAX_VCPUS;
use snp::address::GuestPhysicalAddress;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

use super::exceptions::DescriptorTables;
use super::host_page::HostPage;
use super::symbols;

/// Bytes of an ordinary stack.
const STACK_BYTES: u64 = 0x1_0000;
/// Bytes of a stack for double faults.
const FAULT_STACK_BYTES: u64 = PAGE_BYTES;
/// Bytes of the stacks of one processor. Below each of them lies a guard page, never mapped: an
/// overflow faults instead of overwriting something.
const STACKS_BYTES: u64 = 2 * PAGE_BYTES + STACK_BYTES + FAULT_STACK_BYTES;
/// Offset of the boot processor's stack, for the entry code.
pub const BOOT_STACK: u64 = PAGE_BYTES;
/// Offset of the first byte above it.
pub const BOOT_STACK_TOP: u64 = BOOT_STACK + STACK_BYTES;
/// Offset of the boot processor's stack for double faults.
pub const BOOT_FAULT_STACK: u64 = BOOT_STACK_TOP + PAGE_BYTES;
/// Offset of the first byte above it.
pub const BOOT_FAULT_STACK_TOP: u64 = BOOT_FAULT_STACK + FAULT_STACK_BYTES;

global_asm!(
    r#"
    .pushsection .stacks, "aw", @nobits
    .balign 4096
    .global __processor_stacks
__processor_stacks:
    .skip {bytes}
    .popsection
    "#,
    bytes = const STACKS_BYTES * MAX_VCPUS as u64,
);

/// What belongs to one processor.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Processor {
    /// Which one it is; first, because code reads it through GS.
    number: AtomicU32,
    /// Segments and task state.
    pub tables: DescriptorTables,
    /// The GHCB.
    pub ghcb: HostPage,
    /// The #HV doorbell.
    pub doorbell: HostPage,
    vmsa: VmsaPages,
}

/// Two pages, since a VMSA must not be 2 MiB aligned.
#[derive(Debug)]
#[repr(C, align(4096))]
struct VmsaPages(UnsafeCell<[PageBytes; 2]>);

// SAFETY: The pages are only accessed by address, through the routines for guest memory; the
// processor itself writes to them while the vCPU runs.
unsafe impl Sync for VmsaPages {}

/// All zero, so that the array takes no room in the image file.
static PROCESSORS: [Processor; MAX_VCPUS as usize] =
    [const { Processor::new() }; MAX_VCPUS as usize];

impl Processor {
    const fn new() -> Self {
        Self {
            number: AtomicU32::new(0),
            tables: DescriptorTables::new(),
            ghcb: HostPage::new(),
            doorbell: HostPage::new(),
            vmsa: VmsaPages(UnsafeCell::new([[0; size_of::<PageBytes>()]; 2])),
        }
    }

    /// Its number, by the list of APIC identifiers.
    pub fn number(&self) -> u32 {
        self.number.load(Ordering::Relaxed)
    }

    /// Gives the context to the processor with this number, before it starts.
    pub fn assign(&self, number: u32) {
        self.number.store(number, Ordering::Relaxed);
    }

    /// The page for a VMSA that we make for this processor: on the boot processor that of the guest's
    /// boot vCPU, on the others the one VMPL0 starts with.
    pub fn vmsa_page(&self) -> GuestPhysicalAddress {
        GuestPhysicalAddress::new(usable_page(self.vmsa.0.get().expose_provenance() as u64))
    }

    /// Where GS points.
    pub fn gs_base(&self) -> u64 {
        core::ptr::from_ref(self).expose_provenance() as u64
    }
}

/// The context for a processor number; `None` beyond those that can be served.
pub fn of(number: u32) -> Option<&'static Processor> {
    PROCESSORS.get(usize::try_from(number).ok()?)
}

/// The contexts of the first `count` processors.
pub fn first(count: u32) -> &'static [Processor] {
    usize::try_from(count)
        .ok()
        .and_then(|count| PROCESSORS.get(..count))
        .unwrap_or(&PROCESSORS)
}

/// The stack of the processor `number` and the one for its double faults.
pub fn stacks(number: u32) -> [PhysRange; 2] {
    let start = symbols::processor_stacks() + u64::from(number) * STACKS_BYTES + PAGE_BYTES;
    let end = start + STACK_BYTES;
    let fault_start = end + PAGE_BYTES;
    [
        PhysRange { start, end },
        PhysRange {
            start: fault_start,
            end: fault_start + FAULT_STACK_BYTES,
        },
    ]
}

/// Makes the first context that of the boot processor. Before this, [`current`] must not be called.
pub fn install_boot() {
    let [boot, ..] = &PROCESSORS;
    GsBase::write(VirtAddr::new_truncate(boot.gs_base()));
}

/// Waits until the host has something new for this processor, or not at all: it decides. HLT leaves for
/// the host by itself (an automatic exit); it is no event of the GHCB.
pub fn halt() {
    x86_64::instructions::hlt();
}

/// The processor that runs this code.
pub fn current() -> &'static Processor {
    let number: u32;
    // SAFETY: GS points to an element of the array: on the boot processor since `install_boot`, on the
    // others from their first instruction on. The field is read only.
    unsafe {
        asm!("mov {:e}, dword ptr gs:[0]", out(reg) number,
            options(nostack, preserves_flags, readonly));
    }
    let [boot, ..] = &PROCESSORS;
    of(number).unwrap_or(boot)
}
