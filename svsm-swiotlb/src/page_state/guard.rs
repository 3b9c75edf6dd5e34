// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking the words of pages, and the guard that gives them back.

use snp::address::{GuestPhysicalAddress, PAGE_SIZE};
use snp::svsm::ResultCode;

use super::{PageState, RamRanges, RangeError};
use crate::sync::{AtomicU8, Ordering};

/// State words of all guest RAM.
#[derive(Debug)]
pub struct PageStates<'a> {
    ranges: RamRanges<'a>,
    words: &'a [AtomicU8],
}

/// Why pages could not be taken; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldError {
    /// Not wholly inside one range of guest RAM.
    NotRam,
    /// Somebody else has a word of it.
    Busy,
    /// A page is in a state that does not allow what was wanted.
    WrongState(PageState),
}

impl From<HoldError> for ResultCode {
    /// BUSY is the only one worth repeating.
    fn from(error: HoldError) -> Self {
        match error {
            HoldError::Busy => Self::BUSY,
            HoldError::NotRam | HoldError::WrongState(_) => Self::INVALID_ADDRESS,
        }
    }
}

impl<'a> PageStates<'a> {
    /// Guest RAM with its storage: one byte per page, whatever it holds.
    ///
    /// # Errors
    /// [`RangeError::WrongStorage`] unless `words` has exactly [`RamRanges::pages`] elements.
    pub fn new(ranges: RamRanges<'a>, words: &'a [AtomicU8]) -> Result<Self, RangeError> {
        if usize::try_from(ranges.pages()) != Ok(words.len()) {
            return Err(RangeError::WrongStorage);
        }
        Ok(Self { ranges, words })
    }

    /// The ranges.
    pub const fn ranges(&self) -> &RamRanges<'a> {
        &self.ranges
    }

    /// Sets the state of `[base, base + bytes)` without regard to the old one: for boot, before any guest runs.
    ///
    /// # Errors
    /// [`HoldError::NotRam`] unless the pages lie wholly inside one range.
    pub fn set_at_boot(
        &self,
        base: GuestPhysicalAddress,
        bytes: u64,
        state: PageState,
    ) -> Result<(), HoldError> {
        for word in self.words(base, bytes)? {
            word.store(state.to_byte(), Ordering::Release);
        }
        Ok(())
    }

    /// Quarantines what an owner that is gone had in its hands: for a successor, before it serves anybody.
    pub(crate) fn quarantine_busy(&self) {
        for word in self.words {
            if word.load(Ordering::Acquire) == PageState::Busy.to_byte() {
                word.store(PageState::Quarantined.to_byte(), Ordering::Release);
            }
        }
    }

    /// State of the page that `address` lies in; `None` if it is not guest RAM. Stale as soon as it is returned, unless
    /// the caller holds the word.
    pub fn state(&self, address: GuestPhysicalAddress) -> Option<PageState> {
        let word = self.words(address.page_base(), PAGE_SIZE).ok()?.first()?;
        Some(PageState::from_byte(word.load(Ordering::Acquire)))
    }

    /// Takes the word of the page that `address` lies in, if its state is one of `allowed`.
    ///
    /// # Errors
    /// See [`HoldError`].
    pub fn hold(
        &self,
        address: GuestPhysicalAddress,
        allowed: &[PageState],
    ) -> Result<HeldPages<'a>, HoldError> {
        match self.state(address).ok_or(HoldError::NotRam)? {
            PageState::Busy => Err(HoldError::Busy),
            state if allowed.contains(&state) => {
                self.hold_run(address.page_base(), PAGE_SIZE, state)
            }
            state => Err(HoldError::WrongState(state)),
        }
    }

    /// Takes the words of `[base, base + bytes)`, all of which must be in state `from`; all or none.
    ///
    /// # Errors
    /// See [`HoldError`].
    pub fn hold_run(
        &self,
        base: GuestPhysicalAddress,
        bytes: u64,
        from: PageState,
    ) -> Result<HeldPages<'a>, HoldError> {
        let words = self.words(base, bytes)?;
        for (taken, word) in words.iter().enumerate() {
            let exchange = word.compare_exchange(
                from.to_byte(),
                PageState::Busy.to_byte(),
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            let Err(found) = exchange else { continue };
            for word in words.iter().take(taken) {
                word.store(from.to_byte(), Ordering::Release);
            }
            return Err(match PageState::from_byte(found) {
                PageState::Busy => HoldError::Busy,
                state => HoldError::WrongState(state),
            });
        }
        Ok(HeldPages {
            words,
            from,
            outcome: PageState::Quarantined,
        })
    }

    fn words(&self, base: GuestPhysicalAddress, bytes: u64) -> Result<&'a [AtomicU8], HoldError> {
        let indices = self.ranges.indices(base, bytes).ok_or(HoldError::NotRam)?;
        self.words.get(indices).ok_or(HoldError::NotRam)
    }
}

