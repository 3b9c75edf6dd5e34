// SPDX-License-Identifier: MIT OR Apache-2.0
//! What VMPL0 maps: its image with code, constants and data apart, host pages without the C-bit, all
//! RAM but the pool window.

use crate::boot_plan::BootPlan;
use crate::identity_map::{Access, IdentityMap, MapError, Table};
use crate::layout::{BOOT_BLOCK, FIXED_PAGES_END, IMAGE_BASE, IMAGE_END, PAGE_BYTES};
use crate::range_list::PhysRange;
use crate::termination::Reason;

/// The parts of the image, page aligned.
#[derive(Debug, Clone, Copy)]
pub struct ImageParts<'a> {
    /// Code.
    pub text: PhysRange,
    /// Constants.
    pub rodata: PhysRange,
    /// Variables, the host pages among them.
    pub data: PhysRange,
    /// Stacks of the boot processor; the page below each is a guard page and stays unmapped.
    pub stacks: [PhysRange; 2],
    /// Its pages that are shared with the host.
    pub host_pages: &'a [PhysRange],
}

/// How much the tables map of RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The storage, to take it into use: a few tables are enough, whatever the memory map is like.
    Storage,
    /// All RAM, but for the guard pages of the other processors' stacks.
    All,
}

/// Builds the tables in `tables`, which lie at `base`, and gives the value for CR3.
///
/// # Errors
/// [`Reason::MapTooLong`] when memory is too scattered for the tables, [`Reason::WindowMapped`] when
/// a page of a window is mapped in spite of the plan (invariant W1).
pub fn build(
    tables: &mut [Table],
    base: u64,
    plan: &BootPlan<'_>,
    image: &ImageParts<'_>,
    stage: Stage,
    c_bit: u64,
) -> Result<u64, Reason> {
    let mut map = IdentityMap::new(tables, base, c_bit).map_err(|_| Reason::MapTooLong)?;
    fill(&mut map, plan, image, stage).map_err(|_| Reason::MapTooLong)?;
    if (plan.placement.windows.into_iter()).any(|window| map.maps_any(window)) {
        return Err(Reason::WindowMapped);
    }
    Ok(map.root())
}

