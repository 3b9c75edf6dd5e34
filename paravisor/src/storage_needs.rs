// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much memory boot carves out for this machine, and what lies where in it: the state of the service, the list of the
//! ranges that are tracked, the processors'.

use svsm_swiotlb::page_state::RamRange;
use svsm_swiotlb::storage::storage_bytes;

use crate::boot_block::BootBlock;
use crate::boot_plan::with_firmware;
use crate::identity_map::scattered_tables;
use crate::layout::PAGE_BYTES;
use crate::processor_memory::{ProcessorMemory, ProcessorNeeds};
use crate::range_list::PhysRange;

/// What a machine needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageNeeds {
    service: u64,
    ram_list: u64,
    processors: ProcessorNeeds,
}

impl StorageNeeds {
    /// For the image of `block`, RAM by address, and so many processors. Image and runner decide by this one function.
    #[must_use]
    pub fn of(
        block: &BootBlock,
        ram: impl Iterator<Item = PhysRange> + Clone,
        processors: u32,
    ) -> Self {
        let tracked = with_firmware(ram, block.firmware());
        let bytes = (tracked.clone()).fold(0_u64, |sum, range| sum.saturating_add(range.bytes()));
        // A window cuts one of them in two at the most.
        let ranges = tracked.clone().count() as u64 + 2;
        let restricted = block.restricted_injection();
        Self {
            service: storage_bytes(
                bytes,
                block.window_bytes.saturating_add(block.low_window_bytes),
            ),
            ram_list: (ranges * size_of::<RamRange>() as u64).next_multiple_of(PAGE_BYTES),
            processors: ProcessorNeeds::new(processors, restricted, scattered_tables(tracked)),
        }
    }

    /// Bytes of all of it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let own = self.service.saturating_add(self.ram_list);
        own.saturating_add(self.processors.bytes())
    }

    /// Where the list of ranges and the processors' memory are in `storage`, which is large enough. The state of the
    /// service is at its start.
    #[must_use]
    pub fn place(&self, storage: PhysRange) -> (PhysRange, ProcessorMemory) {
        let start = storage.start.saturating_add(self.service);
        let ram_list = PhysRange {
            start,
            end: start.saturating_add(self.ram_list),
        };
        (ram_list, ProcessorMemory::new(self.processors, storage))
    }
}
