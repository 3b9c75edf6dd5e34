// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's vCPUs: which VMSA and which calling area belong together.
//!
//! There is one slot per processor number ([`crate::apic_ids`]), so that no processor ever has two VMSAs: the TLB flush and
//! the run loop rely on it. A vCPU leaves its slot only when its page is no VMSA any more. Lock-free: a slot is claimed by a compare-and-swap of its VMSA word. What
//! belongs to a vCPU whose VMSA is a page of the guest changes only while that page's state word is
//! held, which [`VcpuTable::seat`] takes for the processor that runs it.

#[cfg(not(loom))]
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use snp::address::GuestPhysicalAddress;
use svsm_swiotlb::page_state::{HeldPages, HoldError, PageState, PageStates};

/// A slot without a vCPU; page 0 is never a VMSA of ours.
const FREE: u64 = 0;
/// A slot whose vCPU is being made; no page address.
const RESERVED: u64 = 1;

/// The place of a processor in the table.
#[derive(Debug, Default)]
pub struct VcpuSlot {
    vmsa: AtomicU64,
    calling_area: AtomicU64,
    /// VMSA page of the vCPU that the present one has replaced, which the guest may still delete.
    replaced: AtomicU64,
    /// VMPL0 runs on this processor; written only by who has reserved the slot.
    served: AtomicBool,
}

/// Index of a vCPU in the table: its processor's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VcpuIndex(usize);

/// What a processor finds when it wants the VMSA of its vCPU.
#[derive(Debug)]
pub enum Seat<'s> {
    /// The VMSA page, and its state word.
    Taken(GuestPhysicalAddress, HeldPages<'s>),
    /// Another processor has the word: CREATE_VCPU or DELETE_VCPU is at it.
    Busy,
    /// The processor has no vCPU.
    Vacant,
}

/// All vCPUs of the guest, by processor number.
#[derive(Debug, Clone, Copy)]
pub struct VcpuTable<'a> {
    slots: &'a [VcpuSlot],
}

impl<'a> VcpuTable<'a> {
    /// A table with a slot for each processor; fresh ones have no vCPU.
    #[must_use]
    pub const fn new(slots: &'a [VcpuSlot]) -> Self {
        Self { slots }
    }

    /// Claims the slot of a processor; `None` when it has a vCPU, or one is being made, or the number
    /// is beyond the table.
    #[must_use]
    pub fn reserve(&self, number: u32) -> Option<Reservation<'a>> {
        self.claim(usize::try_from(number).ok()?, FREE)
    }

    fn claim(&self, index: usize, found: u64) -> Option<Reservation<'a>> {
        let slot = self.slots.get(index)?;
        slot.vmsa
            .compare_exchange(found, RESERVED, Ordering::AcqRel, Ordering::Relaxed)
            .ok()?;
        Some(Reservation { slot, index })
    }

    /// The place of a processor, with a vCPU or without; `None` beyond the table.
    #[must_use]
    pub fn place(&self, number: u32) -> Option<VcpuIndex> {
        let index = usize::try_from(number).ok()?;
        self.slots.get(index).map(|_| VcpuIndex(index))
    }

    /// Takes the VMSA page of a vCPU that CREATE_VCPU made. Until the word is given back no other
    /// processor deletes the vCPU.
    pub fn seat<'s>(&self, vcpu: VcpuIndex, states: &PageStates<'s>) -> Seat<'s> {
        let Some(page) = self.vmsa(vcpu) else {
            return Seat::Vacant;
        };
        match states.hold(page, &[PageState::Vmsa]) {
            // Between the two steps the vCPU may have been deleted, and the page made another's.
            Ok(held) if self.vmsa(vcpu) != Some(page) => {
                held.keep();
                Seat::Vacant
            }
            Ok(held) => Seat::Taken(page, held),
            Err(HoldError::Busy) => Seat::Busy,
            Err(_) => Seat::Vacant,
        }
    }

    /// The VMSA of a vCPU.
    pub(crate) fn vmsa(&self, vcpu: VcpuIndex) -> Option<GuestPhysicalAddress> {
        let bits = self.slots.get(vcpu.0)?.vmsa.load(Ordering::Acquire);
        (bits != FREE && bits != RESERVED).then_some(GuestPhysicalAddress::new(bits))
    }

    /// Finds the vCPU that runs on `vmsa`.
    #[must_use]
    pub fn find(&self, vmsa: GuestPhysicalAddress) -> Option<VcpuIndex> {
        let is_it = |slot: &VcpuSlot| slot.vmsa.load(Ordering::Acquire) == vmsa.bits();
        (vmsa.bits() != FREE).then(|| self.slots.iter().position(is_it).map(VcpuIndex))?
    }

    /// Removes the vCPU that runs on `vmsa`, whose word the caller holds, and claims its slot.
    #[must_use]
    pub fn vacate(&self, vcpu: VcpuIndex, vmsa: GuestPhysicalAddress) -> Option<Reservation<'a>> {
        self.claim(vcpu.0, vmsa.bits())
    }

    /// Whether a vCPU on `vmsa` was replaced and not asked about since.
    pub fn forget_replaced(&self, vmsa: GuestPhysicalAddress) -> bool {
        let forget = |slot: &VcpuSlot| {
            let replaced = &slot.replaced;
            replaced
                .compare_exchange(vmsa.bits(), FREE, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        vmsa.bits() != FREE && self.slots.iter().any(forget)
    }

    /// The calling area of a vCPU.
    #[must_use]
    pub fn calling_area(&self, vcpu: VcpuIndex) -> Option<GuestPhysicalAddress> {
        let slot = self.slots.get(vcpu.0)?;
        Some(GuestPhysicalAddress::new(
            slot.calling_area.load(Ordering::Acquire),
        ))
    }

    /// Moves the calling area of a vCPU.
    pub fn set_calling_area(&self, vcpu: VcpuIndex, area: GuestPhysicalAddress) {
        if let Some(slot) = self.slots.get(vcpu.0) {
            slot.calling_area.store(area.bits(), Ordering::Release);
        }
    }
}

/// A claimed slot. Dropping it leaves the slot free.
#[derive(Debug)]
pub struct Reservation<'a> {
    slot: &'a VcpuSlot,
    index: usize,
}

