// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pattern test of the shared view.
//!
//! A device can write to the shared view of any page. Wherever the guest has not asked for a page
//! to be shared, that view holds a pattern made from its address. The pattern is compared when the
//! page becomes shared and at the end, and written anew when the page is given back: a device or a
//! guest that writes where nothing is shared is found, and a page that becomes shared shows the
//! pattern and never private bytes.

use snp::address::PAGE_SIZE;
use snp::vmsa::LAUNCH_VMSA;

use crate::counters::Event;
use crate::hardware::{Hardware, PhysicalMemory};
use crate::machine::Machine;
use crate::memory_plan::MemoryPlan;
use crate::record::kind;

/// Video memory and firmware ROM below 1 MiB: its shared view is not RAM.
const LEGACY_HOLE: core::ops::Range<u64> = 0xA_0000..0x10_0000;
/// Damaged pages that get a record of their own; all are counted.
const MAX_RECORDS: u64 = 16;

/// The word that fills the shared view of the page at `gpa` while it is not shared.
#[must_use]
pub const fn pattern(gpa: u64) -> u64 {
    (gpa ^ LAUNCH_VMSA).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}

/// The word that fills a private page the host has just assigned: the guest must not see what an
/// earlier assignment held, and a guest that forgets to zero the page finds this.
#[must_use]
pub const fn scramble(gpa: u64) -> u64 {
    !pattern(gpa)
}

/// Which pages are shared on request.
#[derive(Debug)]
pub struct SharedView<'a> {
    shared: &'a mut [bool],
    pages: u64,
    patterned: bool,
}

impl<'a> SharedView<'a> {
    /// Nothing shared yet; `patterned` turns the test on.
    pub const fn new(shared: &'a mut [bool], patterned: bool) -> Self {
        Self {
            shared,
            pages: 0,
            patterned,
        }
    }

    /// Whether the guest asked for page `index` to be shared.
    #[must_use]
    pub fn is_shared(&self, index: usize) -> bool {
        self.shared.get(index).copied().unwrap_or(false)
    }

    /// Bytes shared on request.
    #[must_use]
    pub const fn shared_bytes(&self) -> u64 {
        self.pages * PAGE_SIZE
    }

    /// Whether the pattern test is on.
    #[must_use]
    pub const fn is_patterned(&self) -> bool {
        self.patterned
    }

    /// Marks page `index`; true when that is a change.
    pub fn mark(&mut self, index: usize, shared: bool) -> bool {
        match self.shared.get_mut(index) {
            Some(state) if *state != shared => {
                *state = shared;
                self.pages = if shared {
                    self.pages + 1
                } else {
                    self.pages.saturating_sub(1)
                };
                true
            }
            _ => false,
        }
    }
}

/// Whether the shared view of the page at `gpa` is RAM.
fn is_ram(plan: &MemoryPlan, gpa: u64) -> bool {
    !LEGACY_HOLE.contains(&gpa) && !plan.is_firmware(gpa)
}

/// Writes the pattern to the shared view of the page at `gpa`.
pub fn write_pattern(memory: &impl PhysicalMemory, plan: &MemoryPlan, gpa: u64) {
    if is_ram(plan, gpa) {
        memory.fill(gpa, PAGE_SIZE, pattern(gpa));
    }
}

impl<H: Hardware> Machine<'_, H> {
    /// Compares the pattern of page `index`, which is not shared.
    pub fn check_pattern(&mut self, index: usize) {
        let gpa = self.plan.shared_page(index);
        if !self.shared_view.is_patterned() || !is_ram(&self.plan, gpa) {
            return;
        }
        self.counters.event(Event::PatternChecked);
        let Some((offset, found)) = self.hardware.first_difference(gpa, PAGE_SIZE, pattern(gpa))
        else {
            return;
        };
        self.counters.event(Event::PatternBad);
        if self.counters.events(Event::PatternBad) <= MAX_RECORDS {
            self.record(
                kind::PATTERN,
                format_args!(
                    "gpa={gpa:#x} offset={offset:#x} found={found:#x} expected={:#x}",
                    pattern(gpa)
                ),
            );
        }
    }

    /// Compares every page that is not shared; how many there were.
    pub fn check_all_patterns(&mut self) -> usize {
        let mut checked = 0;
        if self.shared_view.is_patterned() {
            for index in 0..self.plan.layout().pages() {
                if !self.shared_view.is_shared(index) {
                    self.check_pattern(index);
                    checked += 1;
                }
            }
        }
        checked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_tell_pages_apart() {
        assert_ne!(pattern(0), pattern(PAGE_SIZE));
        assert_ne!(pattern(0), 0);
        assert_ne!(scramble(0), pattern(0));
    }

    #[test]
    fn shared_bytes_follow_the_marks() {
        let mut states = [false; 4];
        let mut view = SharedView::new(&mut states, true);
        assert!(view.mark(1, true) && view.mark(2, true) && !view.mark(2, true));
        assert_eq!(view.shared_bytes(), 2 * PAGE_SIZE);
        assert!(view.mark(1, false) && !view.mark(0, false) && !view.mark(9, true));
        assert_eq!(view.shared_bytes(), PAGE_SIZE);
        assert!(view.is_shared(2) && !view.is_shared(1));
    }
}
