// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine itself: memory map, reverse map, memory, the host's manner.

use std::boxed::Box;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::vec;
use std::vec::Vec;

use snp::address::{GuestPhysicalAddress, PAGE_SIZE, PageSize};
use snp::psc::{MAX_ENTRIES, PscEntry, PscOperation};

use super::frames::{Frame, Frames};
use super::processor::Translations;
use crate::access::View;
use crate::layout::{Layout, Range};
use crate::psc::{HostError, HostManner};
use crate::rmp::{Rmp, RmpEntry};

/// What happened on the machine so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// VMGEXITs for page-state changes.
    pub psc_exits: u64,
    /// 4 KiB pages that became shared.
    pub pages_shared: u64,
    /// 4 KiB pages that became private.
    pub pages_private: u64,
    /// PVALIDATE instructions.
    pub pvalidate: u64,
    /// RMPADJUST instructions.
    pub rmpadjust: u64,
    /// Flushes of translations.
    pub flushes: u64,
    /// Copies out of guest pages by VMPL 0: what is fetched once cannot change between two looks.
    pub guest_reads: u64,
    /// Copies into guest pages by VMPL 0.
    pub guest_writes: u64,
}

/// What happens elsewhere before a VMGEXIT: exits that come before it, and what.
pub(super) type BeforeExit = (u64, Box<dyn FnOnce() + Send>);

pub(super) struct State {
    pub layout: Layout,
    pub entries: Vec<RmpEntry>,
    pub frames: Frames,
    pub translations: Translations,
    /// Pages that were validated and not zeroed since, by index.
    pub not_zeroed: BTreeSet<usize>,
    /// One of them that a lower VMPL was let at.
    pub granted_with_contents: Option<usize>,
    pub manner: HostManner,
    /// The entries in the shared buffer of each processor's GHCB; a thread plays a processor.
    pub psc_buffers: HashMap<ThreadId, Box<[PscEntry; MAX_ENTRIES]>>,
    pub counters: Counters,
    /// Platform calls left until one fails; `None` is never.
    pub fail_in: Option<u64>,
    pub before_exit: Option<BeforeExit>,
}

impl State {
    pub fn index(&self, address: GuestPhysicalAddress) -> Option<usize> {
        self.layout.index_of(address)
    }

    /// The frame behind a page.
    pub fn frame_of(&mut self, index: usize) -> &mut Frame {
        let number = self.frames.behind(index);
        self.frames.frame(number)
    }

    pub fn rmp(&mut self) -> Rmp<'_> {
        Rmp::new(&mut self.entries)
    }

    /// Counts a platform call; true when it is the one that shall fail.
    pub fn fails_now(&mut self) -> bool {
        let Some(left) = &mut self.fail_in else {
            return false;
        };
        *left = left.saturating_sub(1);
        let fails = *left == 0;
        if fails {
            self.fail_in = None;
        }
        fails
    }

    /// What the host does for one entry of a page-state change.
    pub fn change(
        &mut self,
        page: GuestPhysicalAddress,
        size: PageSize,
        operation: PscOperation,
    ) -> Result<(), HostError> {
        let index = self.index(page).ok_or(HostError)?;
        let last = page
            .checked_add(size.bytes() - PAGE_SIZE)
            .ok_or(HostError)?;
        self.index(last).ok_or(HostError)?;
        let assign = match operation {
            PscOperation::Private => true,
            PscOperation::Shared => false,
            PscOperation::Smash | PscOperation::Unsmash => return Ok(()),
        };
        for page in index..index + usize::try_from(size.pages()).map_err(|_| HostError)? {
            let owned = self.entries[page].assigned;
            if owned == assign {
                continue;
            }
            // The bits stay where they are: what was written with the key is noise without, and the other way round.
            let counter = if assign {
                &mut self.counters.pages_private
            } else {
                &mut self.counters.pages_shared
            };
            *counter += 1;
        }
        if self.rmp().rmpupdate(index, size, assign) {
            Ok(())
        } else {
            Err(HostError)
        }
    }
}

/// A machine. All methods take `&self`: several threads play several vCPUs.
pub struct Machine {
    state: Mutex<State>,
}

