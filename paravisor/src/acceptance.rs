// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking RAM into use at boot: the host assigns it (unless it starts assigned), we validate and zero
//! it, and the guest is let in where the page is its own.
//!
//! Works in 2 MiB pages and falls back to 4 KiB pages where the RMP is finer.

use core::iter::once;

use snp::address::{GuestPhysicalAddress, PageSize};
use snp::operands::InstructionCode;
use snp::psc::{PscDescriptor, PscEntry, PscOperation};
use svsm_swiotlb::host_reply::{Shortfall, submit};
use svsm_swiotlb::platform::{HostPages, PageInstructions};

use crate::page_owner::{OwnError, PageOwner};
use crate::range_list::PhysRange;
use crate::termination::Reason;

/// Memory that has just been validated and zeroed for VMPL0 itself. There is one such value per
/// range, so whoever holds it owns the bytes.
#[derive(Debug)]
pub struct OwnMemory {
    range: PhysRange,
}

impl OwnMemory {
    /// Where it is.
    #[must_use]
    pub const fn range(&self) -> PhysRange {
        self.range
    }

    /// What lies before `address`, and the rest.
    ///
    /// # Errors
    /// [`Reason::StorageInvalid`] when it is not in there.
    pub fn split(self, address: u64) -> Result<(Self, Self), Reason> {
        let PhysRange { start, end } = self.range;
        let own = |start, end| Self {
            range: PhysRange { start, end },
        };
        if (start..=end).contains(&address) {
            Ok((own(start, address), own(address, end)))
        } else {
            Err(Reason::StorageInvalid)
        }
    }
}

/// Takes RAM into use.
#[derive(Debug)]
pub struct Acceptance<'a, M> {
    /// Owner of the instructions.
    pub owner: &'a PageOwner<'a, M>,
    /// RAM outside the launch starts with the host (`memory_is_shared`), which then has to assign it
    /// first. Otherwise it must not be asked: the pages are ours already.
    pub memory_is_shared: bool,
}

impl<M: PageInstructions + HostPages> Acceptance<'_, M> {
    /// Assigns, validates and zeroes ranges of the guest and lets it in.
    ///
    /// # Errors
    /// The reason with which the boot has to end.
    pub fn give(&self, ranges: impl Iterator<Item = PhysRange> + Clone) -> Result<(), Reason> {
        self.assign(ranges.clone())?;
        for range in ranges {
            each_page(range, |page, size| self.owner.give(page, size))?;
        }
        Ok(())
    }

    /// Assigns, validates and zeroes a range for our own use. A second time fails: the pages are valid
    /// then.
    ///
    /// # Errors
    /// The reason with which the boot has to end.
    pub fn keep(&self, range: PhysRange) -> Result<OwnMemory, Reason> {
        self.assign(once(range))?;
        each_page(range, |page, size| self.owner.keep(page, size))?;
        Ok(OwnMemory { range })
    }

    /// Grants launched pages, which are valid already and keep their contents.
    ///
    /// # Errors
    /// [`Reason::GrantFailed`].
    pub fn grant(&self, range: PhysRange) -> Result<(), Reason> {
        each_page(range, |page, size| self.owner.grant(page, size)).map_err(|_| Reason::GrantFailed)
    }

    /// Asks the host to share a range that is not validated and never will be.
    ///
    /// # Errors
    /// The reason with which the boot has to end.
    pub fn share(&self, range: PhysRange) -> Result<(), Reason> {
        let mut batch = Batch::new(self.owner.machine(), PscOperation::Shared);
        batch.add(range)?;
        batch.send()
    }

    /// Asks the host to assign ranges, unless they are assigned already.
    fn assign(&self, ranges: impl Iterator<Item = PhysRange>) -> Result<(), Reason> {
        if self.memory_is_shared {
            let mut batch = Batch::new(self.owner.machine(), PscOperation::Private);
            for range in ranges {
                batch.add(range)?;
            }
            batch.send()?;
        }
        Ok(())
    }
}

/// Page-state changes that the host is asked for in as few exits as possible.
struct Batch<'a, M> {
    machine: &'a M,
    operation: PscOperation,
    descriptor: PscDescriptor,
    /// Entries that are filled.
    count: u16,
}

impl<'a, M: HostPages> Batch<'a, M> {
    const fn new(machine: &'a M, operation: PscOperation) -> Self {
        Self {
            machine,
            operation,
            descriptor: PscDescriptor::new(),
            count: 0,
        }
    }

    /// Adds the pages of a range; what fills a descriptor is asked for at once.
    // Once in the image, whatever ranges come from.
    #[inline(never)]
    fn add(&mut self, range: PhysRange) -> Result<(), Reason> {
        for (gpa, large) in range.pages() {
            if usize::from(self.count) == self.descriptor.entries.len() {
                self.send()?;
            }
            if let Some(slot) = self.descriptor.entries.get_mut(usize::from(self.count)) {
                let page = GuestPhysicalAddress::new(gpa);
                *slot = PscEntry::request(page, page_size(large), self.operation);
                self.count += 1;
            }
        }
        Ok(())
    }

