// SPDX-License-Identifier: MIT OR Apache-2.0
//! Epoch and generation: who is attached, and the number of the next grant (docs/PROTOCOL.md, P-3.5 and P-3.6).

use core::sync::atomic::{AtomicU32, Ordering};

use protocol::{Epoch, Generation, result};
use snp::svsm::ResultCode;

/// The current attachment.
#[derive(Debug)]
pub struct Session {
    /// Current epoch; 0 before the first ATTACH.
    epoch: AtomicU32,
    /// Generation of the last grant; 0 before the first.
    generation: AtomicU32,
}

impl Session {
    /// Nobody attached.
    pub const fn new() -> Self {
        Self {
            epoch: AtomicU32::new(0),
            generation: AtomicU32::new(0),
        }
    }

    /// Number of the current epoch, 0 before the first ATTACH.
    pub fn epoch_number(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Begins a new epoch; the old one, if any, is stale from now on. `None` once all epochs are used up.
    pub fn begin(&self) -> Option<Epoch> {
        let before = self
            .epoch
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |number| {
                Some(following(number)?.number())
            })
            .ok()?;
        following(before)
    }

    /// The current epoch, if that is what the caller claims.
    ///
    /// # Errors
    /// NOT_ATTACHED before the first ATTACH, STALE_EPOCH for any other claim.
    pub fn check(&self, claimed: u32) -> Result<Epoch, ResultCode> {
        let current = Epoch::new(self.epoch_number()).ok_or(result::NOT_ATTACHED)?;
        if current.number() == claimed {
            Ok(current)
        } else {
            Err(result::STALE_EPOCH)
        }
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
    fn p_3_6_generations_count_and_wrap_past_zero() {
        let session = Session::new();
        assert_eq!(session.next_generation().number(), 1);
        assert_eq!(session.next_generation().number(), 2);
        session.generation.store(u32::MAX, Ordering::Relaxed);
        assert_eq!(session.next_generation().number(), 1);
    }
}
