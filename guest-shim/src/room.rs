// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking room and giving it back: the CPU's cache first, the central store if that has none or no place.
//!
//! This is the hot path. While the cache has what is asked for it takes no lock that anybody waits for, makes no call,
//! and does the same work whatever the pool's size and fill and the buffer's length.

use crate::allocator::{
    CacheCounters, ClassIndex, Held, Placement, ReservationId, Room, Slot, Taken,
};
use crate::atomic::{AtomicU64, Ordering, spin_hint};
use crate::error::MapError;
use crate::platform::Platform;
use crate::pool::{Pool, State};

impl CacheCounters {
    /// Adds to a counter. The caller holds the cache, or the central lock for the stray counters, so nobody else writes.
    #[inline]
    pub fn add(counter: &AtomicU64, value: u64) {
        let sum = counter.load(Ordering::Relaxed).wrapping_add(value);
        counter.store(sum, Ordering::Relaxed);
    }
}

/// Tries to hold a cache that is to be emptied; a holder is through in a fraction of them.
const TRIES: u32 = 64;

/// What ends when room is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A mapping of which this many bytes were copied out.
    Mapping(u64),
    /// A shared buffer.
    SharedBuffer,
}

impl Ended {
    #[inline]
    fn count(self, counters: &CacheCounters, taken: &Taken, reservation: u8) {
        match self {
            Self::Mapping(copied) => {
                CacheCounters::add(&counters.unmaps, 1);
                CacheCounters::add(&counters.bytes_out, copied);
            }
            Self::SharedBuffer => CacheCounters::add(&counters.shared_buffers, u64::MAX),
        }
        // Reserved room counts as used whether it is mapped or not.
        if reservation == 0 {
            CacheCounters::add(&counters.used, taken.bytes().wrapping_neg());
        }
    }
}

impl State<'_> {
    /// Takes a slot of a class, and more of them into a cache that has none.
    fn fill(&mut self, held: &Held<'_>, class: ClassIndex) -> Option<Slot> {
        let mut taken = None;
        let batch = class.class().cached.div_ceil(2);
        self.central.take_slots(class, batch, |slot| {
            // Half as many as there is room for, into an empty stack: each one but the last finds its place. The last is
            // handed out.
            if let Some(before) = taken.replace(slot) {
                held.push(class, before);
            }
        });
        if taken.is_some() {
            self.counters.served();
        }
        taken
    }
}