    /// Has the host do what was added.
    #[inline(never)]
    fn send(&mut self) -> Result<(), Reason> {
        let Some(end_entry) = self.count.checked_sub(1) else {
            return Ok(());
        };
        let done = submit(self.machine, &mut self.descriptor, end_entry, |_| {});
        done.map_err(|shortfall| match shortfall {
            Shortfall::Declined(..) => Reason::PscRefused,
            Shortfall::Broken(_) => Reason::PscMisbehaved,
        })?;
        (self.descriptor, self.count) = (PscDescriptor::new(), 0);
        Ok(())
    }
}

/// The page size of an entry of [`PhysRange::pages`].
const fn page_size(large: bool) -> PageSize {
    if large {
        PageSize::Size2M
    } else {
        PageSize::Size4K
    }
}

/// Does something with every page of a range; a large page that the RMP holds in small ones is done
/// in small ones.
fn each_page(
    range: PhysRange,
    mut work: impl FnMut(GuestPhysicalAddress, PageSize) -> Result<(), OwnError>,
) -> Result<(), Reason> {
    for (gpa, large) in range.pages() {
        let first = GuestPhysicalAddress::new(gpa);
        match work(first, page_size(large)) {
            Err(OwnError::Unchanged(InstructionCode::FAIL_SIZEMISMATCH)) if large => {}
            result => {
                result.map_err(reason)?;
                continue;
            }
        }
        for number in 0..PageSize::Size2M.pages() {
            let page = gpa + number * PageSize::Size4K.bytes();
            work(GuestPhysicalAddress::new(page), PageSize::Size4K).map_err(reason)?;
        }
    }
    Ok(())
}

