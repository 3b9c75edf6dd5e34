// SPDX-License-Identifier: MIT OR Apache-2.0
//! What belongs to one processor: GHCB, doorbell, a VMSA, descriptor tables, stacks.
//!
//! The boot processor's are in the image, those of the others in memory that boot carves out for as many as
//! there are. GS points to the context of the processor that runs, so nothing here is shared.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

use paravisor::acceptance::OwnMemory;
use paravisor::guest_vmsa::usable_page;
use paravisor::identity_map::Table;
use paravisor::layout::{PAGE_BYTES, PageBytes};
use paravisor::processor_memory::{
    CONTEXT_BYTES, FAULT_STACK_BYTES, ProcessorMemory, STACK_BYTES, STACKS_BYTES, stacks_at,
};
use paravisor::range_list::PhysRange;
use paravisor::termination::Reason;
use paravisor::vcpu_table::{VcpuSlot, VcpuTable};
use snp::address::GuestPhysicalAddress;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

use super::exceptions::DescriptorTables;
use super::host_page::HostPage;
use super::{launched, symbols};

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
    .global __boot_stacks
__boot_stacks:
    .skip {bytes}
    .popsection
    "#,
    bytes = const STACKS_BYTES,
);

/// What belongs to one processor.
#[derive(Debug)]
#[repr(C, align(512))]
pub struct Processor {
    /// Which one it is; first, because code reads it through GS.
    number: u32,
    /// Segments and task state.
    pub tables: DescriptorTables,
    /// The GHCB.
    pub ghcb: &'static HostPage,
    /// The #HV doorbell.
    pub doorbell: &'static HostPage,
    /// Where the VMSA is that the processor starts with at VMPL0, and its stacks; 0 on the boot processor.
    vmsa: u64,
    stack_end: u64,
    fault_stack_end: u64,
}

const _: () = assert!(size_of::<Processor>() as u64 == CONTEXT_BYTES);

/// Two pages, since a VMSA must not be 2 MiB aligned.
#[derive(Debug)]
#[repr(C, align(4096))]
struct VmsaPages(UnsafeCell<[PageBytes; 2]>);

// SAFETY: The pages are only accessed by address, through the routines for guest memory; the
// processor itself writes to them while the vCPU runs.
unsafe impl Sync for VmsaPages {}

static BOOT_GHCB: HostPage = HostPage::new();
/// Without restricted injection that of all processors: then nobody rings.
static BOOT_DOORBELL: HostPage = HostPage::new();
static BOOT: Processor = Processor {
    number: 0,
    tables: DescriptorTables::new(),
    ghcb: &BOOT_GHCB,
    doorbell: &BOOT_DOORBELL,
    vmsa: 0,
    stack_end: 0,
    fault_stack_end: 0,
};
/// For the VMSA of the guest's boot vCPU.
static BOOT_VMSA: VmsaPages = VmsaPages(UnsafeCell::new([[0; size_of::<PageBytes>()]; 2]));
/// The others, by number from 1 on.
static OTHERS: Once<&'static [Processor]> = Once::new();

impl Processor {
    /// The context of a processor that has its part of `memory`.
    ///
    /// # Errors
    /// [`Reason::StorageInvalid`] when it has none.
    fn new(memory: &ProcessorMemory, number: u32) -> Result<Self, Reason> {
        let place = u64::from(number);
        let [stack, fault_stack] = memory.stacks(place);
        let host_page = |page| HostPage::of(memory, page).ok_or(Reason::StorageInvalid);
        Ok(Self {
            number,
            tables: DescriptorTables::new(),
            ghcb: host_page(memory.ghcb(place))?,
            doorbell: match memory.doorbell(place) {
                Some(page) => host_page(page)?,
                None => &BOOT_DOORBELL,
            },
            vmsa: memory.vmsa(place),
            stack_end: stack.end,
            fault_stack_end: fault_stack.end,
        })
    }

    /// Its number, by the list of APIC identifiers.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The page for the VMSA with which VMPL0 starts on it; it is not the boot processor.
    pub fn vmsa_page(&self) -> GuestPhysicalAddress {
        GuestPhysicalAddress::new(self.vmsa)
    }

    /// First byte above the stack that it starts with.
    pub fn stack_end(&self) -> u64 {
        self.stack_end
    }

    /// First byte above its stack for double faults.
    pub fn fault_stack_end(&self) -> u64 {
        match self.number {
            0 => boot_stacks()[1].end,
            _ => self.fault_stack_end,
        }
    }

    /// Where GS points.
    pub fn gs_base(&self) -> u64 {
        core::ptr::from_ref(self).expose_provenance() as u64
    }
}

/// The page for the VMSA of the guest's boot vCPU.
pub fn boot_vmsa_page() -> GuestPhysicalAddress {
    GuestPhysicalAddress::new(usable_page(BOOT_VMSA.0.get().expose_provenance() as u64))
}

/// The context for a processor number; `None` for one that has none.
pub fn of(number: u32) -> Option<&'static Processor> {
    match number.checked_sub(1) {
        None => Some(&BOOT),
        Some(other) => OTHERS.get()?.get(usize::try_from(other).ok()?),
    }
}

/// The stack of the boot processor and the one for its double faults.
pub fn boot_stacks() -> [PhysRange; 2] {
    stacks_at(symbols::boot_stacks())
}

/// What boot makes of the processors' memory.
#[derive(Debug)]
pub struct Carved {
    /// The table of vCPUs.
    pub vcpus: VcpuTable<'static>,
    /// Page tables.
    pub tables: &'static mut [Table],
}

/// Makes the contexts of all processors but this one. `memory` is all that was validated for the storage
/// from the first byte of `plan` on. Called once.
///
/// # Errors
/// [`Reason::StorageInvalid`] when the memory is not what the plan says.
pub fn carve(plan: &ProcessorMemory, memory: OwnMemory) -> Result<Carved, Reason> {
    let count = |number: u64| u32::try_from(number).map_err(|_| Reason::StorageInvalid);
    let processors = count(plan.others() + 1)?;
    let (tables, memory) = memory.split(plan.slots().start)?;
    let (slots, memory) = memory.split(plan.contexts().start)?;
    let (contexts, _) = memory.split(plan.contexts().end)?;
    let table_count = count(plan.tables().bytes() / PAGE_BYTES)?;
    let tables = launched::array(tables, (0..table_count).map(|_| Ok(Table::EMPTY)))?;
    let slots = launched::array(slots, (0..processors).map(|_| Ok(VcpuSlot::default())))?;
    let context = |number| Processor::new(plan, number);
    let contexts = launched::array(contexts, (1..processors).map(context))?;
    OTHERS.call_once(|| contexts);
    Ok(Carved {
        vcpus: VcpuTable::new(slots),
        tables,
    })
}

/// Makes the image's context that of the boot processor. Before this, [`current`] must not be called.
pub fn install_boot() {
    GsBase::write(VirtAddr::new_truncate(BOOT.gs_base()));
}

/// Waits until the host has something new for this processor, or not at all: it decides. HLT leaves for
/// the host by itself (an automatic exit); it is no event of the GHCB.
pub fn halt() {
    x86_64::instructions::hlt();
}

/// The processor that runs this code.
pub fn current() -> &'static Processor {
    let number: u32;
    // SAFETY: GS points to a context: on the boot processor since `install_boot`, on the others from their
    // first instruction on. The field is read only.
    unsafe {
        asm!("mov {:e}, dword ptr gs:[0]", out(reg) number,
            options(nostack, preserves_flags, readonly));
    }
    of(number).unwrap_or(&BOOT)
}