impl Reservation<'_> {
    /// Whether VMPL0 runs on the processor.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.slot.served.load(Ordering::Acquire)
    }

    /// Notes that it does, from now on for good.
    pub fn set_served(&self) {
        self.slot.served.store(true, Ordering::Release);
    }

    /// Notes whose place this was.
    pub fn set_replaced(&self, vmsa: GuestPhysicalAddress) {
        self.slot.replaced.store(vmsa.bits(), Ordering::Release);
    }

    /// Makes the slot that of the vCPU which runs on `vmsa`.
    pub fn fill(self, vmsa: GuestPhysicalAddress, calling_area: GuestPhysicalAddress) -> VcpuIndex {
        let area = &self.slot.calling_area;
        area.store(calling_area.bits(), Ordering::Release);
        self.slot.vmsa.store(vmsa.bits(), Ordering::Release);
        VcpuIndex(self.index)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        // A slot that was filled is no longer marked, and stays.
        let _ =
            self.slot
                .vmsa
                .compare_exchange(RESERVED, FREE, Ordering::AcqRel, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{GuestPhysicalAddress, VcpuIndex, VcpuSlot, VcpuTable};

    fn page(number: u64) -> GuestPhysicalAddress {
        GuestPhysicalAddress::new(number * 4096)
    }

    fn add(table: &VcpuTable<'_>, vmsa: u64, area: u64, number: u32) -> Option<VcpuIndex> {
        Some(table.reserve(number)?.fill(page(vmsa), page(area)))
    }

    #[test]
    fn vcpus_come_and_go() {
        let slots: [VcpuSlot; 2] = Default::default();
        let table = VcpuTable::new(&slots);
        let first = add(&table, 1, 2, 0).unwrap();
        let second = add(&table, 3, 4, 1).unwrap();
        assert_ne!(first, second);
        assert_eq!(table.find(page(3)), Some(second));
        table.set_calling_area(second, page(5));
        assert_eq!(table.calling_area(second), Some(page(5)));
        assert!(table.vacate(second, page(1)).is_none(), "another's page");
        drop(table.vacate(second, page(3)).unwrap());
        assert_eq!(table.find(page(3)), None);
        assert_eq!(table.find(page(0)), None, "a free slot is nobody's");
        assert_eq!(table.calling_area(first), Some(page(2)));
        assert_eq!(add(&table, 6, 7, 1), Some(second), "the slot is free again");
    }

    #[test]
    fn a_processor_has_at_most_one_vcpu() {
        let slots: [VcpuSlot; 2] = Default::default();
        let table = VcpuTable::new(&slots);
        let reserved = table.reserve(1).unwrap();
        assert_eq!(add(&table, 3, 4, 1), None, "in the making");
        drop(reserved);
        assert!(add(&table, 3, 4, 1).is_some());
        assert_eq!(add(&table, 5, 6, 1), None);
        assert_eq!(add(&table, 5, 6, 2), None, "beyond the table");
    }

    #[test]
    fn five_hundred_and_twelve_processors_have_a_place_each() {
        let slots: Vec<VcpuSlot> = (0..512).map(|_| VcpuSlot::default()).collect();
        let table = VcpuTable::new(&slots);
        for number in 0..512 {
            let vmsa = 2 * u64::from(number) + 2;
            assert_eq!(add(&table, vmsa, vmsa + 1, number), table.place(number));
        }
        for number in 0..512 {
            let vmsa = page(2 * u64::from(number) + 2);
            let vcpu = table.find(vmsa).unwrap();
            assert_eq!(table.place(number), Some(vcpu));
            table.vacate(vcpu, vmsa).unwrap().set_replaced(vmsa);
        }
        for number in 0..512 {
            let vmsa = page(2 * number + 2);
            assert!(table.forget_replaced(vmsa) && !table.forget_replaced(vmsa));
        }
        assert_eq!(table.place(512), None);
    }
}
