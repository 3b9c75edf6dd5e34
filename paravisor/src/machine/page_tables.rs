// SPDX-License-Identifier: MIT OR Apache-2.0
//! The image's own page tables, and the switches to them.
//!
//! The first ones are in the image and map, besides it, the storage; with them boot takes that into use. The last ones are in
//! the storage, because RAM in many pieces, and a guard page between each two stacks, take more of them than an image has
//! room for.

use core::cell::UnsafeCell;

use paravisor::boot_plan::BootPlan;
use paravisor::identity_map::Table;
use paravisor::own_map::{ImageParts, Stage, build};
use paravisor::processor_memory::PLAIN_TABLES;
use paravisor::range_list::PhysRange;
use paravisor::termination::Reason;
use x86_64::PhysAddr;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

use super::{processor, symbols};

/// Storage of the first tables.
struct Tables(UnsafeCell<[Table; PLAIN_TABLES]>);

// SAFETY: Only `load` makes a reference to the inside, once, before there is a second processor;
// afterwards only processors walk the tables.
unsafe impl Sync for Tables {}

static STORAGE: Tables = Tables(UnsafeCell::new([Table::EMPTY; PLAIN_TABLES]));

/// Builds the first tables for `plan` and loads them. `host_pages` are the boot processor's. Called once.
///
/// # Errors
/// See [`build`].
pub fn load(plan: &BootPlan<'_>, host_pages: &[PhysRange], c_bit: u64) -> Result<(), Reason> {
    // SAFETY: `load` is called once, at boot, so this is the only reference; the tables in use are
    // still those of the entry code.
    let tables = unsafe { &mut *STORAGE.0.get() };
    change(tables, plan, host_pages, Stage::Storage, c_bit)
}

/// Builds the last tables in `tables`, which map all RAM, with a guard page below each stack, and loads them. The
/// other processors start with them.
///
/// # Errors
/// See [`build`].
pub fn load_all(
    tables: &'static mut [Table],
    plan: &BootPlan<'_>,
    host_pages: &[PhysRange],
    c_bit: u64,
) -> Result<(), Reason> {
    change(tables, plan, host_pages, Stage::All, c_bit)
}

fn change(
    tables: &'static mut [Table],
    plan: &BootPlan<'_>,
    host_pages: &[PhysRange],
    stage: Stage,
    c_bit: u64,
) -> Result<(), Reason> {
    let image = ImageParts {
        text: symbols::text(),
        rodata: symbols::rodata(),
        data: symbols::data(),
        stacks: processor::boot_stacks(),
        host_pages,
    };
    let base = tables.as_ptr().expose_provenance() as u64;
    let root = build(tables, base, plan, &image, stage, c_bit)?;
    let root = PhysFrame::containing_address(PhysAddr::new_truncate(root));
    // SAFETY: The tables map code, constants, data and stack of the image where they are, and are
    // themselves there for ever.
    unsafe {
        Cr3::write(root, Cr3Flags::empty());
    }
    Ok(())
}
