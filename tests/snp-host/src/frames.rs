// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which frame of the private view is behind which guest page, and whom the reverse map names for it.
//!
//! A host chooses the frame when it fills its nested tables, and the guest page when it fills the reverse map by
//! RMPUPDATE. Hardware lets an access through only where the two agree (APM volume 2, 15.36.10), so that no frame is
//! reached at two addresses. Every page has its own frame until a hostile host moves one ([`crate::page_attack`]).

/// Most pages that are not at their own frame.
const MAX_MOVED: usize = 256;
/// Pages of a large page.
const LARGE_PAGES: usize = 512;

/// A function of page numbers that is the identity but for a few.
#[derive(Clone, Debug)]
struct Exceptions {
    pairs: [(usize, usize); MAX_MOVED],
    used: usize,
}

impl Exceptions {
    const fn new() -> Self {
        Self {
            pairs: [(0, 0); MAX_MOVED],
            used: 0,
        }
    }

    fn pairs(&self) -> &[(usize, usize)] {
        self.pairs.get(..self.used).unwrap_or_default()
    }

    fn get(&self, key: usize) -> usize {
        let found = self.pairs().iter().find(|(from, _)| *from == key);
        found.map_or(key, |(_, to)| *to)
    }

    fn set(&mut self, key: usize, value: usize) {
        let pairs = self.pairs.get_mut(..self.used).unwrap_or_default();
        if let Some((_, to)) = pairs.iter_mut().find(|(from, _)| *from == key) {
            *to = value;
        } else if let Some(slot) = self.pairs.get_mut(self.used) {
            *slot = (key, value);
            self.used += 1;
        }
    }
}

/// The host's choice.
#[derive(Clone, Debug)]
pub struct Frames {
    behind: Exceptions,
    owners: Exceptions,
    /// The page that is mapped without write permission.
    pub read_only: Option<usize>,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            behind: Exceptions::new(),
            owners: Exceptions::new(),
            read_only: None,
        }
    }
}

impl Frames {
    /// Whether another two pages can be moved.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.behind.used + 2 <= MAX_MOVED && self.owners.used + 2 <= MAX_MOVED
    }

    /// The frame behind a page.
    #[must_use]
    pub fn behind(&self, page: usize) -> usize {
        self.behind.get(page)
    }

    /// Whether the reverse map names this page for the frame behind it.
    #[must_use]
    pub fn fits(&self, page: usize) -> bool {
        self.owners.get(self.behind.get(page)) == page
    }

    /// Whether the page is not at its own frame, or was not.
    #[must_use]
    pub fn is_moved(&self, page: usize) -> bool {
        self.behind.pairs().iter().any(|(from, _)| *from == page)
    }

    /// Whether a page among the 512 from `first` on is mapped in a way of its own, so that no large mapping can cover
    /// them.
    #[must_use]
    pub fn splits_block(&self, first: usize) -> bool {
        let inside = |page: usize| (first..first + LARGE_PAGES).contains(&page);
        self.read_only.is_some_and(inside)
            || self.behind.pairs().iter().any(|(page, _)| inside(*page))
    }

    /// Exchanges the frames of two pages; the reverse map follows.
    pub fn exchange(&mut self, one: usize, other: usize) {
        let (first, second) = (self.behind(one), self.behind(other));
        self.behind.set(one, second);
        self.behind.set(other, first);
        self.owners.set(second, one);
        self.owners.set(first, other);
    }

    /// Puts the frame of `other` behind `page` too; the reverse map goes on naming `other`.
    pub fn show(&mut self, page: usize, other: usize) {
        self.behind.set(page, self.behind(other));
    }

    /// Has the reverse map name `page` for the frame behind it; the page that it named before.
    pub fn claim(&mut self, page: usize) -> usize {
        let frame = self.behind(page);
        let before = self.owners.get(frame);
        self.owners.set(frame, page);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_its_own_frame_until_it_is_moved() {
        let mut frames = Frames::default();
        assert!((0..8).all(|page| frames.behind(page) == page && frames.fits(page)));
        frames.exchange(1, 5);
        assert_eq!((frames.behind(1), frames.behind(5)), (5, 1));
        assert!(frames.fits(1) && frames.fits(5));
        assert!(frames.is_moved(1) && !frames.is_moved(2));
        // A third one: 1 gets back what 5 has, which is its own.
        frames.exchange(1, 5);
        assert_eq!((frames.behind(1), frames.behind(5)), (1, 5));
    }

    #[test]
    fn the_reverse_map_names_one_page_for_a_frame() {
        let mut frames = Frames::default();
        frames.show(7, 3);
        assert_eq!((frames.behind(7), frames.behind(3)), (3, 3));
        assert!(frames.fits(3) && !frames.fits(7));
        assert_eq!(frames.claim(7), 3);
        assert!(!frames.fits(3) && frames.fits(7));
        assert_eq!(frames.claim(3), 7);
        assert!(frames.fits(3) && !frames.fits(7));
    }

    #[test]
    fn a_block_with_a_page_of_its_own_kind_is_split() {
        let mut frames = Frames::default();
        assert!(!frames.splits_block(512));
        frames.exchange(1023, 5);
        assert!(frames.splits_block(512) && frames.splits_block(0) && !frames.splits_block(1024));
        frames.read_only = Some(1024);
        assert!(frames.splits_block(1024));
    }

    #[test]
    fn room_ends() {
        let mut frames = Frames::default();
        let mut moved = 0;
        while frames.has_room() {
            frames.exchange(moved, 10_000);
            moved += 1;
        }
        assert_eq!(moved, MAX_MOVED - 2);
        assert!(frames.fits(10_000) && (0..moved).all(|page| frames.fits(page)));
    }
}
