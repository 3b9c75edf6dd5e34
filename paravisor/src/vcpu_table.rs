// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's vCPUs: which VMSA and which calling area belong together.
//!
//! Lock-free: a slot is claimed by a compare-and-swap of its VMSA word, and its calling area is
//! changed only by the vCPU it belongs to, or while the VMSA page's state word is held.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use snp::address::GuestPhysicalAddress;

/// Most vCPUs, the boot vCPU among them.
pub const MAX_VCPUS: u32 = 64;
/// A slot without a vCPU; page 0 is never a VMSA of ours.
const FREE: u64 = 0;

/// A slot of the table.
#[derive(Debug)]
struct Slot {
    vmsa: AtomicU64,
    calling_area: AtomicU64,
    apic_id: AtomicU32,
}

/// Index of a vCPU in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VcpuIndex(usize);

/// All vCPUs of the guest.
#[derive(Debug)]
pub struct VcpuTable {
    slots: [Slot; MAX_VCPUS as usize],
}

impl VcpuTable {
    /// A table without vCPUs.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            slots: [const {
                Slot {
                    vmsa: AtomicU64::new(FREE),
                    calling_area: AtomicU64::new(FREE),
                    apic_id: AtomicU32::new(0),
                }
            }; MAX_VCPUS as usize],
        }
    }

    /// Adds a vCPU; `None` when the table is full.
    pub fn add(
        &self,
        vmsa: GuestPhysicalAddress,
        calling_area: GuestPhysicalAddress,
        apic_id: u32,
    ) -> Option<VcpuIndex> {
        let claim = |slot: &Slot| {
            let (new, order) = (vmsa.bits(), Ordering::AcqRel);
            slot.vmsa
                .compare_exchange(FREE, new, order, Ordering::Relaxed)
                .is_ok()
        };
        let index = self.slots.iter().position(claim)?;
        let slot = self.slots.get(index)?;
        slot.calling_area
            .store(calling_area.bits(), Ordering::Release);
        slot.apic_id.store(apic_id, Ordering::Release);
        Some(VcpuIndex(index))
    }

    /// Finds the vCPU that runs on `vmsa`.
    #[must_use]
    pub fn find(&self, vmsa: GuestPhysicalAddress) -> Option<VcpuIndex> {
        let is_it = |slot: &Slot| slot.vmsa.load(Ordering::Acquire) == vmsa.bits();
        (vmsa.bits() != FREE).then(|| self.slots.iter().position(is_it).map(VcpuIndex))?
    }

    /// Removes a vCPU and gives its calling area.
    pub fn remove(&self, vcpu: VcpuIndex) -> Option<GuestPhysicalAddress> {
        let area = self.calling_area(vcpu)?;
        self.slots.get(vcpu.0)?.vmsa.store(FREE, Ordering::Release);
        Some(area)
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

impl Default for VcpuTable {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{GuestPhysicalAddress, MAX_VCPUS, VcpuTable};

    fn page(number: u64) -> GuestPhysicalAddress {
        GuestPhysicalAddress::new(number * 4096)
    }

    #[test]
    fn vcpus_come_and_go() {
        let table = VcpuTable::new();
        let first = table.add(page(1), page(2), 0).unwrap();
        let second = table.add(page(3), page(4), 1).unwrap();
        assert_ne!(first, second);
        assert_eq!(table.find(page(3)), Some(second));
        table.set_calling_area(second, page(5));
        assert_eq!(table.remove(second), Some(page(5)));
        assert_eq!(table.find(page(3)), None);
        assert_eq!(table.find(page(0)), None, "a free slot is nobody's");
        assert_eq!(table.calling_area(first), Some(page(2)));
    }

    #[test]
    fn a_full_table_takes_no_more() {
        let table = VcpuTable::new();
        for number in 1..=u64::from(MAX_VCPUS) {
            assert!(table.add(page(number), page(0), 0).is_some());
        }
        assert!(table.add(page(1000), page(0), 0).is_none());
    }
}
