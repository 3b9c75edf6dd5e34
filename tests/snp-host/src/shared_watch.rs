// SPDX-License-Identifier: MIT OR Apache-2.0
//! What shared pages held at a moment that the guest names, compared when they are given back and at the end.
//!
//! A guest that says that its devices use one place only can be checked from outside: whatever else is shared holds at
//! the end what it held before. This host does not know which changes are right. It tells all of them, and which of the
//! pages it shares with the guest by a protocol of its own: GHCBs and #HV doorbell pages.

use snp::address::PAGE_SIZE;

use crate::counters::Event;
use crate::hardware::{Hardware, PhysicalMemory};
use crate::machine::Machine;
use crate::record::kind;

/// The page was shared when the watch began; the rest of the word is the fingerprint of what it held.
const WATCHED: u64 = 1;
/// It held something else later.
const CHANGED: u64 = 2;
/// It is or was a GHCB or a #HV doorbell page.
const PROTOCOL: u64 = 4;
const FLAGS: u64 = WATCHED | CHANGED | PROTOCOL;
/// Runs of changed pages that get a record; all pages are counted.
const MAX_RECORDS: u64 = 1024;

/// A word for each page of the guest.
#[derive(Debug)]
pub struct SharedWatch<'a> {
    words: &'a mut [u64],
    is_on: bool,
}

impl<'a> SharedWatch<'a> {
    /// Watches nothing yet; `words` are zero.
    pub const fn new(words: &'a mut [u64]) -> Self {
        Self {
            words,
            is_on: false,
        }
    }

    fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    fn set(&mut self, index: usize, word: u64) {
        if let Some(own) = self.words.get_mut(index) {
            *own = word;
        }
    }
}

/// Fingerprint of a page, with room for the flags.
fn fingerprint(memory: &impl PhysicalMemory, gpa: u64) -> u64 {
    memory.fingerprint(gpa, PAGE_SIZE) & !FLAGS
}

impl<H: Hardware> Machine<'_, H> {
    /// The guest shares the page at `gpa` with this host for a protocol: it changes whatever devices do.
    pub fn note_protocol_page(&mut self, gpa: u64) {
        if let Some(index) = self.plan.page_index(gpa) {
            let word = self.watch.word(index);
            self.watch.set(index, word | PROTOCOL);
        }
    }

    /// Notes what each page holds that is shared now. Only the first call does.
    pub fn watch_shared_pages(&mut self) {
        if core::mem::replace(&mut self.watch.is_on, true) {
            return;
        }
        for index in 0..self.plan.layout().pages() {
            if self.shared_view.is_shared(index) {
                let held = fingerprint(&self.hardware, self.plan.shared_page(index));
                let word = self.watch.word(index);
                self.watch.set(index, word & FLAGS | held | WATCHED);
                self.counters.event(Event::SharedWatched);
            }
        }
    }

    /// Compares page `index`, which is still shared, with what it held.
    pub fn compare_shared_page(&mut self, index: usize) {
        let word = self.watch.word(index);
        if word & WATCHED == 0 || word & CHANGED != 0 {
            return;
        }
        if fingerprint(&self.hardware, self.plan.shared_page(index)) != word & !FLAGS {
            self.watch.set(index, word | CHANGED);
            self.counters.event(Event::SharedChanged);
        }
    }

    /// Compares what is still shared, and tells all changes in runs of neighbours.
    pub fn report_shared_changes(&mut self) {
        if !self.watch.is_on {
            return;
        }
        let pages = self.plan.layout().pages();
        for index in 0..pages {
            if self.shared_view.is_shared(index) {
                self.compare_shared_page(index);
            }
        }
        let mut told = 0;
        let mut run: Option<(u64, u64, u64)> = None;
        for index in 0..pages {
            let word = self.watch.word(index);
            if word & CHANGED == 0 {
                continue;
            }
            let (gpa, protocol) = (self.plan.shared_page(index), word & PROTOCOL);
            match &mut run {
                Some((start, bytes, kind)) if *start + *bytes == gpa && *kind == protocol => {
                    *bytes += PAGE_SIZE;
                }
                _ => {
                    told += self.tell_change(run.take(), told);
                    run = Some((gpa, PAGE_SIZE, protocol));
                }
            }
        }
        self.tell_change(run, told);
    }

    fn tell_change(&self, run: Option<(u64, u64, u64)>, told: u64) -> u64 {
        let Some((gpa, bytes, protocol)) = run.filter(|_| told < MAX_RECORDS) else {
            return 0;
        };
        let flag = u8::from(protocol != 0);
        self.record(
            kind::CHANGED,
            format_args!("gpa={gpa:#x} bytes={bytes} protocol={flag}"),
        );
        1
    }
}
