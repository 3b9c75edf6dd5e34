// SPDX-License-Identifier: MIT OR Apache-2.0
//! The counters that STATISTICS copies into a guest's page (clauses P-8.1 to P-8.7).
//!
//! All counters run from the start of the service, wrap at 2^64 and are read one by one: a copy taken while other
//! processors call is not one moment's picture.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::result::REFUSAL_COUNTERS;

/// Layout number in [`Statistics::version`]; later layouts only append.
pub const STATISTICS_VERSION: u32 = 1;

/// What a host did that the GHCB specification does not allow, or that it declined (clause P-8.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum HostAnomaly {
    /// It declined in good order: an error code and a cursor that keeps the rules.
    Refused = 0,
    /// It returned again and again without moving the cursor.
    NoProgress = 1,
    /// The reserved word of the descriptor's header is not zero.
    ReservedNotZero = 2,
    /// The index of the last entry differs from the one submitted.
    EndEntryChanged = 3,
    /// The cursor went backwards.
    CursorBackwards = 4,
    /// The cursor is more than one past the last entry.
    CursorBeyondEnd = 5,
    /// It reports an error and completion at once.
    Contradiction = 6,
    /// SW_EXITINFO1 holds a value that a page-state change cannot have.
    UnknownExitStatus = 7,
}

impl HostAnomaly {
    /// Every kind, in the order of the counters.
    pub const ALL: [Self; 8] = [
        Self::Refused,
        Self::NoProgress,
        Self::ReservedNotZero,
        Self::EndEntryChanged,
        Self::CursorBackwards,
        Self::CursorBeyondEnd,
        Self::Contradiction,
        Self::UnknownExitStatus,
    ];

    /// Index into [`Statistics::host_anomalies`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The counters, little endian, naturally aligned, without padding.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Statistics {
    /// [`STATISTICS_VERSION`].
    pub version: u32,
    /// Bytes of the whole structure, whatever was copied of it.
    pub bytes: u32,
    /// Current epoch, 0 before the first ATTACH.
    pub epoch: u64,
    /// Bytes of window 0.
    pub window_bytes: u64,
    /// Cap on granted bytes.
    pub cap_bytes: u64,
    /// Bytes granted now, orphans and runs on their way included.
    pub granted_bytes: u64,
    /// Highest value of `granted_bytes` so far.
    pub peak_granted_bytes: u64,
    /// Bytes quarantined for ever.
    pub quarantined_bytes: u64,
    /// Bytes guests gave up since the start.
    pub released_bytes: u64,
    /// Bytes of those that the host acknowledged taking back.
    pub acknowledged_bytes: u64,
    /// Calls by number ([`crate::Call::index`]), refused ones and those that came by MEMORY_FORM included.
    pub calls: [u64; CALL_COUNTERS],
    /// Calls with a number that names no call, or MEMORY_FORM in a block.
    pub unknown_calls: u64,
    /// Answers other than SUCCESS ([`crate::result::refusal_index`]).
    pub refusals: [u64; REFUSAL_COUNTERS],
    /// VMGEXITs for page-state changes.
    pub psc_exits: u64,
    /// Those of them that went on with an unfinished descriptor.
    pub psc_reissues: u64,
    /// Entries the host reported as made shared.
    pub psc_entries_shared: u64,
    /// Entries the host reported as made private.
    pub psc_entries_private: u64,
    /// Host replies out of order ([`HostAnomaly::index`]).
    pub host_anomalies: [u64; 8],
    /// Guest pages that faulted under the service's hands and were quarantined.
    pub guest_page_faults: u64,
    /// MEMORY_FORM, whatever came of it.
    pub memory_form_calls: u64,
    /// Those of them that were refused before the block was read.
    pub memory_form_refused: u64,
    /// Window 1; all 0 if there is none.
    pub second: WindowStatistics,
}

/// The counters of a window.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct WindowStatistics {
    /// Bytes of the window.
    pub window_bytes: u64,
    /// Cap on granted bytes.
    pub cap_bytes: u64,
    /// Bytes granted now, orphans and runs on their way included.
    pub granted_bytes: u64,
    /// Highest value of `granted_bytes` so far.
    pub peak_granted_bytes: u64,
    /// Bytes quarantined for ever.
    pub quarantined_bytes: u64,
}

impl Statistics {
    /// The counters of windows 0 and 1.
    pub const fn windows(&self) -> [WindowStatistics; 2] {
        let first = WindowStatistics {
            window_bytes: self.window_bytes,
            cap_bytes: self.cap_bytes,
            granted_bytes: self.granted_bytes,
            peak_granted_bytes: self.peak_granted_bytes,
            quarantined_bytes: self.quarantined_bytes,
        };
        [first, self.second]
    }
}

/// Elements of [`Statistics::calls`]: one for each call that there was when the layout was made. What came later has
/// counters of its own behind the others.
pub const CALL_COUNTERS: usize = 16;

/// Bytes of [`Statistics`].
pub const STATISTICS_BYTES: u64 = size_of::<Statistics>() as u64;

const _: () = assert!(size_of::<Statistics>() == 560);
const _: () = assert!(core::mem::offset_of!(Statistics, granted_bytes) == 0x20);
const _: () = assert!(core::mem::offset_of!(Statistics, calls) == 0x48);
const _: () = assert!(core::mem::offset_of!(Statistics, unknown_calls) == 0xC8);
const _: () = assert!(core::mem::offset_of!(Statistics, refusals) == 0xD0);
const _: () = assert!(core::mem::offset_of!(Statistics, psc_exits) == 0x190);
const _: () = assert!(core::mem::offset_of!(Statistics, host_anomalies) == 0x1B0);
const _: () = assert!(core::mem::offset_of!(Statistics, guest_page_faults) == 0x1F0);
const _: () = assert!(core::mem::offset_of!(Statistics, memory_form_calls) == 0x1F8);
const _: () = assert!(core::mem::offset_of!(Statistics, second) == 0x208);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_8_2_golden_header() {
        let statistics = Statistics {
            version: STATISTICS_VERSION,
            bytes: 560,
            epoch: 5,
            ..Statistics::default()
        };
        let golden = [1, 0, 0, 0, 0x30, 2, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(statistics.as_bytes().get(..16), Some(&golden[..]));
    }

    #[test]
    fn p_8_5_anomalies_are_in_the_order_of_their_counters() {
        for (index, kind) in HostAnomaly::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), index);
        }
    }
}
