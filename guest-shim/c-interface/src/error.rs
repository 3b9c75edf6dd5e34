// SPDX-License-Identifier: MIT OR Apache-2.0
//! One list of named errors for the whole interface.

use core::ffi::{CStr, c_char, c_int};

use guest_shim::{AttachError, MapError, UnmapError};
use snp::svsm::ResultCode;

/// What functions of this library return: 0, or a negative number that names the cause. After an error nothing has
/// changed, save that the pool may have grown, and no out-parameter was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Error {
    /// A null or misaligned pointer, a number that is no enumerator, a structure or storage of a wrong size, or an object
    /// that is not in use: the caller's mistake.
    InvalidArgument = -1,
    /// An empty buffer or one that wraps round, an alignment that is no power of two, DEVICE_WRITTEN where the device
    /// reads, or a reservation of another shape: the caller's mistake.
    InvalidRequest = -2,

    /// map: the cap on granted memory is reached.
    CapReached = -3,
    /// map: the host refused to share more memory.
    HostRefused = -4,
    /// map: enough memory, but no contiguous run in reach of the device.
    NoContiguousRun = -5,
    /// map: the metadata handed in at attach does not cover more; reserve: too many reservations.
    RecordsExhausted = -6,
    /// map: longer than the window; no release will ever help.
    TooLarge = -7,
    /// The service was busy with the same chunks in every attempt.
    Busy = -8,
    /// map: the service does not know this attachment (any more).
    NotAttached = -9,
    /// map: no address of the window meets the constraints.
    OutOfReach = -10,
    /// map: the call did not reach the service, or its answer broke the protocol.
    ServiceFault = -11,

    /// unmap, sync, free: not an address of the window, or nothing was ever handed out there.
    UnknownAddress = -12,
    /// unmap, sync, free: what was handed out there has been given back already.
    AlreadyUnmapped = -13,
    /// unmap, sync: the handle is older than what the address stands for now.
    StaleHandle = -14,
    /// unmap, free: mapped with another length.
    WrongLength = -15,
    /// unmap, free: mapped with another direction, or a mapping where a shared buffer is meant (or the reverse).
    WrongDirection = -16,
    /// unmap, sync: an offset, a length or a written length beyond the mapping.
    OutOfRange = -17,
    /// unmap, free, sync: another context is unmapping it at this moment; unmap: or syncing it. cancel_reservation:
    /// mappings use it, or it is another pool's.
    InUse = -18,

    /// attach: the paravisor does not know the protocol number.
    NoService = -19,
    /// attach: the number stands for something else, or for versions this library does not speak.
    AnotherProtocol = -20,
    /// attach: another chunk size than 2 MiB, or a window that is too large.
    UnusableWindow = -21,
    /// attach: the kernel has not mapped the window.
    NotMapped = -22,
    /// attach: the metadata area is too small for one chunk.
    NoRecords = -23,
    /// attach: the service refused; the last result code that `call` saw says why.
    ServiceRefused = -24,
    /// attach: the call did not reach the service.
    NotRun = -25,
    /// attach: the answer broke the protocol.
    Malformed = -26,

    /// sync: 61 others are copying parts of the mapping at this moment, more than can be counted. Nothing was copied.
    TooManySyncs = -27,
}

/// How a function of the interface ends.
pub(crate) type Outcome = Result<(), Error>;

impl Error {
    /// Every error, the first one first.
    pub(crate) const ALL: [Self; 27] = [
        Self::InvalidArgument,
        Self::InvalidRequest,
        Self::CapReached,
        Self::HostRefused,
        Self::NoContiguousRun,
        Self::RecordsExhausted,
        Self::TooLarge,
        Self::Busy,
        Self::NotAttached,
        Self::OutOfReach,
        Self::ServiceFault,
        Self::UnknownAddress,
        Self::AlreadyUnmapped,
        Self::StaleHandle,
        Self::WrongLength,
        Self::WrongDirection,
        Self::OutOfRange,
        Self::InUse,
        Self::NoService,
        Self::AnotherProtocol,
        Self::UnusableWindow,
        Self::NotMapped,
        Self::NoRecords,
        Self::ServiceRefused,
        Self::NotRun,
        Self::Malformed,
        Self::TooManySyncs,
    ];

    /// The number that C sees.
    pub(crate) const fn number(self) -> c_int {
        self as c_int
    }

