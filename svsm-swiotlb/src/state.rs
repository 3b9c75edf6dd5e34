// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an owner of the pool hands to its successor (docs/PROTOCOL.md, chapter 13).
//!
//! All state of the service is plain data without pointers: one word per chunk, one byte per page of guest RAM, and the
//! scalars here. A successor that is given all three goes on where its predecessor stopped, and no chunk is lost. The calls
//! for it, EXPORT_STATE and IMPORT_STATE, are reserved; an integrator does it between two owners at VMPL0, while no call runs.

use protocol::statistics::Statistics;
use protocol::{CHUNK_BYTES, Epoch};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::pool::{ChunkState, Pools, WindowError};

/// Layout number of [`ServiceState`], of the chunk records and of the page states. Each change of any of them is a new one.
pub const STATE_VERSION: u32 = 3;

/// The scalars, little endian, naturally aligned, without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceState {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// Bytes of this structure.
    pub bytes: u32,
    /// The newest epoch; 0 before the first ATTACH.
    pub epoch: u32,
    /// 1 while somebody is attached, else 0.
    pub attached: u32,
    /// Generation of the newest grant; 0 before the first.
    pub generation: u32,
    /// 1 once the service has stopped (P-5.9.11), else 0.
    pub stopped: u32,
    /// First byte of window 0.
    pub window_base: u64,
    /// Number of the next event of the trace; the records themselves stay behind.
    pub next_event: u64,
    /// The counters, and with them windows, caps and peaks.
    pub statistics: Statistics,
    /// First byte of window 1; 0 if there is none.
    pub second_base: u64,
}

const _: () = assert!(size_of::<ServiceState>() == STATE_BYTES as usize);
const _: () = assert!(core::mem::offset_of!(ServiceState, generation) == 16);
const _: () = assert!(core::mem::offset_of!(ServiceState, window_base) == 24);
const _: () = assert!(core::mem::offset_of!(ServiceState, statistics) == 40);

/// Bytes of [`ServiceState`], as it says of itself.
pub(crate) const STATE_BYTES: u32 = 608;

/// Why a service cannot go on from a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// Another layout.
    Version,
    /// Another window, or one that a service cannot have.
    Window(WindowError),
    /// The parts contradict each other: a chunk held by an epoch that never was, a cap above the hard cap.
    Inconsistent,
    /// The predecessor found a page valid that by every account was not. The VM ends; nobody serves it any more.
    Stopped,
}

impl ServiceState {
    /// Checks the scalars against the records and the windows they are to describe.
    pub(crate) fn check(&self, pools: &Pools<'_>) -> Result<(), StateError> {
        if self.version != STATE_VERSION || self.bytes != STATE_BYTES {
            return Err(StateError::Version);
        }
        match self.stopped {
            0 => {}
            1 => return Err(StateError::Stopped),
            _ => return Err(StateError::Inconsistent),
        }
        let [first, second] = self.statistics.windows();
        let own = [(self.window_base, &first), (self.second_base, &second)];
        let windows = own.map(|(base, window)| (base, window.window_bytes));
        let there = |index| {
            pools.get(index).map_or((0, 0), |pool| {
                (pool.window().base().bits(), pool.window().bytes())
            })
        };
        if windows != [there(0), there(1)] {
            return Err(StateError::Window(WindowError::WrongStorage));
        }
        let sound = self.attached <= 1
            && self.epoch <= Epoch::MAX.number()
            && (self.attached == 0 || self.epoch != 0)
            && own.iter().all(|(_, window)| {
                window.cap_bytes.is_multiple_of(CHUNK_BYTES)
                    && window.peak_granted_bytes.is_multiple_of(CHUNK_BYTES)
                    && window.peak_granted_bytes <= window.window_bytes
            });
        // An epoch that is yet to come would own these chunks the moment it begins.
        let held_by_the_past = pools.iter().all(|pool| {
            let records = pool.records();
            (0..records.len()).all(|chunk| match records.state(chunk) {
                ChunkState::Held(holder) => holder.epoch.number() <= self.epoch,
                _ => true,
            })
        });
        if sound && held_by_the_past {
            Ok(())
        } else {
            Err(StateError::Inconsistent)
        }
    }
}