fn fill(
    map: &mut IdentityMap<'_>,
    plan: &BootPlan<'_>,
    image: &ImageParts<'_>,
    stage: Stage,
) -> Result<(), MapError> {
    let range = |start, end| PhysRange { start, end };
    map.map(range(BOOT_BLOCK, FIXED_PAGES_END), Access::Read)?;
    map.map(image.text, Access::Execute)?;
    map.map(image.rodata, Access::Read)?;
    // Page by page, because host pages lie between the variables.
    let mut next = image.data.start;
    while next < image.data.end {
        let page = range(next, next + PAGE_BYTES);
        let shared = image.host_pages.contains(&page);
        map.map(
            page,
            if shared {
                Access::SharedWrite
            } else {
                Access::Write
            },
        )?;
        next = page.end;
    }
    for stack in image.stacks {
        map.map(stack, Access::Write)?;
    }
    let memory = &plan.processors;
    let shared = memory.host_pages();
    map.map(shared, Access::SharedWrite)?;
    let stacks = memory.all_stacks();
    let holes = [range(IMAGE_BASE, IMAGE_END), shared, stacks];
    let mut private = |ram: PhysRange, holes: &[PhysRange]| {
        ram.without(holes)
            .try_for_each(|piece| map.map(piece, Access::Write))
    };
    match stage {
        Stage::Storage => private(plan.placement.storage, &[shared]),
        Stage::All => {
            (1..=memory.others())
                .flat_map(|number| memory.stacks(number))
                .try_for_each(|stack| private(stack, &[]))?;
            plan.tracked().try_for_each(|ram| private(ram, &holes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{IdentityMap, ImageParts, PhysRange, Reason, Stage, Table, build, fill};
    use crate::boot_plan::tests::{boot_block, map, plan as plan_of, plan_for};
    use crate::layout::{BOOT_BLOCK, FIXED_PAGES_END, IMAGE_LOAD};
    use crate::memory_map::tests::map_of;
    use crate::processor_memory::PLAIN_TABLES;

    const C_BIT: u64 = 1 << 51;
    const BASE: u64 = 0x42_0000;
    const WRITE: u64 = 1 << 1;
    const NO_EXECUTE: u64 = 1 << 63;
    const HOST_PAGE: PhysRange = PhysRange {
        start: 0x41_4000,
        end: 0x41_5000,
    };

    const fn range(start: u64, end: u64) -> PhysRange {
        PhysRange {
            start: IMAGE_LOAD + start,
            end: IMAGE_LOAD + end,
        }
    }

    const STACKS: [PhysRange; 2] = [range(0x7000, 0x9000), range(0xa000, 0xb000)];

    fn parts() -> ImageParts<'static> {
        ImageParts {
            text: range(0, 0x2000),
            rodata: range(0x2000, 0x3000),
            data: range(0x3000, 0x6000),
            stacks: STACKS,
            host_pages: &[HOST_PAGE],
        }
    }

    /// Writable, executable and private, or `None` where nothing is mapped.
    fn rights(map: &IdentityMap<'_>, address: u64) -> Option<(bool, bool, bool)> {
        let (entry, _) = map.lookup(address)?;
        Some((
            entry & WRITE != 0,
            entry & NO_EXECUTE == 0,
            entry & C_BIT != 0,
        ))
    }

    #[test]
    fn each_part_has_its_rights_and_the_rest_is_unmapped() {
        let plan = plan_of(1);
        let mut tables = [Table::EMPTY; 16];
        let mut map = IdentityMap::new(&mut tables, BASE, C_BIT).unwrap();
        fill(&mut map, &plan, &parts(), Stage::All).unwrap();
        let data = Some((true, false, true));
        let fixed = (BOOT_BLOCK..FIXED_PAGES_END).step_by(4096);
        let fixed: Vec<_> = fixed.map(|page| rights(&map, page)).collect();
        assert_eq!(fixed, [Some((false, false, true)); 16]);
        for (address, want) in [
            (IMAGE_LOAD + 0x1fff, Some((false, true, true))),
            (IMAGE_LOAD + 0x2000, Some((false, false, true))),
            (IMAGE_LOAD + 0x3000, data),
            (HOST_PAGE.start, Some((true, false, false))),
            (IMAGE_LOAD + 0x5000, data),
            (IMAGE_LOAD + 0x6000, None), // guard page
            (IMAGE_LOAD + 0x8000, data),
            (IMAGE_LOAD + 0x9000, None), // guard page
            (IMAGE_LOAD + 0xa000, data),
            (IMAGE_LOAD + 0xb000, None),
            (0x9_f000, data),
            (0xa_0000, None), // devices
            (0x80_0000, data),
            (0x2000_0000, None), // beyond low RAM
            (plan.placement.storage.start, data),
        ] {
            assert_eq!(rights(&map, address), want, "{address:#x}");
        }
    }

    #[test]
    fn w1_no_page_of_the_window_is_mapped() {
        let mut plan = plan_of(1);
        let mut tables = [Table::EMPTY; 16];
        let root = build(&mut tables, BASE, &plan, &parts(), Stage::Storage, C_BIT);
        assert_eq!(root, Ok(BASE | C_BIT));
        // A plan whose storage reaches into the window is noticed, and so is an image that lies there.
        let window = plan.placement.window();
        plan.placement.storage.end = window.start + 0x1000;
        let mapped = |tables: &mut [Table], image: &ImageParts<'_>, stage| {
            build(tables, BASE, &plan, image, stage, C_BIT)
        };
        let wrong = Err(Reason::WindowMapped);
        assert_eq!(mapped(&mut tables, &parts(), Stage::Storage), wrong);
        let text = PhysRange::new(window.start, 0x1000).unwrap();
        let image = ImageParts { text, ..parts() };
        assert_eq!(mapped(&mut tables, &image, Stage::All), wrong);

        // The low window likewise.
        let mut block = boot_block();
        block.low_window_bytes = 32 << 20;
        let plan = plan_for(&block, map(), 1).unwrap();
        let mapped = |image: &ImageParts<'_>| {
            let mut tables = [Table::EMPTY; 16];
            build(&mut tables, BASE, &plan, image, Stage::All, C_BIT)
        };
        assert_eq!(mapped(&parts()), Ok(BASE | C_BIT));
        let low = plan.placement.low_window().unwrap();
        let text = PhysRange::new(low.end - 0x1000, 0x1000).unwrap();
        assert_eq!(mapped(&ImageParts { text, ..parts() }), wrong);
    }

    #[test]
    fn memory_in_as_many_pieces_as_a_map_can_name_is_mapped() {
        let odd = |index: u64, step: u64| (0x10_0000 + index * step + 1, step - 3, 0);
        for (step, count) in [
            (4, 670),
            (0x1ff, 670),
            (0x203, 670),
            (0x4_0000, 670),
            (0x4_0203, 512),
            (0x800_0200, 200),
        ] {
            let pieces = (0..count).map(|index| odd(index, step));
            let low = [(0, 0xa0, 0), (0x100, 0x1_ff00, 0)];
            let top = (0x7_0000_0000, 0x100_0000, 0);
            let list: Vec<_> = low.into_iter().chain(pieces).chain([top]).collect();
            for processors in [1, 512] {
                let plan = plan_for(&boot_block(), map_of(&list), processors).unwrap();
                let memory = plan.processors;
                let count = usize::try_from(memory.tables().bytes() / 4096).unwrap();
                let mut few = vec![Table::EMPTY; PLAIN_TABLES];
                let root = build(&mut few, BASE, &plan, &parts(), Stage::Storage, C_BIT);
                assert_eq!(root, Ok(BASE | C_BIT), "{step:#x}");
                let mut tables = vec![Table::EMPTY; count];
                let base = memory.tables().start;
                let root = build(&mut tables, base, &plan, &parts(), Stage::All, C_BIT);
                assert_eq!(root, Ok(base | C_BIT), "{step:#x}");
                let map = IdentityMap::built(&mut tables, base, C_BIT);
                for &(first, pages, _) in &list {
                    let (first, end) = (first << 12, (first + pages) << 12);
                    assert!(map.lookup(end).is_none(), "behind {end:#x}");
                    let ours = (0x40_0000..0x80_0000).contains(&first);
                    assert!(ours || map.lookup(first).is_some(), "{first:#x}");
                }
            }
        }
    }

    #[test]
    fn each_processor_has_its_stacks_between_guard_pages_and_host_pages_are_shared() {
        for processors in [2, 16, 512, 2045] {
            let plan = plan_of(processors);
            let memory = plan.processors;
            let count = memory.tables().bytes() / 4096;
            let mut tables = vec![Table::EMPTY; usize::try_from(count).unwrap()];
            let root = build(
                &mut tables,
                memory.tables().start,
                &plan,
                &parts(),
                Stage::All,
                C_BIT,
            );
            assert_eq!(root, Ok(memory.tables().start | C_BIT), "{processors}");
            let map = IdentityMap::built(&mut tables, memory.tables().start, C_BIT);
            let (private, shared) = (Some((true, false, true)), Some((true, false, false)));
            let last = u64::from(processors) - 1;
            for number in 1..=last {
                let [stack, fault_stack] = memory.stacks(number);
                for (address, want) in [
                    (stack.start - 1, None),
                    (stack.start, private),
                    (stack.end - 1, private),
                    (stack.end, None),
                    (fault_stack.start - 1, None),
                    (fault_stack.start, private),
                    (memory.vmsa(number), private),
                    (memory.ghcb(number), shared),
                    (memory.doorbell(number).unwrap(), shared),
                ] {
                    assert_eq!(rights(&map, address), want, "{number}: {address:#x}");
                }
            }
            for own in [memory.tables(), memory.slots(), memory.contexts()] {
                assert_eq!(rights(&map, own.start), private);
                assert_eq!(rights(&map, own.end - 1), private);
            }
            assert!(!plan.may_validate(&memory.host_pages()));
            assert!(plan.may_validate(&plan.private_storage()));
        }
    }

    #[test]
    fn few_tables_map_the_memory_of_many_processors_in_one_piece() {
        let plan = plan_of(2045);
        let mut tables = vec![Table::EMPTY; PLAIN_TABLES];
        let image = parts();
        build(&mut tables, BASE, &plan, &image, Stage::Storage, C_BIT).unwrap();
        let map = IdentityMap::built(&mut tables, BASE, C_BIT);
        let memory = plan.processors;
        let stacks = memory.all_stacks();
        for address in (stacks.start..stacks.end).step_by(4096) {
            assert_eq!(rights(&map, address), Some((true, false, true)));
        }
        let shared = memory.host_pages();
        for address in (shared.start..shared.end).step_by(4096) {
            assert_eq!(rights(&map, address), Some((true, false, false)));
        }
    }
}
