// SPDX-License-Identifier: MIT OR Apache-2.0
use std::vec;
use std::vec::Vec;

use snp::address::PageSize;
use snp::operands::{RmpAdjustTarget, RmpPermissions};

use super::*;
use crate::memory_plan::{GuestMemory, HIGH_BASE};
use crate::test_hardware::TestHardware;

const C: u64 = 1 << 51;

struct Bench {
    hardware: TestHardware,
    plan: MemoryPlan,
    tables: NestedTables,
    entries: Vec<RmpEntry>,
}

impl Bench {
    fn new(bytes: u64) -> Self {
        Self::of(GuestMemory::new(bytes))
    }

    fn of(memory: GuestMemory) -> Self {
        let hardware = TestHardware::default();
        let plan = MemoryPlan::new(memory).unwrap();
        let tables = NestedTables::build(&hardware, plan, plan.tables_base(), false);
        let entries = vec![RmpEntry::default(); plan.layout().pages()];
        Self {
            hardware,
            plan,
            tables,
            entries,
        }
    }

    fn with(&mut self, index: usize, block: bool, change: impl FnOnce(&mut Rmp<'_>)) {
        let mut rmp = Rmp::new(&mut self.entries);
        change(&mut rmp);
        self.tables.sync(&self.hardware, &rmp, index, block);
    }

    /// Walks as the processor does: (host address, leaf flags).
    fn walk(&self, root: u64, gpa: u64) -> Option<(u64, u64)> {
        let mut table = root;
        for level in (0..5).rev() {
            let shift = 12 + 9 * level;
            let entry = self.hardware.read_u64(table + 8 * ((gpa >> shift) % 512));
            if entry & PRESENT == 0 {
                return None;
            }
            let address = entry & 0x000F_FFFF_FFFF_F000;
            if level == 0 || entry & LARGE != 0 {
                let offset = gpa & ((1 << shift) - 1);
                return Some((address + offset, entry & (WRITE | NO_EXECUTE)));
            }
            table = address;
        }
        None
    }

    fn reach(&self, vmpl: Vmpl, gpa: u64) -> Option<(u64, u64)> {
        self.walk(self.tables.root(vmpl, false), gpa)
    }
}

#[test]
fn a_page_moves_between_the_views() {
    let mut bench = Bench::new(64 << 20);
    let (index, gpa) = (0x345, 0x34_5000);
    bench.with(index, true, |_| {});
    assert_eq!(
        bench.reach(Vmpl::Vmpl2, gpa),
        Some((gpa, WRITE | NO_EXECUTE))
    );
    assert_eq!(bench.reach(Vmpl::Vmpl2, gpa | C), None);

    bench.with(index, false, |rmp| {
        rmp.rmpupdate(index, PageSize::Size4K, true);
    });
    assert_eq!(
        (
            bench.reach(Vmpl::Vmpl0, gpa),
            bench.reach(Vmpl::Vmpl0, gpa | C)
        ),
        (None, None)
    );

    bench.with(index, false, |rmp| {
        rmp.pvalidate(index, PageSize::Size4K, true, Vmpl::Vmpl0);
    });
    let private = bench.plan.private_page(index);
    assert_eq!(bench.reach(Vmpl::Vmpl0, gpa | C), Some((private, WRITE)));
    assert_eq!(bench.reach(Vmpl::Vmpl2, gpa | C), None);
    assert_eq!(
        bench.walk(bench.tables.root(Vmpl::Vmpl0, true), gpa),
        Some((private, WRITE))
    );

    bench.with(index, false, |rmp| {
        let read = RmpAdjustTarget::grant(Vmpl::Vmpl2, RmpPermissions::READ);
        rmp.rmpadjust(index, PageSize::Size4K, read, Vmpl::Vmpl0);
    });
    assert_eq!(
        bench.reach(Vmpl::Vmpl2, gpa | C),
        Some((private, NO_EXECUTE))
    );
}

#[test]
fn large_entries_have_large_leaves_until_smashed() {
    let mut bench = Bench::new(3 << 30);
    let gpa = HIGH_BASE + (3 << 21);
    let index = bench.plan.page_index(gpa).unwrap();
    bench.with(index, true, |rmp| {
        rmp.rmpupdate(index, PageSize::Size2M, true);
        rmp.pvalidate(index, PageSize::Size2M, true, Vmpl::Vmpl0);
    });
    let expected = Some((bench.plan.private_page(index) + 0x1F_F123, WRITE));
    assert_eq!(bench.reach(Vmpl::Vmpl0, (gpa + 0x1F_F123) | C), expected);
    assert_eq!(bench.reach(Vmpl::Vmpl0, gpa), None);
    bench.with(index + 7, true, |rmp| rmp.psmash(index + 7));
    assert_eq!(bench.reach(Vmpl::Vmpl0, (gpa + 0x1F_F123) | C), expected);
    bench.with(index, false, |rmp| {
        rmp.rmpupdate(index, PageSize::Size4K, false);
    });
    assert_eq!(bench.reach(Vmpl::Vmpl0, gpa | C), None);
    assert_eq!(
        bench.reach(Vmpl::Vmpl0, gpa).map(|(address, _)| address),
        Some(gpa)
    );
}

#[test]
fn an_alias_lasts_until_the_level_changes() {
    let mut bench = Bench::new(64 << 20);
    bench.with(5, true, |rmp| {
        rmp.set_launch_page(5);
    });
    let rmp = Rmp::new(&mut bench.entries);
    bench.tables.alias(&bench.hardware, &rmp, Vmpl::Vmpl0, 5);
    let private = bench.plan.private_page(5);
    assert_eq!(
        bench.walk(bench.tables.root(Vmpl::Vmpl0, false), 0x5000),
        Some((private, WRITE))
    );
    let rmp = Rmp::new(&mut bench.entries);
    bench.tables.drop_aliases(&bench.hardware, &rmp);
    assert_eq!(bench.reach(Vmpl::Vmpl0, 0x5000), None);
}

#[test]
fn firmware_is_reached_below_4_gib() {
    let memory = GuestMemory {
        ram: 16 << 20,
        firmware: 4 << 20,
        firmware_ram: 8 << 20,
    };
    let mut bench = Bench::of(memory);
    let (first, last) = (HIGH_BASE - (4 << 20), HIGH_BASE - 4096);
    for gpa in [first, last] {
        let index = bench.plan.page_index(gpa).unwrap();
        bench.with(index, false, |rmp| {
            rmp.set_launch_page(index);
        });
        let private = bench.plan.private_page(index);
        assert_eq!(bench.reach(Vmpl::Vmpl0, gpa | C), Some((private, WRITE)));
        assert_eq!(bench.reach(Vmpl::Vmpl0, gpa), None);
    }
    assert_eq!(bench.reach(Vmpl::Vmpl0, first - 4096), None);
}

#[test]
fn tables_fit_the_plan() {
    for bytes in [16 << 20, 1 << 30, 3 << 30, 8 << 30] {
        let plan = MemoryPlan::new(GuestMemory::new(bytes)).unwrap();
        let pages = plan.layout().pages() as u64;
        let tables = NestedTables::build(&TestHardware::default(), plan, 1 << 40, false);
        assert!(tables.bytes() + pages * 9 <= plan.tables_bytes());
    }
}
