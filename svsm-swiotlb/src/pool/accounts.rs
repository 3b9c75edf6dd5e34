// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cap, granted, peak and quarantined chunks of a window.
//!
//! A chunk counts as granted from the moment a GROW reserves it until a RELEASE or a refusal has settled it, orphans
//! included; so the sum never exceeds the cap, whatever runs at the same time.

use protocol::{CHUNK_BYTES, Epoch};

use super::window::chunk_bytes;
use super::{ChunkRecords, ChunkState, Window};
use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// Where the epoch begins in the word of the cap; a window has fewer chunks than fit below.
const EPOCH_SHIFT: u32 = 40;
const CHUNKS: u64 = (1 << EPOCH_SHIFT) - 1;

/// Why a cap is not set; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapRefusal {
    /// It is above the hard cap.
    AboveHardCap,
    /// A later epoch has begun.
    Stale,
}

/// The accounts; all in chunks inside, in bytes outside.
#[derive(Debug)]
pub struct Accounts {
    hard_cap: usize,
    /// \[39:0\] cap, \[63:40\] the newest epoch that has begun or set it. One word, so that a call of an earlier epoch, however long
    /// it was under way, changes neither.
    cap: AtomicU64,
    granted: AtomicUsize,
    peak: AtomicUsize,
    quarantined: AtomicUsize,
}

impl Accounts {
    /// Counts what the records hold. The cap begins at the hard cap, which is at most the window.
    pub(super) fn new(window: &Window, records: &ChunkRecords<'_>, hard_cap_bytes: u64) -> Self {
        let hard_cap = usize::try_from(hard_cap_bytes / CHUNK_BYTES).unwrap_or(usize::MAX);
        let hard_cap = hard_cap.min(window.chunks());
        let states = || (0..records.len()).map(|chunk| records.state(chunk));
        let quarantined = states()
            .filter(|state| *state == ChunkState::Quarantined)
            .count();
        let free = states().filter(|state| *state == ChunkState::Free).count();
        let granted = records
            .len()
            .saturating_sub(free)
            .saturating_sub(quarantined);
        Self {
            hard_cap,
            cap: AtomicU64::new(hard_cap as u64),
            granted: AtomicUsize::new(granted),
            peak: AtomicUsize::new(granted),
            quarantined: AtomicUsize::new(quarantined),
        }
    }

    /// Cap on granted bytes.
    pub fn cap_bytes(&self) -> u64 {
        chunk_bytes(self.cap())
    }

    fn cap(&self) -> usize {
        cap_of(self.cap.load(Ordering::Relaxed))
    }

    /// Bytes granted, orphans and runs on their way included.
    pub fn granted_bytes(&self) -> u64 {
        chunk_bytes(self.granted.load(Ordering::Relaxed))
    }

    /// Highest value of [`Accounts::granted_bytes`] so far.
    pub fn peak_bytes(&self) -> u64 {
        chunk_bytes(self.peak.load(Ordering::Relaxed))
    }

    /// Bytes quarantined for ever.
    pub fn quarantined_bytes(&self) -> u64 {
        chunk_bytes(self.quarantined.load(Ordering::Relaxed))
    }

