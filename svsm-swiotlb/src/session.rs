// SPDX-License-Identifier: MIT OR Apache-2.0
//! Epoch and generation: who is attached, and the number of the next grant (docs/PROTOCOL.md, P-3.5 and P-3.6).
//!
//! An update tries again only when another processor's update came in between, which is one step of a call that gets on: so
//! no call waits for another, and none repeats oftener than others succeed.

use protocol::{Epoch, Generation, result};
use snp::svsm::ResultCode;

use crate::sync::{AtomicU32, Ordering};

/// The newest epoch has ended and no other has begun.
const DETACHED: u32 = 1 << 31;

/// The current attachment.
#[derive(Debug)]
pub struct Session {
    /// \[23:0\] newest epoch, 0 before the first ATTACH; [`DETACHED`] when it has ended.
    epoch: AtomicU32,
    /// Generation of the last grant; 0 before the first.
    generation: AtomicU32,
}

impl Session {
    /// Nobody attached.
    pub fn new() -> Self {
        Self {
            epoch: AtomicU32::new(0),
            generation: AtomicU32::new(0),
        }
    }

    /// Goes on where a predecessor stopped.
    pub fn resumed(epoch: u32, attached: bool, generation: u32) -> Self {
        let ended = if attached || epoch == 0 { 0 } else { DETACHED };
        Self {
            epoch: AtomicU32::new(epoch | ended),
            generation: AtomicU32::new(generation),
        }
    }

    /// Number of the current epoch, 0 while nobody is attached.
    pub fn epoch_number(&self) -> u32 {
        match self.newest_epoch() {
            (epoch, true) => epoch,
            (_, false) => 0,
        }
    }

    /// Number of the newest epoch, 0 before the first ATTACH, and whether it still is the current one.
    pub fn newest_epoch(&self) -> (u32, bool) {
        let word = self.epoch.load(Ordering::Acquire);
        (word & !DETACHED, word != 0 && word & DETACHED == 0)
    }

    /// Generation of the newest grant, 0 before the first.
    pub fn newest_generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Begins a new epoch; the old one, if any, is stale from now on. `None` once all epochs are used up.
    pub fn begin(&self) -> Option<Epoch> {
        let before = self
            .epoch
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                Some(following(word & !DETACHED)?.number())
            })
            .ok()?;
        following(before & !DETACHED)
    }

    /// Ends the epoch that the caller claims, if it is the current one.
    ///
    /// # Errors
    /// As [`Session::check`]; also when another processor ended it, or began another, at the same moment.
    pub fn end(&self, claimed: u32) -> Result<Epoch, ResultCode> {
        let epoch = self.check(claimed)?;
        let (current, ended) = (epoch.number(), epoch.number() | DETACHED);
        match self
            .epoch
            .compare_exchange(current, ended, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => Ok(epoch),
            Err(_) => Err(self.check(claimed).err().unwrap_or(ResultCode::BUSY)),
        }
    }

    /// The current epoch, if that is what the caller claims.
    ///
    /// # Errors
    /// NOT_ATTACHED while nobody is attached, STALE_EPOCH for any other claim.
    pub fn check(&self, claimed: u32) -> Result<Epoch, ResultCode> {
        let current = Epoch::new(self.epoch_number()).ok_or(result::NOT_ATTACHED)?;
        if current.number() == claimed {
            Ok(current)
        } else {
            Err(result::STALE_EPOCH)
        }
    }

    /// Checks the epoch once more, for a call that has written down what it is about to do.
    ///
    /// Whoever ends the epoch then counts that among what it leaves behind: either it changes the word before this look, and
    /// the call is refused; or it finds what was written before the look (P-5.2.2). So the look has to be a write.
    ///
    /// # Errors
    /// As [`Session::check`].
    pub fn confirm(&self, epoch: Epoch) -> Result<(), ResultCode> {
        if self.epoch.fetch_or(0, Ordering::AcqRel) == epoch.number() {
            return Ok(());
        }
        // An epoch that has ended does not come back.
        self.check(epoch.number()).and(Err(result::STALE_EPOCH))
    }

    /// The generation of a new grant.
    pub fn next_generation(&self) -> Generation {
        let mut given = Generation::FIRST;
        // The closure never declines, so the update cannot fail; what it computed last is what was stored.
        let _ = self
            .generation
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                given = Generation::new(last).map_or(Generation::FIRST, Generation::next);
                Some(given.number())
            });
        given
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

fn following(epoch: u32) -> Option<Epoch> {
    Epoch::new(epoch).map_or(Some(Epoch::FIRST), Epoch::next)
}

#[cfg(test)]
impl Session {
    /// As after 16 777 215 attachments.
    pub(crate) fn skip_to_the_last_epoch(&self) {
        self.epoch.store(Epoch::MAX.number(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_3_5_each_attachment_has_its_epoch_until_they_end() {
        let session = Session::new();
        assert_eq!(session.check(0), Err(result::NOT_ATTACHED));
        assert_eq!(session.begin(), Some(Epoch::FIRST));
        assert_eq!(session.begin().map(Epoch::number), Some(2));
        assert_eq!(session.check(1), Err(result::STALE_EPOCH));
        assert_eq!(session.check(0), Err(result::STALE_EPOCH));
        assert_eq!(session.check(2).map(Epoch::number), Ok(2));

        session.epoch.store(Epoch::MAX.number(), Ordering::Relaxed);
        assert_eq!(session.begin(), None);
        assert_eq!(session.check(Epoch::MAX.number()), Ok(Epoch::MAX));
    }

    #[test]
    fn p_5_6_an_ended_epoch_is_nobodys_and_the_next_one_is_another() {
        let session = Session::new();
        assert_eq!(session.end(1), Err(result::NOT_ATTACHED));
        session.begin();
        assert_eq!(session.end(2), Err(result::STALE_EPOCH));
        assert_eq!(session.end(1), Ok(Epoch::FIRST));
        assert_eq!(session.end(1), Err(result::NOT_ATTACHED));
        assert_eq!(session.check(1), Err(result::NOT_ATTACHED));
        assert_eq!(
            (session.epoch_number(), session.newest_epoch()),
            (0, (1, false))
        );
        assert_eq!(session.begin().map(Epoch::number), Some(2));
        assert_eq!(session.newest_epoch(), (2, true));

        session.epoch.store(Epoch::MAX.number(), Ordering::Relaxed);
        assert_eq!(session.end(Epoch::MAX.number()), Ok(Epoch::MAX));
        assert_eq!(session.begin(), None, "an epoch is used once");
        assert_eq!(
            session.check(Epoch::MAX.number()),
            Err(result::NOT_ATTACHED)
        );
    }

    #[test]
    fn p_3_6_generations_count_and_wrap_past_zero() {
        let session = Session::new();
        assert_eq!(session.next_generation().number(), 1);
        assert_eq!(session.next_generation().number(), 2);
        session.generation.store(u32::MAX, Ordering::Relaxed);
        assert_eq!(session.next_generation().number(), 1);
    }
}
