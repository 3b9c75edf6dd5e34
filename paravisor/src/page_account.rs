// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page-state map as boot leaves it.

use snp::address::GuestPhysicalAddress;
use svsm_swiotlb::page_state::{MAX_RANGES, PageState, PageStates, RamRange};

use crate::boot_block::{BootBlock, RAM_ACCEPTED};
use crate::boot_plan::{BootPlan, HANDOVER_AREA};
use crate::layout::{IMAGE_BASE, IMAGE_END, PAGE_BYTES};
use crate::range_list::PhysRange;
use crate::termination::Reason;

/// The tracked RAM as the service wants it.
#[derive(Debug, Clone, Copy)]
pub struct TrackedRam {
    ranges: [RamRange; MAX_RANGES],
    count: usize,
}

impl TrackedRam {
    /// The list of `plan`.
    ///
    /// # Errors
    /// [`Reason::MapTooLong`] when there are more ranges than the service takes.
    pub fn of(plan: &BootPlan) -> Result<Self, Reason> {
        let mut ranges = [RamRange::default(); MAX_RANGES];
        let tracked = plan.tracked.as_slice();
        let slots = ranges.get_mut(..tracked.len()).ok_or(Reason::MapTooLong)?;
        for (slot, range) in slots.iter_mut().zip(tracked) {
            let base = GuestPhysicalAddress::new(range.start);
            *slot = RamRange {
                base,
                bytes: range.bytes(),
            };
        }
        Ok(Self {
            ranges,
            count: tracked.len(),
        })
    }

    /// The ranges.
    #[must_use]
    pub fn as_slice(&self) -> &[RamRange] {
        self.ranges.get(..self.count).unwrap_or(&[])
    }

    /// Bytes of all ranges together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.as_slice().iter().map(|range| range.bytes).sum()
    }
}

/// Writes the state of every page into fresh storage, in which all pages are Invalid.
///
/// # Errors
/// [`Reason::StorageInvalid`] when the plan names a page that is not tracked.
pub fn record(block: &BootBlock, plan: &BootPlan, states: &PageStates<'_>) -> Result<(), Reason> {
    let set = |range: &PhysRange, state| {
        states
            .set_at_boot(GuestPhysicalAddress::new(range.start), range.bytes(), state)
            .map_err(|_| Reason::StorageInvalid)
    };
    set(
        &PhysRange {
            start: IMAGE_BASE,
            end: IMAGE_END,
        },
        PageState::Paravisor,
    )?;
    set(&plan.placement.storage, PageState::Paravisor)?;
    // Wherever they are: they are valid, so no word may call them anything that a guest could have validated (W1, P1).
    for range in plan.own_launch.as_slice() {
        if plan.tracked.contains(range) {
            set(range, PageState::Paravisor)?;
        }
    }
    if !block.is_firmware() {
        set(&HANDOVER_AREA, PageState::Valid)?;
    }
    for range in plan.payload.as_slice() {
        set(range, PageState::Valid)?;
    }
    if block.ram_mode == RAM_ACCEPTED {
        for range in plan.guest_ram.as_slice() {
            set(range, PageState::Valid)?;
        }
    }
    let area = PhysRange {
        start: block.calling_area,
        end: block.calling_area + PAGE_BYTES,
    };
    set(&area, PageState::CallingArea)
}

#[cfg(test)]
pub(crate) mod tests {
    use core::sync::atomic::AtomicU8;

    use svsm_swiotlb::page_state::RamRanges;

    use super::*;
    use crate::boot_block::RAM_FIRMWARE;
    use crate::boot_plan::tests::{boot_block, map};

    /// The plan of a machine for tests, and the states of its pages as the boot records them.
    pub fn recorded(test: impl for<'a> FnOnce(&'a BootPlan, PageStates<'a>)) {
        let plan = BootPlan::new(&boot_block(), &map(), 1 << 20, 1).unwrap();
        let tracked = TrackedRam::of(&plan).unwrap();
        let ranges = RamRanges::new(tracked.as_slice()).unwrap();
        let words: Vec<_> = (0..ranges.pages()).map(|_| AtomicU8::new(0)).collect();
        let states = PageStates::new(ranges, &words).unwrap();
        record(&boot_block(), &plan, &states).unwrap();
        test(&plan, states);
    }

    #[test]
    fn w1_what_may_not_be_validated_has_no_word_that_allows_it() {
        let plan = BootPlan::new(&boot_block(), &map(), 1 << 20, 512).unwrap();
        let tracked = TrackedRam::of(&plan).unwrap();
        let ranges = RamRanges::new(tracked.as_slice()).unwrap();
        let words: Vec<_> = (0..ranges.pages()).map(|_| AtomicU8::new(0)).collect();
        let states = PageStates::new(ranges, &words).unwrap();
        for ram_mode in [RAM_ACCEPTED, RAM_FIRMWARE] {
            let mut block = boot_block();
            block.ram_mode = ram_mode;
            record(&block, &plan, &states).unwrap();
            let mut own = 0;
            for range in ranges.iter() {
                for number in 0..range.bytes / PAGE_BYTES {
                    let page = range.base.checked_add(number * PAGE_BYTES).unwrap();
                    let small = PhysRange::new(page.bits(), PAGE_BYTES).unwrap();
                    if !plan.may_validate(&small) {
                        assert_eq!(states.state(page), Some(PageState::Paravisor), "{page}");
                        own += 1;
                    }
                }
            }
            let host_pages = plan.processors.host_pages().bytes() / PAGE_BYTES;
            assert!(own > host_pages && host_pages == 511 * 2);
        }
    }
}
