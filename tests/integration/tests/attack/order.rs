// SPDX-License-Identifier: MIT OR Apache-2.0
//! The order in which VMPL0 changes pages, watched from below: invariants P1, P2 and P3, and rows D and E of the
//! catalogue.
//!
//! It knows nothing of state words. What an instruction did is told as it happens; what must not have happened is kept
//! until somebody asks.

use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize};

/// The guest's by VMPL0's own doing: validated and not rescinded.
const VALID: u8 = 1;
/// Revoked and not flushed: a lower VMPL may still use an old translation.
const STALE: u8 = 2;
/// Validated and not zeroed.
const DIRTY: u8 = 4;
/// Permissions of VMPL1, VMPL2 and VMPL3.
const REACHED: [u8; 3] = [8, 16, 32];
const ANY: u8 = 8 | 16 | 32;
/// Validated, and caches may hold lines of it from before.
const STALE_LINES: u8 = 128;
/// In quarantine: not to be touched again.
const LOST: u8 = 64;

/// What every page went through.
#[derive(Debug)]
pub struct Order {
    pages: Vec<u8>,
    stale: Vec<usize>,
    broken: Vec<String>,
    /// CONVERT flushes before it rescinds; the core protocol before it lets a page go.
    flush_before_rescind: bool,
}

impl Order {
    /// Over memory of so many bytes, from address 0 on; none of it valid.
    pub fn new(bytes: u64, flush_before_rescind: bool) -> Self {
        let pages = usize::try_from(bytes / PAGE_SIZE).unwrap();
        Self {
            pages: vec![0; pages],
            stale: Vec::new(),
            broken: Vec::new(),
            flush_before_rescind,
        }
    }

    /// A page that was valid before anybody looked, and anybody's.
    pub fn launched(&mut self, page: u64) {
        if let Some(page) = self.pages.get_mut(index(page)) {
            *page = VALID | ANY;
        }
    }

    /// A page is in quarantine from now on.
    pub fn lost(&mut self, page: u64) {
        if let Some(page) = self.pages.get_mut(index(page)) {
            *page |= LOST;
        }
    }

    /// A platform call names a page.
    pub fn touches(&mut self, page: GuestPhysicalAddress, size: PageSize) {
        self.each(page, size, "P3: used in quarantine", |flags| {
            *flags & LOST == 0
        });
    }

    /// What was done against the rules so far.
    pub fn broken(&self) -> &[String] {
        &self.broken
    }

    fn each(
        &mut self,
        page: GuestPhysicalAddress,
        size: PageSize,
        rule: &str,
        mut step: impl FnMut(&mut u8) -> bool,
    ) {
        let first = index(page.bits());
        let count = usize::try_from(size.pages()).unwrap();
        let pages = self.pages.iter_mut().skip(first).take(count);
        let wrong = pages.filter_map(|page| (!step(page)).then_some(())).count();
        if wrong > 0 {
            self.broken.push(format!("{rule}: {page}, {wrong} pages"));
        }
    }

    /// RMPADJUST succeeded.
    pub fn adjusted(&mut self, page: GuestPhysicalAddress, size: PageSize, vmpl: u8, grants: bool) {
        let level = REACHED
            .get(usize::from(vmpl) - 1)
            .copied()
            .unwrap_or_default();
        if grants {
            self.each(page, size, "D: granted before it was zeroed", |flags| {
                *flags |= level;
                *flags & (DIRTY | STALE_LINES) == 0
            });
        } else {
            self.each(page, size, "", |flags| {
                *flags = *flags & !level | STALE;
                true
            });
            let first = index(page.bits());
            self.stale
                .extend(first..first + usize::try_from(size.pages()).unwrap());
        }
    }

    /// PVALIDATE(0) is about to be executed.
    pub fn rescinds(&mut self, page: GuestPhysicalAddress, size: PageSize) {
        let unflushed = if self.flush_before_rescind { STALE } else { 0 };
        self.each(page, size, "P2: rescinded before the flush", |flags| {
            *flags & unflushed == 0
        });
        self.each(page, size, "E: permissions outlive the rescind", |flags| {
            *flags & ANY == 0
        });
    }

    /// PVALIDATE(1) is about to be executed.
    pub fn validates(&mut self, page: GuestPhysicalAddress, size: PageSize) {
        self.each(page, size, "P1: validated twice", |flags| {
            *flags & VALID == 0
        });
    }

    /// PVALIDATE changed something.
    pub fn validated(&mut self, page: GuestPhysicalAddress, size: PageSize, validate: bool) {
        self.each(page, size, "", |flags| {
            *flags &= !(VALID | DIRTY | STALE_LINES);
            if validate {
                *flags |= VALID | DIRTY | STALE_LINES;
            }
            true
        });
    }

    /// Caches have forgotten a page.
    pub fn evicted(&mut self, page: GuestPhysicalAddress, size: PageSize) {
        self.each(page, size, "P2: evicted before it was validated", |flags| {
            *flags &= !STALE_LINES;
            *flags & VALID != 0
        });
    }

    /// A page is zero.
    pub fn zeroed(&mut self, page: GuestPhysicalAddress, size: PageSize) {
        self.each(page, size, "P2: zeroed before caches forgot it", |flags| {
            *flags &= !DIRTY;
            *flags & STALE_LINES == 0
        });
    }

    /// A flush.
    pub fn flushed(&mut self) {
        for page in self.stale.drain(..) {
            if let Some(flags) = self.pages.get_mut(page) {
                *flags &= !STALE;
            }
        }
    }

    /// The host is asked to share a page.
    pub fn shared(&mut self, page: GuestPhysicalAddress, size: PageSize) {
        self.each(
            page,
            size,
            "P2: the host has it before the flush",
            |flags| *flags & STALE == 0,
        );
        self.each(
            page,
            size,
            "P2: the host has it while it is valid",
            |flags| *flags & VALID == 0,
        );
    }
}

fn index(page: u64) -> usize {
    usize::try_from(page / PAGE_SIZE).unwrap_or(usize::MAX)
}
