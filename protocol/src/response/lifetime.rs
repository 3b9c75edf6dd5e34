// SPDX-License-Identifier: MIT OR Apache-2.0
//! Results of ADOPT, RELEASE_ORPHANS, DETACH and TRACE.

use super::{Malformed, ResultRegisters};

/// ADOPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Adopted {
    /// Bytes that were the older epoch's and are the caller's now.
    pub bytes: u64,
    /// Bytes that the older epoch still holds; the caller repeats while there are any.
    pub left: u64,
}

impl Adopted {
    /// RCX bytes, RDX bytes left.
    pub const fn encode(self) -> ResultRegisters {
        ResultRegisters {
            rcx: self.bytes,
            rdx: self.left,
            r8: 0,
        }
    }

    /// The reverse of [`Adopted::encode`]; every value is possible.
    pub const fn decode(registers: ResultRegisters) -> Self {
        Self {
            bytes: registers.rcx,
            left: registers.rdx,
        }
    }
}

/// RELEASE_ORPHANS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OrphansReleased {
    /// Bytes that the older epoch no longer holds.
    pub bytes: u64,
    /// Bytes of those that the host says it took back.
    pub acknowledged: u64,
    /// Bytes that the older epoch still holds; the caller repeats while there are any.
    pub left: u64,
}

impl OrphansReleased {
    /// RCX bytes, RDX acknowledged bytes, R8 bytes left.
    pub const fn encode(self) -> ResultRegisters {
        ResultRegisters {
            rcx: self.bytes,
            rdx: self.acknowledged,
            r8: self.left,
        }
    }

    /// The reverse of [`OrphansReleased::encode`].
    ///
    /// # Errors
    /// [`Malformed`] if more was acknowledged than released.
    pub fn decode(registers: ResultRegisters) -> Result<Self, Malformed> {
        if registers.rdx > registers.rcx {
            return Err(Malformed);
        }
        Ok(Self {
            bytes: registers.rcx,
            acknowledged: registers.rdx,
            left: registers.r8,
        })
    }
}

/// DETACH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Detached {
    /// Bytes that are granted and have nobody attached any more, those of older epochs included.
    pub orphaned_bytes: u64,
}

impl Detached {
    /// R8 orphaned bytes.
    pub const fn encode(self) -> ResultRegisters {
        ResultRegisters {
            rcx: 0,
            rdx: 0,
            r8: self.orphaned_bytes,
        }
    }

    /// The reverse of [`Detached::encode`]; every value is possible.
    pub const fn decode(registers: ResultRegisters) -> Self {
        Self {
            orphaned_bytes: registers.r8,
        }
    }
}

/// TRACE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceWritten {
    /// Bytes written: whole records.
    pub bytes: u64,
    /// Sequence number to begin at the next time.
    pub next: u64,
    /// Sequence number of the oldest record that the service still has. Greater than the one asked for: the reader was
    /// overtaken, and what lies between is lost.
    pub oldest: u64,
}

impl TraceWritten {
    /// RCX bytes, RDX next, R8 oldest.
    pub const fn encode(self) -> ResultRegisters {
        ResultRegisters {
            rcx: self.bytes,
            rdx: self.next,
            r8: self.oldest,
        }
    }

    /// The reverse of [`TraceWritten::encode`].
    ///
    /// # Errors
    /// [`Malformed`] for parts of records, or more records than lie before the next sequence number.
    pub fn decode(registers: ResultRegisters) -> Result<Self, Malformed> {
        let records = registers.rcx / crate::trace::RECORD_BYTES;
        let whole = registers.rcx.is_multiple_of(crate::trace::RECORD_BYTES);
        if !whole || records > registers.rdx {
            return Err(Malformed);
        }
        Ok(Self {
            bytes: registers.rcx,
            next: registers.rdx,
            oldest: registers.r8,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn registers(rcx: u64, rdx: u64, r8: u64) -> ResultRegisters {
        ResultRegisters { rcx, rdx, r8 }
    }

    #[test]
    fn golden_results_of_the_calls_about_orphans() {
        let adopted = Adopted { bytes: 1, left: 2 };
        assert_eq!(adopted.encode(), registers(1, 2, 0));
        assert_eq!(Adopted::decode(registers(1, 2, 0)), adopted);
        let released = OrphansReleased {
            bytes: 3,
            acknowledged: 2,
            left: 5,
        };
        assert_eq!(released.encode(), registers(3, 2, 5));
        assert_eq!(OrphansReleased::decode(registers(3, 2, 5)), Ok(released));
        let detached = Detached { orphaned_bytes: 7 };
        assert_eq!(detached.encode(), registers(0, 0, 7));
        assert_eq!(Detached::decode(registers(0, 0, 7)), detached);
        let written = TraceWritten {
            bytes: 64,
            next: 9,
            oldest: 4,
        };
        assert_eq!(written.encode(), registers(64, 9, 4));
        assert_eq!(TraceWritten::decode(registers(64, 9, 4)), Ok(written));
    }

    #[test]
    fn p_4_8_results_that_cannot_be_are_malformed() {
        assert_eq!(OrphansReleased::decode(registers(1, 2, 0)), Err(Malformed));
        assert_eq!(TraceWritten::decode(registers(33, 9, 0)), Err(Malformed));
        assert_eq!(TraceWritten::decode(registers(64, 1, 0)), Err(Malformed));
    }
}
