// SPDX-License-Identifier: MIT OR Apache-2.0
//! The nested page tables: what each VMPL can reach of the two views of its memory.
//!
//! Five levels, because the C-bit (bit 51) of a guest physical address selects entry 8 of the top
//! table: entry 0 leads to the shared view, entry 8 to the private one. Each VMPL has a root of its
//! own and a second one for CR0.PG = 0, where every access is private and there is no C-bit.
//!
//! * A shared leaf is present only while the guest does not own the page. It is not executable:
//!   hardware treats every fetch as private.
//! * A private leaf is present only while the page is assigned, validated and readable for the
//!   VMPL; it is 2 MiB where the RMP entry is. A VMSA in use is not writable.
//!
//! Fetches and table walks through an address without C-bit are private on hardware, while QEMU
//! takes them to the shared view. They fault there, and [`NestedTables::alias`] points that leaf to
//! the private page until the VMPL changes on any CPU. A 2 MiB directory entry is written behind the
//! last-level entries that it leads to, because other CPUs walk meanwhile.
//!
//! Source: APM volume 2, 5.3 (long-mode tables), 15.25 (nested paging), 15.36.10 (SNP checks).

use snp::address::{PAGE_SIZE, Vmpl};
use snp_model::rmp::{Rmp, RmpEntry};

use crate::frames::Frames;
use crate::hardware::PhysicalMemory;
use crate::memory_plan::{DEVICE_BASE, MemoryPlan};

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
/// Nested walks are user accesses.
const USER: u64 = 1 << 2;
/// Preset, so that the processor need not write them.
const ACCESSED_DIRTY: u64 = 3 << 5;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const DIRECTORY: u64 = PRESENT | WRITE | USER | ACCESSED_DIRTY;

const ENTRIES: u64 = 512;
/// Pages of a large page.
const LARGE_PAGES: usize = 512;
const GIB: u64 = 1 << 30;
/// Top-level entry that the C-bit selects.
const PRIVATE_ROOT_ENTRY: u64 = 8;
/// Aliases that may exist at once; the oldest is dropped beyond that and faults again.
const MAX_ALIASES: usize = 32;

/// The private leaf of a page for a VMPL, without address; `None` when the VMPL may not read it.
fn private_leaf(entry: &RmpEntry, vmpl: Vmpl) -> Option<u64> {
    let permissions = entry.permissions(vmpl);
    if !(entry.assigned && entry.validated && permissions.read()) {
        return None;
    }
    let mut leaf = PRESENT | USER | ACCESSED_DIRTY;
    if permissions.write() && !entry.in_use {
        leaf |= WRITE;
    }
    // Nested tables cannot tell user from supervisor fetches.
    if !(permissions.execute_user() || permissions.execute_supervisor()) {
        leaf |= NO_EXECUTE;
    }
    Some(leaf)
}

/// One tree from level 4 down: a level-4 and a level-3 table, a directory per GiB of guest RAM and
/// a last-level table per 2 MiB of it, all preallocated.
#[derive(Clone, Copy, Debug)]
struct Tree {
    base: u64,
    directories: u64,
}

impl Tree {
    const fn level_3(&self) -> u64 {
        self.base + PAGE_SIZE
    }

    const fn directory(&self, number: u64) -> u64 {
        self.base + (2 + number) * PAGE_SIZE
    }

    /// The last-level table that covers page `index`.
    const fn table(&self, index: usize) -> u64 {
        self.base + (2 + self.directories) * PAGE_SIZE + (index / LARGE_PAGES) as u64 * PAGE_SIZE
    }

    /// Host address of the last-level entry of page `index`.
    const fn leaf(&self, index: usize) -> u64 {
        self.table(index) + (index % LARGE_PAGES) as u64 * 8
    }
}

/// All nested tables of the guest.
#[derive(Clone, Debug)]
pub struct NestedTables {
    plan: MemoryPlan,
    /// Which frame is behind which page.
    pub frames: Frames,
    roots: u64,
    shared: Tree,
    private: [Tree; 4],
    aliases: [Option<usize>; MAX_ALIASES],
    next_alias: usize,
}

