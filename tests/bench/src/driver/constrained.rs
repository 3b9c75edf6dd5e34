// SPDX-License-Identifier: MIT OR Apache-2.0
//! Maps of the shim with constraints, which the interface of the allocators cannot express.

use guest_shim::Constraints;

use super::guest::Guest;
use super::machine::Machine;
use crate::abi::flags;

/// Mappings that live at a time where those that were freed last are not to be found in the cache.
pub const ROUND: usize = 50;

/// What is mapped, and what the pool holds before.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Bytes of a mapping.
    pub bytes: usize,
    /// Of the device.
    pub boundary: u64,
    /// Of the device.
    pub min_align_mask: u64,
    /// Bytes of mappings without constraints that fill the pool, every second of which is then freed; 0 for none.
    pub comb: usize,
    /// Mappings that live at a time.
    pub round: usize,
}

impl Case {
    /// The constraints.
    pub const fn wish(&self) -> Constraints {
        Constraints {
            boundary: self.boundary,
            min_align_mask: self.min_align_mask,
            ..Constraints::NONE
        }
    }

    /// A guest whose pool holds what the case wants.
    pub fn guest(&self, machine: &Machine) -> Guest {
        let guest = Guest::new(machine, flags::NO_COPY);
        if self.comb > 0 {
            let all: Vec<_> = std::iter::from_fn(|| guest.try_map(self.comb)).collect();
            all.into_iter()
                .step_by(2)
                .for_each(|mapping| guest.unmap(mapping));
        }
        guest
    }

    /// How many such mappings the pool has room for.
    pub fn capacity(&self, guest: &Guest) -> usize {
        let wish = self.wish();
        let all: Vec<_> = std::iter::from_fn(|| guest.try_map_with(self.bytes, &wish)).collect();
        let count = all.len();
        all.into_iter().for_each(|mapping| guest.unmap(mapping));
        count
    }

    /// Maps and unmaps; how many of the maps succeeded.
    #[inline(always)]
    pub fn pairs(&self, guest: &Guest, rounds: usize) -> usize {
        let wish = self.wish();
        let mut live = [const { None }; ROUND];
        let mut succeeded = 0;
        for _ in 0..rounds {
            let live = &mut live[..self.round];
            for place in &mut *live {
                *place = guest.try_map_with(self.bytes, &wish);
            }
            for place in live {
                if let Some(mapping) = place.take() {
                    guest.unmap(mapping);
                    succeeded += 1;
                }
            }
        }
        succeeded
    }
}