/// Why the boot ends when a page cannot be taken into use.
const fn reason(error: OwnError) -> Reason {
    match error {
        OwnError::Forbidden => Reason::ValidateForbidden,
        OwnError::Tampered => Reason::ValidateTwice,
        OwnError::Unchanged(_) | OwnError::NotValid | OwnError::Lost => Reason::ValidateFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::{Acceptance, PageOwner, PageSize, PhysRange, Reason};
    use crate::boot_plan::tests::plan as usual_plan;
    use crate::test_machine::{Step, TestMachine};
    use svsm_swiotlb::host_reply::MAX_FRUITLESS_EXITS;

    const RANGE: PhysRange = PhysRange {
        start: 0x1ff_f000,
        end: 0x240_1000,
    };

    fn accept(machine: &TestMachine, shared: bool, guest: bool) -> Result<(), Reason> {
        let plan = usual_plan(1);
        let pages = PageOwner::new(&plan, machine);
        let acceptance = Acceptance {
            owner: &pages,
            memory_is_shared: shared,
        };
        if guest {
            acceptance.give([RANGE].into_iter())
        } else {
            let own = acceptance.keep(RANGE)?;
            assert_eq!(own.range(), RANGE);
            Ok(())
        }
    }

    #[test]
    fn shared_memory_is_assigned_in_one_exit_then_validated_zeroed_and_granted() {
        let machine = TestMachine::default();
        accept(&machine, true, true).unwrap();
        let mut want = vec![Step::Psc(4)];
        for (gpa, size) in [
            (0x1ff_f000, PageSize::Size4K),
            (0x200_0000, PageSize::Size2M),
            (0x220_0000, PageSize::Size2M),
            (0x240_0000, PageSize::Size4K),
        ] {
            want.push(Step::Pvalidate(gpa, size, true));
            want.push(Step::Zero(gpa, size));
            want.push(Step::Rmpadjust(gpa, size, 0xf02));
        }
        assert_eq!(machine.steps(), want);
    }

    #[test]
    fn private_memory_is_not_asked_for_and_ours_is_not_granted() {
        let machine = TestMachine::default();
        for (gpa, _) in (PhysRange {
            start: RANGE.start,
            end: 0x260_0000,
        })
        .pages()
        {
            for page in 0..512 {
                machine.page(gpa + page * 4096, |page| page.assigned = true);
            }
        }
        accept(&machine, false, false).unwrap();
        let steps = machine.steps();
        assert!(
            !steps
                .iter()
                .any(|step| matches!(step, Step::Psc(_) | Step::Rmpadjust(..)))
        );
        assert!(steps.contains(&Step::Zero(0x200_0000, PageSize::Size2M)));
    }

    #[test]
    fn small_rmp_entries_are_done_one_by_one() {
        let machine = TestMachine::default();
        machine.small_rmp.set(true);
        accept(&machine, true, true).unwrap();
        let large = |step: &&Step| matches!(step, Step::Pvalidate(_, PageSize::Size2M, _));
        let small = |step: &&Step| matches!(step, Step::Pvalidate(_, PageSize::Size4K, true));
        let steps = machine.steps();
        assert_eq!(steps.iter().filter(large).count(), 2);
        assert_eq!(steps.iter().filter(small).count(), 2 + 2 * 512);
        machine.page(0x23f_f000, |page| assert_eq!(page.permissions[2], 0xf));
    }

    #[test]
    fn a_host_that_returns_early_is_asked_again() {
        let machine = TestMachine::default();
        machine.psc_per_exit.set(Some(1));
        accept(&machine, true, true).unwrap();
        let exits = machine
            .steps()
            .iter()
            .filter(|step| **step == Step::Psc(1))
            .count();
        assert_eq!(exits, 4);
    }

    #[test]
    fn a_host_may_stall_at_each_entry_but_not_for_ever() {
        let machine = TestMachine::default();
        machine.psc_per_exit.set(Some(1));
        machine.psc_stalls.set(MAX_FRUITLESS_EXITS - 1);
        accept(&machine, true, true).unwrap();
        let machine = TestMachine::default();
        machine.psc_stalls.set(MAX_FRUITLESS_EXITS);
        assert_eq!(accept(&machine, true, true), Err(Reason::PscRefused));
    }

    #[test]
    fn a_host_that_stalls_refuses_or_lies_ends_the_boot() {
        let machine = TestMachine::default();
        machine.psc_per_exit.set(Some(0));
        assert_eq!(accept(&machine, true, true), Err(Reason::PscRefused));
        machine.psc_per_exit.set(Some(1));
        machine.psc_error.set(1 << 40);
        assert_eq!(accept(&machine, true, true), Err(Reason::PscRefused));
        machine.psc_per_exit.set(None);
        assert_eq!(accept(&machine, true, true), Err(Reason::PscMisbehaved));
        let machine = TestMachine::default();
        machine.launch(0x220_0000);
        machine.launch(0x1ff_f000);
        assert_eq!(accept(&machine, true, true), Err(Reason::ValidateTwice));
    }

    #[test]
    fn host_pages_are_shared_in_few_exits_and_never_validated() {
        for (processors, exits) in [(1, 0), (2, 1), (512, 3)] {
            let plan = usual_plan(processors);
            let machine = TestMachine::default();
            let pages = PageOwner::new(&plan, &machine);
            let acceptance = Acceptance {
                owner: &pages,
                memory_is_shared: false,
            };
            let host_pages = plan.processors.host_pages();
            let others = u64::from(processors) - 1;
            assert_eq!(host_pages.bytes(), others * 2 * 4096);
            acceptance.share(host_pages).unwrap();
            let steps = machine.steps();
            assert_eq!(steps.len(), exits, "{processors}");
            assert!(steps.iter().all(|step| matches!(step, Step::Psc(_))));
            for gpa in (host_pages.start..host_pages.end).step_by(4096) {
                machine.page(gpa, |page| assert!(!page.assigned && !page.valid));
                let page = PhysRange::new(gpa, 4096).unwrap();
                assert!(matches!(
                    acceptance.keep(page),
                    Err(Reason::ValidateForbidden)
                ));
            }
            assert_eq!(machine.steps(), []);
        }
    }

    #[test]
    fn many_ranges_are_assigned_in_few_exits_before_any_is_validated() {
        let piece = |number: u64| {
            let start = 0x1000_0000 + number * 0x3000;
            PhysRange::new(start, 0x1000).unwrap()
        };
        for (count, batches) in [
            (0, &[][..]),
            (1, &[1]),
            (253, &[253]),
            (600, &[253, 253, 94]),
        ] {
            let machine = TestMachine::default();
            let plan = usual_plan(1);
            let pages = PageOwner::new(&plan, &machine);
            let acceptance = Acceptance {
                owner: &pages,
                memory_is_shared: true,
            };
            acceptance.give((0..count).map(piece)).unwrap();
            let steps = machine.steps();
            let want: Vec<_> = batches.iter().map(|count| Step::Psc(*count)).collect();
            assert_eq!(steps[..batches.len()], want);
            let granted = |step: &&Step| matches!(step, Step::Rmpadjust(..));
            assert_eq!(steps.iter().filter(granted).count() as u64, count);
            assert_eq!(steps.len() as u64, batches.len() as u64 + 3 * count);
        }
    }

    #[test]
    fn what_was_kept_is_split_inside_it_only() {
        let machine = TestMachine::default();
        let plan = usual_plan(1);
        let pages = PageOwner::new(&plan, &machine);
        let acceptance = Acceptance {
            owner: &pages,
            memory_is_shared: true,
        };
        let page = |number: u64| RANGE.start + number * 4096;
        let keep = |number| {
            let range = PhysRange::new(page(number), 4 * 4096).unwrap();
            acceptance.keep(range).unwrap()
        };
        let (first, rest) = keep(0).split(page(1)).unwrap();
        assert_eq!(first.range(), PhysRange::new(page(0), 4096).unwrap());
        assert_eq!(rest.range(), PhysRange::new(page(1), 3 * 4096).unwrap());
        assert!(rest.split(page(0)).is_err(), "not in the rest any more");
        assert!(keep(8).split(page(13)).is_err());
    }
}