impl NestedTables {
    /// Builds the tables from `base` on (zeroed here), everything hypervisor-owned. With
    /// `map_devices`, device memory below 4 GiB is reachable through the shared view, except in the GiB of
    /// firmware's image.
    pub fn build(
        memory: &impl PhysicalMemory,
        plan: MemoryPlan,
        base: u64,
        map_devices: bool,
    ) -> Self {
        let directories: u64 = plan
            .layout()
            .ranges()
            .iter()
            .map(|range| range.bytes.div_ceil(GIB))
            .sum();
        let tables = (plan.layout().pages() / LARGE_PAGES) as u64;
        let tree_bytes = (2 + directories + tables) * PAGE_SIZE;
        let roots_bytes = 8 * PAGE_SIZE;
        let tree = |number: u64| Tree {
            base: base + roots_bytes + number * tree_bytes,
            directories,
        };
        let tables = Self {
            plan,
            frames: Frames::default(),
            roots: base,
            shared: tree(0),
            private: [tree(1), tree(2), tree(3), tree(4)],
            aliases: [None; MAX_ALIASES],
            next_alias: 0,
        };
        memory.fill(base, roots_bytes + 5 * tree_bytes, 0);
        for vmpl in Vmpl::ALL {
            let private = tables.private_tree(vmpl).base | DIRECTORY;
            memory.write_u64(tables.root(vmpl, false), tables.shared.base | DIRECTORY);
            memory.write_u64(tables.root(vmpl, false) + 8 * PRIVATE_ROOT_ENTRY, private);
            memory.write_u64(tables.root(vmpl, true), private);
            memory.write_u64(tables.root(vmpl, true) + 8 * PRIVATE_ROOT_ENTRY, private);
        }
        for tree in [&tables.shared].into_iter().chain(&tables.private) {
            tables.build_tree(memory, tree);
        }
        if map_devices {
            let used = |gib: u64| {
                let mut ranges = tables.plan.layout().ranges().iter();
                ranges.any(|range| range.base / GIB == gib)
            };
            for gib in (DEVICE_BASE / GIB..4).filter(|gib| !used(*gib)) {
                let leaf = (gib * GIB) | DIRECTORY | LARGE | NO_EXECUTE;
                memory.write_u64(tables.shared.level_3() + 8 * gib, leaf);
            }
        }
        tables
    }

    fn build_tree(&self, memory: &impl PhysicalMemory, tree: &Tree) {
        memory.write_u64(tree.base, tree.level_3() | DIRECTORY);
        let mut number = 0;
        let mut index = 0;
        for range in self.plan.layout().ranges() {
            for offset in (0..range.bytes).step_by(1 << 30) {
                let gib = (range.base + offset) / GIB;
                memory.write_u64(tree.level_3() + 8 * gib, tree.directory(number) | DIRECTORY);
                // A range that begins inside a GiB ends with it: firmware's image.
                let first = ((range.base + offset) >> 21) % ENTRIES;
                for entry in first..ENTRIES.min(first + ((range.bytes - offset) >> 21)) {
                    memory.write_u64(
                        tree.directory(number) + 8 * entry,
                        tree.table(index) | DIRECTORY,
                    );
                    index += LARGE_PAGES;
                }
                number += 1;
            }
        }
    }

    const fn private_tree(&self, vmpl: Vmpl) -> &Tree {
        let [vmpl0, vmpl1, vmpl2, vmpl3] = &self.private;
        match vmpl {
            Vmpl::Vmpl0 => vmpl0,
            Vmpl::Vmpl1 => vmpl1,
            Vmpl::Vmpl2 => vmpl2,
            Vmpl::Vmpl3 => vmpl3,
        }
    }

