// SPDX-License-Identifier: MIT OR Apache-2.0
//! The image's own page tables: code executable, constants read-only, nothing both writable and
//! executable, host pages without the C-bit, the pool window not at all.

use core::cell::UnsafeCell;

use paravisor::boot_plan::BootPlan;
use paravisor::identity_map::{Access, IdentityMap, MapError, Table};
use paravisor::layout::{BOOT_BLOCK, IMAGE_BASE, IMAGE_END, PAGE_BYTES, SECRETS_PAGE};
use paravisor::range_list::PhysRange;
use paravisor::termination::Reason;
use x86_64::PhysAddr;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

use super::processor::Processor;
use super::symbols;

/// Tables: root, one for 512 GiB, and for each end of a range that is not a multiple of 1 GiB or
/// 2 MiB at most one of each smaller kind.
const TABLES: usize = 48;

/// Storage of the tables.
struct Tables(UnsafeCell<[Table; TABLES]>);

// SAFETY: Only `build` makes a reference to the inside, once, before there is a second processor;
// afterwards only processors walk the tables.
unsafe impl Sync for Tables {}

static STORAGE: Tables = Tables(UnsafeCell::new([Table::EMPTY; TABLES]));

/// Builds the tables for `plan` and loads them. `doorbell_shared` says whether the doorbell is a host
/// page. Called once.
///
/// # Errors
/// [`Reason::MapTooLong`] when memory is too scattered for the tables.
pub fn load(
    plan: &BootPlan,
    processor: &Processor,
    doorbell_shared: bool,
    c_bit: u64,
) -> Result<(), Reason> {
    let base = STORAGE.0.get().expose_provenance() as u64;
    // SAFETY: `load` is called once, at boot, so this is the only reference; the tables in use are
    // still those of the entry code.
    let tables = unsafe { &mut *STORAGE.0.get() };
    let map = build(tables, base, plan, processor, doorbell_shared, c_bit);
    let map = map.map_err(|_| Reason::MapTooLong)?;
    // W1, looked at from the other side: whatever the plan says, no table maps the window.
    let window = plan.placement.window;
    let mut pages = window.pages();
    if pages.any(|(page, _)| map.lookup(page).is_some()) {
        return Err(Reason::WindowOverLaunch);
    }
    let root = PhysFrame::containing_address(PhysAddr::new_truncate(map.root()));
    // SAFETY: The tables map code, constants, data and stack of the image where they are.
    unsafe {
        Cr3::write(root, Cr3Flags::empty());
    }
    Ok(())
}

fn build<'a>(
    tables: &'a mut [Table],
    base: u64,
    plan: &BootPlan,
    processor: &Processor,
    doorbell_shared: bool,
    c_bit: u64,
) -> Result<IdentityMap<'a>, MapError> {
    let mut map = IdentityMap::new(tables, base, c_bit)?;
    let fixed = PhysRange {
        start: BOOT_BLOCK,
        end: SECRETS_PAGE + PAGE_BYTES,
    };
    map.map(fixed, Access::Read)?;
    map.map(symbols::text(), Access::Execute)?;
    map.map(symbols::rodata(), Access::Read)?;
    // Host pages lie inside the variables, so these are mapped page by page.
    let data = symbols::data();
    for start in (data.start..data.end).step_by(PAGE_BYTES as usize) {
        let page = PhysRange {
            start,
            end: start + PAGE_BYTES,
        };
        let shared =
            page == processor.ghcb.range() || doorbell_shared && page == processor.doorbell.range();
        map.map(
            page,
            if shared {
                Access::SharedWrite
            } else {
                Access::Write
            },
        )?;
    }
    map.map(symbols::stacks(), Access::Write)?;
    // All other RAM, but for the window; of our own region only what was mapped above.
    let region = PhysRange {
        start: IMAGE_BASE,
        end: IMAGE_END,
    };
    let rest = plan
        .tracked
        .without(&region)
        .map_err(|_| MapError::NoTable)?;
    for range in rest.as_slice() {
        map.map(*range, Access::Write)?;
    }
    Ok(map)
}
