// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the image's own page tables lie, and the switch to them.

use core::cell::UnsafeCell;

use paravisor::boot_plan::BootPlan;
use paravisor::identity_map::Table;
use paravisor::own_map::{ImageParts, build};
use paravisor::range_list::PhysRange;
use paravisor::termination::Reason;
use paravisor::vcpu_table::MAX_VCPUS;
use x86_64::PhysAddr;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

use super::{processor, symbols};

/// Tables: root, one for 512 GiB, and for each end of a range that is not a multiple of 1 GiB or
/// 2 MiB at most one of each smaller kind.
const TABLES: usize = 48;

/// Storage of the tables.
struct Tables(UnsafeCell<[Table; TABLES]>);

// SAFETY: Only `load` makes a reference to the inside, once, before there is a second processor;
// afterwards only processors walk the tables.
unsafe impl Sync for Tables {}

static STORAGE: Tables = Tables(UnsafeCell::new([Table::EMPTY; TABLES]));

/// Most stacks.
const STACKS: usize = 2 * MAX_VCPUS as usize;

/// Builds the tables for `plan` and the first `processors` processors, and loads them. Called once; the
/// other processors start with them.
///
/// # Errors
/// See [`build`].
pub fn load(
    plan: &BootPlan,
    host_pages: &[PhysRange],
    processors: u32,
    c_bit: u64,
) -> Result<(), Reason> {
    let mut stacks = [PhysRange::default(); STACKS];
    let mut count = 0;
    for (slot, stack) in stacks
        .iter_mut()
        .zip((0..processors).flat_map(processor::stacks))
    {
        *slot = stack;
        count += 1;
    }
    let image = ImageParts {
        text: symbols::text(),
        rodata: symbols::rodata(),
        data: symbols::data(),
        stacks: stacks.get(..count).unwrap_or(&[]),
        host_pages,
    };
    let base = STORAGE.0.get().expose_provenance() as u64;
    // SAFETY: `load` is called once, at boot, so this is the only reference; the tables in use are
    // still those of the entry code.
    let tables = unsafe { &mut *STORAGE.0.get() };
    let root = build(tables, base, plan, &image, c_bit)?;
    let root = PhysFrame::containing_address(PhysAddr::new_truncate(root));
    // SAFETY: The tables map code, constants, data and stack of the image where they are.
    unsafe {
        Cr3::write(root, Cr3Flags::empty());
    }
    Ok(())
}