    /// Bytes [`build`](Self::build) uses.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        let [vmpl0, vmpl1, ..] = &self.private;
        let tree_bytes = vmpl1.base - vmpl0.base;
        self.shared.base - self.roots + 5 * tree_bytes
    }

    /// Host address of the frame behind page `index` in the private view.
    #[must_use]
    pub fn private_page(&self, index: usize) -> u64 {
        self.plan.private_page(self.frames.behind(index))
    }

    /// The private leaf of page `index` for a VMPL; `None` when the VMPL may not read it, or when the reverse map names
    /// another page for its frame.
    fn leaf(&self, entry: &RmpEntry, vmpl: Vmpl, index: usize) -> Option<u64> {
        let leaf = private_leaf(entry, vmpl).filter(|_| self.frames.fits(index))?;
        let taken = match self.frames.read_only {
            Some(page) if page == index => WRITE,
            _ => 0,
        };
        Some(leaf & !taken | self.private_page(index))
    }

    /// Nested CR3 of a VMPL.
    #[must_use]
    pub const fn root(&self, vmpl: Vmpl, unpaged: bool) -> u64 {
        self.roots + (vmpl.number() as u64 * 2 + unpaged as u64) * PAGE_SIZE
    }

    /// Brings every table in line with the RMP for the page `index`, or for the whole 2 MiB around
    /// it with `block`, which is needed whenever the entry's size changes.
    pub fn sync(&self, memory: &impl PhysicalMemory, rmp: &Rmp<'_>, index: usize, block: bool) {
        let first = index - index % LARGE_PAGES;
        let large = rmp.entry(first).is_some_and(|entry| entry.large);
        let pages = if block || large {
            first..first + LARGE_PAGES
        } else {
            index..index + 1
        };
        for page in pages {
            let Some(entry) = rmp.entry(page) else {
                continue;
            };
            let gpa = self.plan.shared_page(page);
            let leaf = if entry.assigned {
                0
            } else {
                gpa | DIRECTORY | NO_EXECUTE
            };
            memory.write_u64(self.shared.leaf(page), leaf);
            if large {
                continue;
            }
            for vmpl in Vmpl::ALL {
                let leaf = self.leaf(entry, vmpl, page).unwrap_or(0);
                memory.write_u64(self.private_tree(vmpl).leaf(page), leaf);
            }
        }
        // Last: another CPU must not walk a table that is not filled yet.
        if block || large {
            for vmpl in Vmpl::ALL {
                self.sync_directory(memory, rmp, first, vmpl, large);
            }
        }
    }

    fn sync_directory(
        &self,
        memory: &impl PhysicalMemory,
        rmp: &Rmp<'_>,
        first: usize,
        vmpl: Vmpl,
        large: bool,
    ) {
        let tree = self.private_tree(vmpl);
        let leaf = rmp.entry(first).and_then(|entry| private_leaf(entry, vmpl));
        let entry = match (large, leaf) {
            (false, _) => tree.table(first) | DIRECTORY,
            (true, None) => 0,
            (true, Some(leaf)) => leaf | LARGE | self.plan.private_page(first),
        };
        memory.write_u64(self.directory_entry(tree, first), entry);
    }

    /// Host address of the directory entry that covers page `index`.
    fn directory_entry(&self, tree: &Tree, index: usize) -> u64 {
        let gpa = self.plan.shared_page(index);
        let mut number = 0;
        for range in self.plan.layout().ranges() {
            if let Some(offset) = gpa.checked_sub(range.base)
                && offset < range.bytes
            {
                number += offset / GIB;
                break;
            }
            number += range.bytes.div_ceil(GIB);
        }
        tree.directory(number) + 8 * ((gpa >> 21) % ENTRIES)
    }

    /// Lets `vmpl` fetch and walk page `index` without C-bit: its shared leaf shows the private
    /// page. Data accesses pass too, until [`drop_aliases`](Self::drop_aliases).
    pub fn alias(&mut self, memory: &impl PhysicalMemory, rmp: &Rmp<'_>, vmpl: Vmpl, index: usize) {
        let entry = rmp.entry(index);
        let Some(leaf) = entry.and_then(|entry| self.leaf(entry, vmpl, index)) else {
            return;
        };
        if let Some(slot) = self.aliases.get_mut(self.next_alias) {
            if let Some(old) = slot.replace(index) {
                memory.write_u64(self.shared.leaf(old), 0);
            }
            self.next_alias = (self.next_alias + 1) % MAX_ALIASES;
        }
        memory.write_u64(self.shared.leaf(index), leaf);
    }

    /// Takes all aliases back: another VMPL, with other permissions, runs next. True when there
    /// was one.
    pub fn drop_aliases(&mut self, memory: &impl PhysicalMemory, rmp: &Rmp<'_>) -> bool {
        let mut dropped = false;
        for slot in &mut self.aliases {
            // A page that was shared since has a proper leaf.
            if let Some(index) = slot.take()
                && rmp.entry(index).is_some_and(|entry| entry.assigned)
            {
                memory.write_u64(self.shared.leaf(index), 0);
                dropped = true;
            }
        }
        dropped
    }
}

#[cfg(test)]
mod tests;