    /// Sets the cap for `epoch` and returns the previous one. A cap below what is granted takes nothing away: it stops further
    /// growth. Tries again only when another processor's change came in between, which is one step of a call that gets on.
    ///
    /// # Errors
    /// See [`CapRefusal`].
    pub fn set_cap(&self, epoch: Epoch, bytes: u64) -> Result<u64, CapRefusal> {
        let cap = bytes / CHUNK_BYTES;
        if cap > self.hard_cap as u64 {
            return Err(CapRefusal::AboveHardCap);
        }
        let own = u64::from(epoch.number());
        self.cap
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                (word >> EPOCH_SHIFT <= own).then_some(own << EPOCH_SHIFT | cap)
            })
            .map(|before| chunk_bytes(cap_of(before)))
            .map_err(|_| CapRefusal::Stale)
    }

    /// From now on no call of an epoch before this one changes the cap.
    #[inline(never)]
    pub fn begin_epoch(&self, epoch: Epoch) {
        let own = u64::from(epoch.number());
        // A later one may have begun meanwhile.
        let _ = self
            .cap
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                (word >> EPOCH_SHIFT < own).then_some(own << EPOCH_SHIFT | word & CHUNKS)
            });
    }

    /// Takes over a predecessor's cap and peak; `None`, and nothing changed, above the hard cap.
    pub(crate) fn resume(&self, cap_bytes: u64, peak_bytes: u64) -> Option<()> {
        let cap = cap_bytes / CHUNK_BYTES;
        if cap > self.hard_cap as u64 {
            return None;
        }
        // Of no epoch yet: whoever is attached may set it.
        self.cap.store(cap, Ordering::Relaxed);
        let peak = usize::try_from(peak_bytes / CHUNK_BYTES).ok()?;
        self.peak.fetch_max(peak, Ordering::Relaxed);
        Some(())
    }

    /// Chunks that may still be granted at this moment.
    pub(super) fn headroom(&self) -> usize {
        let granted = self.granted.load(Ordering::Relaxed);
        self.cap().saturating_sub(granted)
    }

    /// Counts `chunks` as granted, unless that exceeds the cap. Tries again only when another processor's count came in
    /// between, which is one step of a call that gets on.
    pub(super) fn admit(&self, chunks: usize) -> bool {
        let cap = self.cap();
        let admitted = self
            .granted
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |granted| {
                granted.checked_add(chunks).filter(|sum| *sum <= cap)
            });
        let Ok(before) = admitted else { return false };
        self.peak
            .fetch_max(before.saturating_add(chunks), Ordering::Relaxed);
        true
    }

    /// `chunks` are no longer granted.
    pub(super) fn give_up(&self, chunks: usize) {
        self.granted.fetch_sub(chunks, Ordering::Relaxed);
    }

    /// `chunks` are no longer granted and never will be.
    pub(super) fn quarantine(&self, chunks: usize) {
        self.quarantined.fetch_add(chunks, Ordering::Relaxed);
        self.give_up(chunks);
    }
}

/// The cap in its word, never above the hard cap, which is a number of chunks.
fn cap_of(word: u64) -> usize {
    usize::try_from(word & CHUNKS).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU64;

    use snp::address::GuestPhysicalAddress;

    use super::*;

    #[test]
    fn p_3_12_what_was_free_a_moment_ago_is_still_refused_above_the_cap() {
        // Two processors saw the same headroom; the second to count finds it gone.
        let words = [const { AtomicU64::new(0) }; 4];
        let window = Window::new(GuestPhysicalAddress::new(0), 4 * CHUNK_BYTES).unwrap();
        let accounts = Accounts::new(&window, &ChunkRecords::new(&words), 3 * CHUNK_BYTES);
        assert_eq!(accounts.headroom(), 3);
        assert!(accounts.admit(2));
        assert!(!accounts.admit(2));
        assert!(!accounts.admit(usize::MAX));
        assert_eq!(accounts.granted_bytes(), 2 * CHUNK_BYTES);
        assert!(accounts.admit(1));
        assert_eq!(accounts.peak_bytes(), 3 * CHUNK_BYTES);
    }

    #[test]
    fn p_5_12_3_a_cap_is_the_newest_epochs() {
        let words = [const { AtomicU64::new(0) }; 4];
        let window = Window::new(GuestPhysicalAddress::new(0), 4 * CHUNK_BYTES).unwrap();
        let accounts = Accounts::new(&window, &ChunkRecords::new(&words), 4 * CHUNK_BYTES);
        let [first, second] = [1, 2].map(|number| Epoch::new(number).unwrap());
        accounts.begin_epoch(first);
        let set = accounts.set_cap(first, 3 * CHUNK_BYTES);
        assert_eq!(set, Ok(4 * CHUNK_BYTES));
        accounts.begin_epoch(second);
        assert_eq!(accounts.cap_bytes(), 3 * CHUNK_BYTES, "it stays");
        assert_eq!(accounts.set_cap(first, 0), Err(CapRefusal::Stale));
        assert_eq!(accounts.set_cap(second, 0), Ok(3 * CHUNK_BYTES));
        // An ATTACH that is slower than the next one.
        accounts.begin_epoch(first);
        assert_eq!(accounts.set_cap(first, 0), Err(CapRefusal::Stale));
        accounts.begin_epoch(Epoch::MAX);
        assert_eq!(accounts.set_cap(Epoch::MAX, CHUNK_BYTES), Ok(0));
        assert_eq!(accounts.cap_bytes(), CHUNK_BYTES);
    }
}