/// Pages whose words the caller has taken. Dropping it without [`HeldPages::keep`] or [`HeldPages::change_to`]
/// quarantines them: whoever loses track of a page half-way must not hand it back as good (invariant P3).
#[must_use = "dropping it quarantines the pages"]
#[derive(Debug)]
pub struct HeldPages<'a> {
    words: &'a [AtomicU8],
    from: PageState,
    outcome: PageState,
}

impl HeldPages<'_> {
    /// The state before the words were taken.
    pub const fn former_state(&self) -> PageState {
        self.from
    }

    /// Gives the words back; the pages are what they were.
    pub fn keep(self) {
        let from = self.from;
        self.change_to(from);
    }

    /// Gives the words back; the pages are now in `state`.
    pub fn change_to(mut self, state: PageState) {
        self.outcome = state;
    }
}

impl Drop for HeldPages<'_> {
    fn drop(&mut self) {
        for word in self.words {
            word.store(self.outcome.to_byte(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;

    use super::super::RamRange;
    use super::*;

    const PAGES: usize = 4;
    const BASE: GuestPhysicalAddress = GuestPhysicalAddress::new(0x10_0000);
    /// A list that lives as long as the test process.
    fn ranges() -> RamRanges<'static> {
        RamRanges::new(Box::leak(Box::new([RamRange::new(BASE, 0x4000)]))).unwrap()
    }

    fn page(index: u64) -> GuestPhysicalAddress {
        GuestPhysicalAddress::new(BASE.bits() + index * PAGE_SIZE)
    }

    fn words() -> [AtomicU8; PAGES] {
        [const { AtomicU8::new(PageState::Valid as u8) }; PAGES]
    }

    fn states(words: &[AtomicU8]) -> PageStates<'_> {
        PageStates::new(ranges(), words).unwrap()
    }

    #[test]
    fn storage_must_fit() {
        let words = words();
        assert_eq!(
            PageStates::new(ranges(), &words[1..])
                .map(|_| ())
                .unwrap_err(),
            RangeError::WrongStorage
        );
    }

    #[test]
    fn p5_a_held_word_answers_busy_until_given_back() {
        let words = words();
        let states = states(&words);
        let held = states.hold(page(1), &[PageState::Valid]).unwrap();
        assert_eq!(states.state(page(1)), Some(PageState::Busy));
        assert_eq!(
            states.hold(page(1), &[PageState::Valid]).unwrap_err(),
            HoldError::Busy
        );
        held.keep();
        assert_eq!(states.state(page(1)), Some(PageState::Valid));
    }

    #[test]
    fn a_wrong_state_is_named_and_left_alone() {
        let words = words();
        let states = states(&words);
        states
            .set_at_boot(page(2), PAGE_SIZE, PageState::Vmsa)
            .unwrap();
        let refused = states.hold(page(2), &[PageState::Valid, PageState::CallingArea]);
        assert_eq!(refused.unwrap_err(), HoldError::WrongState(PageState::Vmsa));
        assert_eq!(states.state(page(2)), Some(PageState::Vmsa));
        assert_eq!(
            states.hold(page(4), &[PageState::Valid]).unwrap_err(),
            HoldError::NotRam
        );
    }

    #[test]
    fn a_run_is_taken_whole_or_not_at_all() {
        let words = words();
        let states = states(&words);
        states
            .set_at_boot(page(3), PAGE_SIZE, PageState::Shared)
            .unwrap();
        let refused = states.hold_run(page(0), 4 * PAGE_SIZE, PageState::Valid);
        assert_eq!(
            refused.unwrap_err(),
            HoldError::WrongState(PageState::Shared)
        );
        assert_eq!(states.state(page(0)), Some(PageState::Valid));

        states
            .hold_run(page(0), 3 * PAGE_SIZE, PageState::Valid)
            .unwrap()
            .change_to(PageState::Invalid);
        assert_eq!(states.state(page(2)), Some(PageState::Invalid));
        assert_eq!(states.state(page(3)), Some(PageState::Shared));
    }

    #[test]
    fn p3_a_dropped_guard_quarantines() {
        let words = words();
        let states = states(&words);
        drop(states.hold(page(0), &[PageState::Valid]).unwrap());
        assert_eq!(states.state(page(0)), Some(PageState::Quarantined));
    }
}