impl<P: Platform> Pool<'_, P> {
    /// Takes what a request needs; `count` enters it into the counters.
    ///
    /// # Errors
    /// The named cause for which there is none.
    #[inline]
    pub(crate) fn take_room(
        &self,
        placement: &Placement,
        count: impl Fn(&CacheCounters, &Taken),
    ) -> Result<Taken, MapError> {
        if let Some(held) = self.shared.hold(self.platform.cpu())
            && let Some(taken) = self.take_cached(&held, placement)
        {
            count(held.counters(), &taken);
            return Ok(taken);
        }
        let taken = self.obtain(placement)?;
        self.count(|counters| count(counters, &taken));
        Ok(taken)
    }

    /// Takes room out of a cache, filling it from the central store if it is empty.
    #[inline]
    fn take_cached(&self, held: &Held<'_>, placement: &Placement) -> Option<Taken> {
        match placement.room {
            Room::Slot(class) => {
                let (class, slot) = match held.pop(class) {
                    Some(slot) => (class, slot),
                    None if placement.end_limit.is_some() => return None,
                    None => self.refill(held, class)?,
                };
                if placement.reaches(slot.offset) {
                    return Some(Taken::Slot(class, slot));
                }
                // It came from there, so there is a place for it.
                held.push(class, slot);
                None
            }
            Room::Extent { units, start } => {
                let extent = held.pop_extent(units, start)?;
                let taken = Taken::Extent(extent);
                if placement.reaches(taken.offset()) {
                    return Some(taken);
                }
                self.give_central(taken);
                None
            }
        }
    }

    /// Fills a cache with slots of a class and takes one. Where there are no records for small slots they are of a larger
    /// class.
    #[cold]
    fn refill(&self, held: &Held<'_>, class: ClassIndex) -> Option<(ClassIndex, Slot)> {
        if self.shared.is_scarce() {
            return None;
        }
        self.with_state(|state| {
            let slot = state.fill(held, class).map(|slot| (class, slot));
            if slot.is_some() || !class.class().is_small() {
                return slot;
            }
            if state.central.is_out_of_blocks() {
                self.shared.note_exhausted(class);
            }
            let larger = class.whole()?;
            let slot = held.pop(larger).or_else(|| state.fill(held, larger))?;
            Some((larger, slot))
        })
    }

    /// Gives room back.
    #[inline(always)]
    pub(crate) fn put_room(&self, taken: Taken, reservation: u8, ended: Ended) {
        if reservation == 0
            && let Some(held) = self.shared.hold(self.platform.cpu())
        {
            ended.count(held.counters(), &taken, reservation);
            match taken {
                Taken::Slot(..) if self.shared.is_scarce() => self.give_central(taken),
                Taken::Slot(class, slot) => {
                    if !held.push(class, slot) {
                        self.push_full(&held, class, slot);
                    }
                }
                Taken::Extent(extent) => {
                    let limit = if self.shared.is_scarce() {
                        0
                    } else {
                        self.shared.cached_units()
                    };
                    held.push_extent(extent, limit, |older| {
                        self.give_central(Taken::Extent(older));
                    });
                }
            }
        } else {
            self.put_uncached(taken, reservation, ended);
        }
    }

    /// Puts a slot into a cache that is full of its class: the older half goes.
    #[cold]
    fn push_full(&self, held: &Held<'_>, class: ClassIndex, slot: Slot) {
        self.with_state(|state| {
            held.spill(class, false, |older| {
                state.put(&self.shared, &Taken::Slot(class, older));
            });
        });
        if !held.push(class, slot) {
            self.give_central(Taken::Slot(class, slot));
        }
    }

    /// The same for reserved room, or where no cache can be held.
    #[cold]
    fn put_uncached(&self, taken: Taken, reservation: u8, ended: Ended) {
        match ReservationId::from_number(reservation) {
            Some(id) => self.with_state(|state| state.central.put_back(id, &taken)),
            None => self.give_central(taken),
        }
        self.count(|counters| ended.count(counters, &taken, reservation));
    }

    /// Gives room back to the central store.
    #[cold]
    pub(crate) fn give_central(&self, taken: Taken) {
        self.with_state(|state| state.put(&self.shared, &taken));
    }

    /// Enters something into the counters of this CPU.
    pub(crate) fn count(&self, count: impl FnOnce(&CacheCounters)) {
        match self.shared.hold(self.platform.cpu()) {
            Some(held) => count(held.counters()),
            None => self.with_state(|_| count(&self.shared.stray)),
        }
    }

    /// Empties the caches into the central store. Whether all of them: one that somebody holds is tried for a while, but
    /// not for ever, since that may be what this context has interrupted. One lock for each class of each cache, so that
    /// interrupts are not off for long.
    pub(crate) fn empty_caches(&self) -> bool {
        let mut all = true;
        for cache in self.shared.caches {
            let held = (0..TRIES).find_map(|_| {
                let held = cache.hold();
                if held.is_none() {
                    spin_hint();
                }
                held
            });
            let Some(held) = held else {
                all = false;
                continue;
            };
            for class in held.classes() {
                self.with_state(|state| {
                    held.spill(class, true, |slot| {
                        state.put(&self.shared, &Taken::Slot(class, slot));
                    });
                });
            }
            held.spill_extents(|extent| self.give_central(Taken::Extent(extent)));
        }
        all
    }

    /// Empties the extents of this CPU's cache into the central store. Whether there were any.
    pub(crate) fn empty_own_extents(&self) -> bool {
        self.shared.hold(self.platform.cpu()).is_some_and(|held| {
            held.spill_extents(|extent| self.give_central(Taken::Extent(extent)))
        })
    }
}