    const fn text(self) -> &'static CStr {
        match self {
            Self::InvalidArgument => c"null pointer, unknown enumerator or wrong size",
            Self::InvalidRequest => c"invalid request",
            Self::CapReached => c"the cap on granted memory is reached",
            Self::HostRefused => c"the host refused to share more memory",
            Self::NoContiguousRun => c"no contiguous run of that length",
            Self::RecordsExhausted => c"no metadata for more of the window",
            Self::TooLarge => c"larger than the window",
            Self::Busy => c"the service was busy",
            Self::NotAttached => c"the service does not know this attachment",
            Self::OutOfReach => c"no address of the window meets the constraints",
            Self::ServiceFault => c"the service did not answer by the protocol",
            Self::UnknownAddress => c"nothing is mapped at this address",
            Self::AlreadyUnmapped => c"already unmapped",
            Self::StaleHandle => c"the handle is stale",
            Self::WrongLength => c"mapped with another length",
            Self::WrongDirection => c"mapped with another direction",
            Self::OutOfRange => c"beyond the mapping",
            Self::InUse => c"in use by another context",
            Self::NoService => c"no service at this protocol number",
            Self::AnotherProtocol => c"another protocol, or another version of ours",
            Self::UnusableWindow => c"a window this library cannot use",
            Self::NotMapped => c"the window is not mapped",
            Self::NoRecords => c"the metadata area does not cover one chunk",
            Self::ServiceRefused => c"the service refused",
            Self::NotRun => c"the call did not reach the service",
            Self::Malformed => c"the service's answer broke the protocol",
            Self::TooManySyncs => c"too many syncs of one mapping at the same time",
        }
    }
}

impl From<MapError> for Error {
    fn from(error: MapError) -> Self {
        match error {
            MapError::CapReached => Self::CapReached,
            MapError::HostRefused => Self::HostRefused,
            MapError::NoContiguousRun => Self::NoContiguousRun,
            MapError::RecordsExhausted => Self::RecordsExhausted,
            MapError::TooLarge => Self::TooLarge,
            MapError::Busy => Self::Busy,
            MapError::NotAttached => Self::NotAttached,
            MapError::OutOfReach => Self::OutOfReach,
            MapError::InvalidRequest => Self::InvalidRequest,
            MapError::ServiceFault => Self::ServiceFault,
        }
    }
}

impl From<UnmapError> for Error {
    fn from(error: UnmapError) -> Self {
        match error {
            UnmapError::UnknownAddress => Self::UnknownAddress,
            UnmapError::AlreadyUnmapped => Self::AlreadyUnmapped,
            UnmapError::StaleHandle => Self::StaleHandle,
            UnmapError::WrongLength => Self::WrongLength,
            UnmapError::WrongDirection => Self::WrongDirection,
            UnmapError::OutOfRange => Self::OutOfRange,
            UnmapError::Busy => Self::InUse,
            UnmapError::TooManySyncs => Self::TooManySyncs,
        }
    }
}

impl From<AttachError> for Error {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::NoService => Self::NoService,
            AttachError::AnotherProtocol => Self::AnotherProtocol,
            AttachError::UnusableWindow => Self::UnusableWindow,
            AttachError::NotMapped => Self::NotMapped,
            AttachError::NoRecords => Self::NoRecords,
            AttachError::Refused(ResultCode::BUSY) => Self::Busy,
            AttachError::Refused(_) => Self::ServiceRefused,
            AttachError::NotRun => Self::NotRun,
            AttachError::Malformed => Self::Malformed,
        }
    }
}

/// The number a function returns.
pub(crate) const fn number_of(outcome: Outcome) -> c_int {
    match outcome {
        Ok(()) => 0,
        Err(error) => error.number(),
    }
}

/// A short English text for a number that a function returned, for logs. Never null; other numbers get a text too.
#[unsafe(no_mangle)]
pub extern "C" fn svsm_swiotlb_error_text(error: c_int) -> *const c_char {
    let known = Error::ALL.into_iter().find(|known| known.number() == error);
    let text = match known {
        Some(known) => known.text(),
        None if error == 0 => c"success",
        None => c"no error of this library",
    };
    text.as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_listed_once_in_the_order_of_the_numbers() {
        for (at, error) in (1_i32..).zip(Error::ALL) {
            assert_eq!(error.number(), -at, "{error:?}");
        }
        assert_eq!(
            Error::ALL.len(),
            usize::try_from(-Error::TooManySyncs.number()).unwrap(),
            "an error behind the last listed one"
        );
    }

    #[test]
    fn every_error_has_a_text_of_its_own() {
        let numbers = Error::TooManySyncs.number() - 1..=1;
        let texts: std::collections::BTreeSet<_> = numbers
            // SAFETY: The text is a static string.
            .map(|number| unsafe { CStr::from_ptr(svsm_swiotlb_error_text(number)) })
            .collect();
        // All errors, success, and one text for both numbers beyond.
        assert_eq!(texts.len(), Error::ALL.len() + 2);
    }
}
