// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why something failed. Every error leaves all mappings as they were.

use core::fmt;

/// Why there is no memory for a mapping. The first seven are the only ways in which a correct request can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapError {
    /// The cap on granted memory is reached.
    CapReached,
    /// The host refused to share more memory.
    HostRefused,
    /// Enough memory, but no contiguous run in reach of the device.
    NoContiguousRun,
    /// The record storage handed in at attach does not cover more of the window.
    RecordsExhausted,
    /// Longer than the window: no release will ever help.
    TooLarge,
    /// The service was busy with the same chunks in every attempt.
    Busy,
    /// The service does not know this attachment (any more).
    NotAttached,
    /// No address of the window meets the constraints.
    OutOfReach,
    /// An empty buffer, an alignment that is no power of two, [`CopyIn::DeviceWritten`](crate::CopyIn) where the
    /// device reads, or a reservation of another shape: the caller's mistake.
    InvalidRequest,
    /// The call did not reach the service, or its answer broke the protocol.
    ServiceFault,
}

impl MapError {
    /// Every cause, in the order of the declaration.
    pub const ALL: [Self; 10] = [
        Self::CapReached,
        Self::HostRefused,
        Self::NoContiguousRun,
        Self::RecordsExhausted,
        Self::TooLarge,
        Self::Busy,
        Self::NotAttached,
        Self::OutOfReach,
        Self::InvalidRequest,
        Self::ServiceFault,
    ];

    /// Its place in [`MapError::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CapReached => "the cap on granted memory is reached",
            Self::HostRefused => "the host refused to share more memory",
            Self::NoContiguousRun => "no contiguous run of that length",
            Self::RecordsExhausted => "no records for more of the window",
            Self::TooLarge => "larger than the window",
            Self::Busy => "the service was busy",
            Self::NotAttached => "the service does not know this attachment",
            Self::OutOfReach => "no address of the window meets the constraints",
            Self::InvalidRequest => "invalid request",
            Self::ServiceFault => "the service did not answer by the protocol",
        })
    }
}

impl core::error::Error for MapError {}

/// Why an unmap, sync or free was refused. Only private records are asked, never the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnmapError {
    /// Not an address of the window, not the first byte of what is handed out there, or nothing is.
    UnknownAddress,
    /// What was handed out there last has been given back already.
    AlreadyUnmapped,
    /// The handle is older than what the address stands for now: something else, or free memory.
    StaleHandle,
    /// Mapped with another length.
    WrongLength,
    /// Mapped with another direction, or a mapping where a shared buffer is meant (or the reverse).
    WrongDirection,
    /// An offset or a written length beyond the mapping.
    OutOfRange,
    /// Another context is unmapping it at this moment, or where it is to be unmapped or freed, copying.
    Busy,
    /// As many syncs as can be counted, 61, are copying it at this moment.
    TooManySyncs,
}

impl fmt::Display for UnmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownAddress => "nothing is mapped at this address",
            Self::AlreadyUnmapped => "already unmapped",
            Self::StaleHandle => "the handle is stale",
            Self::WrongLength => "mapped with another length",
            Self::WrongDirection => "mapped with another direction",
            Self::OutOfRange => "beyond the mapping",
            Self::Busy => "in use by another context",
            Self::TooManySyncs => "too many syncs at the same time",
        })
    }
}

impl core::error::Error for UnmapError {}