impl core::fmt::Debug for Machine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Machine")
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine whose memory the host owns.
    ///
    /// # Panics
    /// When the ranges are no layout.
    pub fn new(ranges: &[Range]) -> Self {
        let layout = Layout::new(ranges).expect("ascending, disjoint, multiples of 2 MiB");
        let entries = vec![RmpEntry::default(); layout.pages()];
        Self {
            state: Mutex::new(State {
                layout,
                entries,
                frames: Frames::new(),
                translations: Translations::default(),
                not_zeroed: BTreeSet::new(),
                granted_with_contents: None,
                manner: HostManner::Honest,
                psc_buffers: HashMap::new(),
                counters: Counters::default(),
                fail_in: None,
                before_exit: None,
            }),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory that was not touched yet is not encrypted from now on: what the guest's key keeps from the host shows.
    pub fn encrypt_no_more(&self) {
        self.state().frames.encrypt_no_more();
    }

    /// A page that a lower VMPL was let at before it was zeroed: it holds what it held when it was validated.
    pub fn granted_with_contents(&self) -> Option<u64> {
        let state = self.state();
        Some(state.layout.gpa_of(state.granted_with_contents?)?.bits())
    }

    /// Counts a platform call; true when it is the one that shall fail.
    pub(super) fn counted(&self, counter: impl Fn(&mut Counters) -> &mut u64) -> bool {
        let mut state = self.state();
        *counter(&mut state.counters) += 1;
        state.fails_now()
    }

    /// Tells the host how to behave from now on.
    pub fn set_manner(&self, manner: HostManner) {
        self.state().manner = manner;
    }

    /// Makes the `nth` platform call from now on fail (1 is the next one).
    pub fn fail_platform_call(&self, nth: u64) {
        self.state().fail_in = Some(nth);
    }

    /// Does something, once, before the `nth` VMGEXIT from now on (1 is the next one), on the thread that makes it. The
    /// machine goes on meanwhile.
    pub fn before_exit(&self, nth: u64, what: impl FnOnce() + Send + 'static) {
        self.state().before_exit = Some((nth, Box::new(what)));
    }

    /// Forgets what was to be done before an exit, if there was no such exit.
    pub fn before_no_exit(&self) {
        self.state().before_exit = None;
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.state().counters
    }

    /// The reverse-map entry of the page at `address`.
    pub fn entry(&self, address: GuestPhysicalAddress) -> Option<RmpEntry> {
        let state = self.state();
        state.index(address).map(|index| state.entries[index])
    }

    /// Whether any page of the range is validated: never, in a pool window.
    pub fn any_validated(&self, base: GuestPhysicalAddress, bytes: u64) -> bool {
        let state = self.state();
        let any_from = |index: usize, count: u64| {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let pages = state.entries.iter().skip(index).take(count);
            pages.into_iter().any(|entry| entry.validated)
        };
        // By large pages, none of which spans two ranges.
        let large = (base.bits()..base.bits() + bytes).step_by(1 << 21);
        large.into_iter().any(|address| {
            let index = state.index(GuestPhysicalAddress::new(address));
            let left = base.bits() + bytes - address;
            index.is_some_and(|index| any_from(index, left.min(1 << 21) / PAGE_SIZE))
        })
    }

    /// The host changes a page on its own, without having been asked.
    pub fn host_changes(
        &self,
        page: GuestPhysicalAddress,
        size: PageSize,
        operation: PscOperation,
    ) -> bool {
        self.state().change(page, size, operation).is_ok()
    }

    /// The host backs `page` with the memory that `source` had: with the bits in it, and the same key. The reverse map
    /// has one entry for that memory, so `source` has none any more, and gets the memory that `page` had.
    pub fn host_remaps(&self, page: GuestPhysicalAddress, source: GuestPhysicalAddress) -> bool {
        let mut state = self.state();
        let (Some(to), Some(from)) = (state.index(page), state.index(source)) else {
            return false;
        };
        state.frames.swap(to, from);
        let mut rmp = state.rmp();
        rmp.rmpupdate(from, PageSize::Size4K, false)
            && rmp.rmpupdate(to, PageSize::Size4K, false)
            && rmp.rmpupdate(to, PageSize::Size4K, true)
    }

    /// The host splits the large entry that covers a page.
    pub fn host_splits(&self, page: GuestPhysicalAddress) {
        let mut state = self.state();
        if let Some(index) = state.index(page) {
            state.rmp().psmash(index);
        }
    }

    /// Makes the pages of a range part of the launch: private, validated, zero, VMPL 0 only.
    ///
    /// # Panics
    /// When the range is not memory of the machine.
    pub fn launch(&self, base: GuestPhysicalAddress, bytes: u64) {
        let mut state = self.state();
        for page in 0..bytes / PAGE_SIZE {
            let address = GuestPhysicalAddress::new(base.bits() + page * PAGE_SIZE);
            let index = state
                .index(address)
                .expect("launch pages are memory of the machine");
            state.rmp().set_launch_page(index);
            state.frame_of(index).write(View::Private, 0, &[0; 4096]);
        }
    }
}
