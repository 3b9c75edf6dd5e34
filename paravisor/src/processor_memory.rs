// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory of the processors besides the boot processor: how much they need, and what lies where.
//!
//! The boot processor's pages are in the image, since its entry code needs them. The others are as many as
//! the machine has, so boot carves what they need out of RAM, as the last part of the service's storage:
//!
//! ```text
//!   page tables | vCPU table | contexts | VMSAs | stacks, a guard page below each | host pages
//! ```
//!
//! All of it is validated and zeroed like the rest of the storage, but for the host pages, which are never
//! validated: there is nothing to rescind, and no page is both mapped private and shared.

use crate::guest_vmsa::usable_page;
use crate::layout::{LARGE_PAGE_BYTES, PAGE_BYTES};
use crate::range_list::PhysRange;
use crate::vcpu_table::VcpuSlot;

/// Bytes of an ordinary stack.
pub const STACK_BYTES: u64 = 0x1_0000;
/// Bytes of a stack for double faults.
pub const FAULT_STACK_BYTES: u64 = PAGE_BYTES;
/// Bytes of the stacks of one processor. Below each of them lies a guard page: an overflow faults instead of
/// overwriting something.
pub const STACKS_BYTES: u64 = 2 * PAGE_BYTES + STACK_BYTES + FAULT_STACK_BYTES;
/// Bytes of what a processor knows about itself.
pub const CONTEXT_BYTES: u64 = 512;
/// Tables that map image and storage, and what their edges add to the tables of the memory around them: root, one
/// for 512 GiB, and for each end of a range that is not a multiple of 1 GiB or 2 MiB at most one of each smaller kind.
pub const PLAIN_TABLES: usize = 48;

/// Bytes of the two pages of which one becomes a VMSA, since a VMSA must not be 2 MiB aligned.
const VMSA_BYTES: u64 = 2 * PAGE_BYTES;
const SLOT_BYTES: u64 = size_of::<VcpuSlot>() as u64;

/// What the processors of a machine need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessorNeeds {
    /// Processors besides the boot processor.
    others: u64,
    /// Pages of each that are shared with the host.
    host_pages: u64,
    /// Page tables that the memory needs because it is in pieces.
    scattered_tables: u64,
}

impl ProcessorNeeds {
    /// For so many processors, each with a GHCB and, under restricted injection, a doorbell, and memory that needs
    /// `scattered_tables` because it is in pieces.
    #[must_use]
    pub const fn new(processors: u32, restricted_injection: bool, scattered_tables: u64) -> Self {
        Self {
            others: (processors as u64).saturating_sub(1),
            host_pages: if restricted_injection { 2 } else { 1 },
            scattered_tables,
        }
    }

    /// Bytes of all of it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.offset(Part::End)
    }

    /// Bytes that one more processor takes, of which its share of the page tables and the pages that are not
    /// filled are left out.
    #[must_use]
    pub const fn bytes_each(&self) -> u64 {
        SLOT_BYTES + CONTEXT_BYTES + VMSA_BYTES + STACKS_BYTES + self.host_pages * PAGE_BYTES
    }

    /// Bytes before a part.
    fn offset(&self, part: Part) -> u64 {
        let Self {
            others,
            host_pages,
            scattered_tables,
        } = *self;
        let small = others * (STACKS_BYTES + host_pages * PAGE_BYTES);
        // A table for each 2 MiB that is mapped in small pages, and those for its ragged ends.
        let tables = PLAIN_TABLES as u64 + scattered_tables + small / LARGE_PAGE_BYTES + 3;
        let sizes = [
            tables * PAGE_BYTES,
            (others + 1) * SLOT_BYTES,
            others * CONTEXT_BYTES,
            others * VMSA_BYTES,
            others * STACKS_BYTES,
            others * host_pages * PAGE_BYTES,
        ];
        let before = sizes.iter().take(part as usize);
        before.map(|bytes| bytes.next_multiple_of(PAGE_BYTES)).sum()
    }
}

/// The parts, in order.
#[derive(Clone, Copy)]
enum Part {
    Tables,
    Slots,
    Contexts,
    Vmsas,
    Stacks,
    HostPages,
    End,
}

/// The memory in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessorMemory {
    needs: ProcessorNeeds,
    start: u64,
}

impl ProcessorMemory {
    /// The end of `storage`, which is large enough.
    #[must_use]
    pub fn new(needs: ProcessorNeeds, storage: PhysRange) -> Self {
        Self {
            needs,
            start: storage.end.saturating_sub(needs.bytes()),
        }
    }

    /// What is needed.
    #[must_use]
    pub const fn needs(&self) -> ProcessorNeeds {
        self.needs
    }

    /// Processors besides the boot processor.
    #[must_use]
    pub const fn others(&self) -> u64 {
        self.needs.others
    }

    fn part(&self, part: Part, behind: Part) -> PhysRange {
        PhysRange {
            start: self.start + self.needs.offset(part),
            end: self.start + self.needs.offset(behind),
        }
    }

    /// Page tables that map all memory, and this with its guard pages.
    #[must_use]
    pub fn tables(&self) -> PhysRange {
        self.part(Part::Tables, Part::Slots)
    }

    /// Slots of the vCPU table, that of the boot processor too.
    #[must_use]
    pub fn slots(&self) -> PhysRange {
        self.part(Part::Slots, Part::Contexts)
    }

