// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pages of a batch, whose words are taken until it is clear what becomes of them.

use protocol::convert::Outcome;
use snp::address::{GuestPhysicalAddress, PageSize};

use crate::page_state::{HeldPages, PageState};

/// Entries of a batch: what one page-state change carries.
pub(crate) const BATCH_ENTRIES: usize = snp::psc::MAX_ENTRIES;

/// One entry. It is *live* as long as its words are held; one that loses them without a word is quarantined (P3).
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub page: GuestPhysicalAddress,
    pub size: PageSize,
    /// A large page whose permissions were revoked 4 KiB at a time.
    pub split: bool,
    held: Option<HeldPages<'a>>,
    outcome: Outcome,
}

impl<'a> Item<'a> {
    pub const fn new(page: GuestPhysicalAddress, size: PageSize, held: HeldPages<'a>) -> Self {
        Self {
            page,
            size,
            split: false,
            held: Some(held),
            outcome: Outcome::Quarantined,
        }
    }

    pub const fn is_live(&self) -> bool {
        self.held.is_some()
    }

    /// The pages are in `state` now.
    pub fn settle(&mut self, state: PageState, outcome: Outcome) {
        if let Some(held) = self.held.take() {
            held.change_to(state);
            self.outcome = outcome;
        }
    }

    /// The pages are what they were.
    pub fn keep(&mut self) {
        if let Some(held) = self.held.take() {
            held.keep();
            self.outcome = Outcome::Unchanged;
        }
    }

    /// Nobody knows what the pages are.
    pub fn lose(&mut self) {
        drop(self.held.take());
    }
}

/// A batch: consecutive entries of a list, from its cursor on.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    items: [Option<Item<'a>>; BATCH_ENTRIES],
    count: usize,
}

impl<'a> Batch<'a> {
    pub const fn new() -> Self {
        Self {
            items: [const { None }; BATCH_ENTRIES],
            count: 0,
        }
    }

    pub const fn len(&self) -> usize {
        self.count
    }

    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds an entry; one too many is dropped, which quarantines it. Nobody tries: a batch is cut from as many entries.
    pub(super) fn push(&mut self, item: Item<'a>) {
        if let Some(slot) = self.items.get_mut(self.count) {
            *slot = Some(item);
            self.count = self.count.saturating_add(1);
        }
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Item<'a>> {
        self.items.iter().flatten().filter(|item| item.is_live())
    }

    pub(super) fn live_mut(&mut self) -> impl Iterator<Item = &mut Item<'a>> {
        let items = self.items.iter_mut().flatten();
        items.filter(|item| item.is_live())
    }

    /// Nobody knows what the pages still held are.
    pub(super) fn lose_live(&mut self) {
        self.live_mut().for_each(Item::lose);
    }

    /// What became of each entry, in order.
    pub fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        self.items.iter().flatten().map(|item| item.outcome)
    }
}
