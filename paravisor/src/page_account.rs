// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page-state map as boot leaves it.

use snp::address::GuestPhysicalAddress;
use svsm_swiotlb::page_state::{PageState, PageStates, RamRange};

use crate::boot_block::{BootBlock, RAM_ACCEPTED};
use crate::boot_plan::{BootPlan, HANDOVER_AREA};
use crate::layout::{IMAGE_BASE, IMAGE_END, PAGE_BYTES};
use crate::range_list::PhysRange;
use crate::termination::Reason;

/// The tracked RAM as the service wants it.
pub fn tracked_ram(plan: &BootPlan<'_>) -> impl Iterator<Item = RamRange> + Clone {
    plan.tracked()
        .map(|range| RamRange::new(GuestPhysicalAddress::new(range.start), range.bytes()))
}

/// Writes the state of every page into fresh storage, in which all pages are Invalid.
///
/// # Errors
/// [`Reason::StorageInvalid`] when the plan names a page that is not tracked.
pub fn record(
    block: &BootBlock,
    plan: &BootPlan<'_>,
    states: &PageStates<'_>,
) -> Result<(), Reason> {
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
        if plan.is_tracked(range) {
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
        for range in plan.guest_ram() {
            set(&range, PageState::Valid)?;
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
    use crate::boot_plan::tests::{boot_block, plan as usual_plan};

    /// The plan of a machine for tests, and the states of its pages as the boot records them.
    pub fn recorded(test: impl for<'a> FnOnce(&'a BootPlan<'a>, PageStates<'a>)) {
        let plan = usual_plan(1);
        let mut tracked: Vec<_> = tracked_ram(&plan).collect();
        let ranges = RamRanges::new(&mut tracked).unwrap();
        let words: Vec<_> = (0..ranges.pages()).map(|_| AtomicU8::new(0)).collect();
        let states = PageStates::new(ranges, &words).unwrap();
        record(&boot_block(), &plan, &states).unwrap();
        test(&plan, states);
    }

    #[test]
    fn w1_what_may_not_be_validated_has_no_word_that_allows_it() {
        let plan = usual_plan(512);
        let mut tracked: Vec<_> = tracked_ram(&plan).collect();
        let ranges = RamRanges::new(&mut tracked).unwrap();
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