    /// Contexts.
    #[must_use]
    pub fn contexts(&self) -> PhysRange {
        self.part(Part::Contexts, Part::Vmsas)
    }

    /// Stacks, with the guard pages.
    #[must_use]
    pub fn all_stacks(&self) -> PhysRange {
        self.part(Part::Stacks, Part::HostPages)
    }

    /// Pages that are shared with the host.
    #[must_use]
    pub fn host_pages(&self) -> PhysRange {
        self.part(Part::HostPages, Part::End)
    }

    /// Page for the VMSA with which VMPL0 starts on the processor `number`, not the boot processor.
    #[must_use]
    pub fn vmsa(&self, number: u64) -> u64 {
        let vmsas = self.part(Part::Vmsas, Part::Stacks);
        usable_page(vmsas.start + (number - 1) * VMSA_BYTES)
    }

    /// The stack of the processor `number`, not the boot processor, and the one for its double faults.
    #[must_use]
    pub fn stacks(&self, number: u64) -> [PhysRange; 2] {
        stacks_at(self.all_stacks().start + (number - 1) * STACKS_BYTES)
    }

    /// The GHCB of the processor `number`, not the boot processor.
    #[must_use]
    pub fn ghcb(&self, number: u64) -> u64 {
        self.host_pages().start + (number - 1) * self.needs.host_pages * PAGE_BYTES
    }

    /// Its doorbell; `None` without restricted injection.
    #[must_use]
    pub fn doorbell(&self, number: u64) -> Option<u64> {
        match self.needs.host_pages {
            2 => Some(self.ghcb(number) + PAGE_BYTES),
            _ => None,
        }
    }
}

/// An ordinary stack and one for double faults, of which the first's guard page is at `start`.
#[must_use]
pub const fn stacks_at(start: u64) -> [PhysRange; 2] {
    let stack = PhysRange {
        start: start + PAGE_BYTES,
        end: start + PAGE_BYTES + STACK_BYTES,
    };
    let fault_stack = PhysRange {
        start: stack.end + PAGE_BYTES,
        end: stack.end + PAGE_BYTES + FAULT_STACK_BYTES,
    };
    [stack, fault_stack]
}

#[cfg(test)]
mod tests {
    use super::{
        CONTEXT_BYTES, LARGE_PAGE_BYTES, PAGE_BYTES, PLAIN_TABLES, PhysRange, ProcessorMemory,
        ProcessorNeeds, SLOT_BYTES,
    };

    const STORAGE: PhysRange = PhysRange {
        start: 0x1_0000_0000,
        end: 0x1_4000_0000,
    };

    fn page(start: u64) -> PhysRange {
        PhysRange {
            start,
            end: start + PAGE_BYTES,
        }
    }

    #[test]
    fn no_two_processors_share_a_page_that_one_of_them_writes() {
        for restricted in [false, true] {
            for processors in [2_u32, 16, 512, 2045] {
                let needs = ProcessorNeeds::new(processors, restricted, 0);
                let memory = ProcessorMemory::new(needs, STORAGE);
                let others = u64::from(processors) - 1;
                assert!(memory.slots().bytes() >= (others + 1) * SLOT_BYTES);
                assert!(memory.contexts().bytes() >= others * CONTEXT_BYTES);
                let mut ranges = vec![memory.tables(), memory.slots(), memory.contexts()];
                for number in 1..=others {
                    let [stack, fault_stack] = memory.stacks(number);
                    // The guard pages are in no other range.
                    ranges.push(page(memory.vmsa(number)));
                    ranges.push(PhysRange {
                        start: stack.start - PAGE_BYTES,
                        ..stack
                    });
                    ranges.push(PhysRange {
                        start: fault_stack.start - PAGE_BYTES,
                        ..fault_stack
                    });
                    ranges.push(page(memory.ghcb(number)));
                    ranges.extend(memory.doorbell(number).map(page));
                    assert!(!memory.vmsa(number).is_multiple_of(LARGE_PAGE_BYTES));
                    assert!(memory.all_stacks().contains(&stack));
                    assert!(memory.all_stacks().contains(&fault_stack));
                    assert!(memory.host_pages().contains(&page(memory.ghcb(number))));
                }
                ranges.sort_by_key(|range| range.start);
                let apart = ranges.windows(2).all(|pair| pair[0].end <= pair[1].start);
                assert!(apart, "{processors} processors");
                let (first, last) = (ranges[0], ranges[ranges.len() - 1]);
                assert_eq!((first.start, last.end), (memory.start, STORAGE.end));
                assert_eq!(last.end - first.start, needs.bytes());
            }
        }
    }

    #[test]
    fn one_processor_needs_its_slot_and_each_further_one_the_same() {
        let bytes = |processors| ProcessorNeeds::new(processors, true, 0).bytes();
        let tables = PLAIN_TABLES as u64 + 3;
        assert_eq!(bytes(1), (tables + 1) * PAGE_BYTES);
        let memory = ProcessorMemory::new(ProcessorNeeds::new(1, true, 7), STORAGE);
        assert_eq!(memory.tables().bytes(), (tables + 7) * PAGE_BYTES);
        assert!(memory.host_pages().is_empty());
        let each = ProcessorNeeds::new(2, true, 0).bytes_each();
        assert_eq!(each, 92 * 1024 + 544);
        let more = bytes(2045) - bytes(1022) - 1023 * each;
        assert!(more < 1023 * PAGE_BYTES / 8, "{more}: page tables");
    }
}
