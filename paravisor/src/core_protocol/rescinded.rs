// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages that were rescinded and not yet flushed.
//!
//! Their words stay taken until the flush: published as Invalid before it, a page could be validated
//! by another vCPU while a third still writes to it through an old translation (invariant P2).

use svsm_swiotlb::page_state::{HeldPages, PageState};
use svsm_swiotlb::platform::PageInstructions;

/// Entries that share a flush.
const BATCH: usize = 64;

/// A batch. Pages in it when it is dropped are quarantined.
#[derive(Debug)]
pub(super) struct Rescinded<'a> {
    held: [Option<HeldPages<'a>>; BATCH],
    count: usize,
    needs_flush: bool,
}

impl<'a> Rescinded<'a> {
    /// The empty batch.
    pub(super) const fn new() -> Self {
        Self {
            held: [const { None }; BATCH],
            count: 0,
            needs_flush: false,
        }
    }

    /// Notes that the guest may have lost access to a page, in the batch or not.
    pub(super) const fn require_flush(&mut self) {
        self.needs_flush = true;
    }

    /// Adds the pages of one entry; a full batch is settled.
    pub(super) fn add(&mut self, pages: HeldPages<'a>, machine: &impl PageInstructions) {
        if let Some(slot) = self.held.get_mut(self.count) {
            *slot = Some(pages);
        }
        self.count += 1;
        if self.count == BATCH {
            self.settle(machine);
        }
    }

    /// Flushes if anything asks for it, and gives the words back.
    pub(super) fn settle(&mut self, machine: &impl PageInstructions) {
        if self.needs_flush {
            machine.flush();
            self.needs_flush = false;
        }
        for slot in self.held.iter_mut().take(self.count) {
            if let Some(pages) = slot.take() {
                pages.change_to(PageState::Invalid);
            }
        }
        self.count = 0;
    }
}
