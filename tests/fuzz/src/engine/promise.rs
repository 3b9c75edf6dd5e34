// SPDX-License-Identifier: MIT OR Apache-2.0
//! No failure while the space exists, and no more set aside than an eighth more than what is needed.

use guest_shim::{CHUNK_BYTES, MapError};

use super::run::Engine;
use crate::live::{LARGEST_SLOT, Live, SLAB_BYTES, Wish};
use crate::service::{Holding, Order};

/// Records for small mappings with which none of the cases runs out of them.
const PLENTY: usize = 10_000;
/// More than what waits in caches in the windows of the cases.
const CACHED_BYTES: u64 = 1 << 20;

/// What a request met.
#[derive(Debug)]
pub(super) struct Before {
    /// Bytes in use.
    pub used: u64,
    holdings: Vec<Holding>,
    /// The service grants every chunk there is, and will be asked.
    grows: bool,
    grow_limit: u64,
    /// Nothing can be said for certain.
    unknown: bool,
}

impl Engine<'_> {
    /// The state in front of a request.
    pub(super) fn before(&mut self) -> Before {
        let statistics = self.pool.statistics();
        let growths = statistics.growths;
        if std::mem::replace(&mut self.standing.growths, growths) != growths {
            self.standing.refused = false;
        }
        let refused = self.standing.refused;
        self.machine.service(|service| {
            let willing = service.mood.trouble.is_none()
                && service.mood.order == Order::Lowest
                && !service.mood.grants_little
                && !refused;
            // Below that, which chunks it grants decides what they are good for.
            let all = service.cap() == service.holdings().len() as u64 * CHUNK_BYTES;
            Before {
                used: statistics.used_bytes,
                holdings: service.holdings().to_vec(),
                grows: willing && all,
                grow_limit: service.grow_limit(),
                // Where the idle extents of a reservation lie is not known.
                unknown: !self.reserved.is_empty(),
            }
        })
    }

    /// A request was refused: there is no room for it, and the cause can be true.
    pub(super) fn refused(&mut self, before: &Before, cause: MapError, wish: &Wish) {
        assert!(
            !before.promises(&self.live, wish),
            "there is room for {wish:x?}, but: {cause}"
        );
        let used = self.pool.statistics().used_bytes;
        assert_eq!(used, before.used, "used after a refusal");
        self.check_cause(cause, wish);
        self.standing.refused |= !matches!(cause, MapError::TooLarge | MapError::OutOfReach);
    }

    fn check_cause(&self, cause: MapError, wish: &Wish) {
        let window = self.pool.window();
        let all = window.base()..window.base() + window.bytes();
        let (troubled, cap) = self
            .machine
            .service(|service| (service.troubled, service.cap()));
        let anywhere = Wish {
            highest: u64::MAX,
            ..*wish
        };
        let possible = match cause {
            MapError::TooLarge => anywhere.lowest_in(&all).is_none() || wish.length > cap,
            MapError::OutOfReach => wish.lowest_in(&all).is_none(),
            MapError::CapReached | MapError::NoContiguousRun => true,
            MapError::RecordsExhausted => self.setup.small_mappings < PLENTY || troubled,
            MapError::HostRefused
            | MapError::Busy
            | MapError::NotAttached
            | MapError::ServiceFault => troubled,
            MapError::InvalidRequest => false,
        };
        assert!(
            possible,
            "{wish:x?} was refused, but not because of: {cause}"
        );
    }

    /// A request was served; what it was served is not among the live ones yet.
    pub(super) fn served(&self, before: &Before, wish: &Wish) {
        let taken = self.pool.statistics().used_bytes - before.used;
        assert!(
            taken >= wish.length,
            "{taken} bytes set aside for {wish:x?}"
        );
        if taken <= allowance(wish) {
            return;
        }
        // What is granted is used up before caches are emptied and the pool grows, and where records of small slots are
        // short: then a slot may be larger than it need be.
        let roomy = Wish {
            length: wish.length + SLAB_BYTES + CACHED_BYTES,
            ..*wish
        };
        let anywhere = wish.highest == u64::MAX && wish.boundary == 0;
        let plain = wish.mask == 0 && wish.alignment == 1 && anywhere;
        let excused = !plain
            || before.unknown
            || self.setup.small_mappings < PLENTY
            || !self.live.has_space(&roomy, &before.holdings, false);
        assert!(excused, "{taken} bytes set aside for {wish:x?}");
    }
}

impl Before {
    /// Whether there was room for a wish, so that nothing excused a refusal.
    fn promises(&self, live: &Live, wish: &Wish) -> bool {
        let asks = wish.highest == u64::MAX && wish.length <= self.grow_limit;
        !self.unknown && live.has_space(&wish.certain(), &self.holdings, asks && self.grows)
    }
}

/// What may be set aside for a wish in any pool that has room.
const fn allowance(wish: &Wish) -> u64 {
    let granule = if wish.length <= LARGEST_SLOT {
        64
    } else {
        2048
    };
    let needed = wish.length.next_multiple_of(granule);
    needed + needed / 8
}
