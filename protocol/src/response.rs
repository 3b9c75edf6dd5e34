// SPDX-License-Identifier: MIT OR Apache-2.0
//! Results of each call (clauses P-4.6 to P-4.8, and the tables of chapter 5).
//!
//! On SUCCESS the three registers RCX, RDX and R8 are results, zero where a call names none. On any other code they are
//! what the caller passed, except that TOO_LARGE returns its limit in RCX.

use bitfield_struct::bitfield;
use snp::address::GuestPhysicalAddress;
use snp::svsm::{CallRegisters, ResultCode};

use crate::result::TOO_LARGE;
use crate::{Epoch, Generation};

mod describe;
mod lifetime;

pub use describe::{Geometry, Usage, WindowAttributes, WorkLimits};
pub use lifetime::{Adopted, Detached, OrphansReleased, TraceWritten};

/// The three registers that carry results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResultRegisters {
    /// First result.
    pub rcx: u64,
    /// Second result.
    pub rdx: u64,
    /// Third result.
    pub r8: u64,
}

/// Result registers that this version cannot mean: the service is not what it says, or not the one that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Malformed;

/// Any answer but SUCCESS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code in RAX.
    pub code: ResultCode,
    /// With TOO_LARGE: the limit in bytes.
    pub limit: Option<u64>,
}

impl Refusal {
    /// TOO_LARGE with its limit.
    pub const fn too_large(limit: u64) -> Self {
        Self {
            code: TOO_LARGE,
            limit: Some(limit),
        }
    }
}

impl From<ResultCode> for Refusal {
    fn from(code: ResultCode) -> Self {
        Self { code, limit: None }
    }
}

/// The registers that answer `call`.
pub fn encode_answer(
    call: &CallRegisters,
    answer: Result<ResultRegisters, Refusal>,
) -> CallRegisters {
    let mut registers = *call;
    match answer {
        Ok(results) => {
            registers.rax = ResultCode::SUCCESS.to_rax();
            registers.rcx = results.rcx;
            registers.rdx = results.rdx;
            registers.r8 = results.r8;
        }
        Err(refusal) => {
            registers.rax = refusal.code.to_rax();
            if let Some(limit) = refusal.limit {
                registers.rcx = limit;
            }
        }
    }
    registers
}

/// What an answered call says.
///
/// # Errors
/// The refusal, for every code but SUCCESS.
pub fn decode_answer(registers: &CallRegisters) -> Result<ResultRegisters, Refusal> {
    let code = ResultCode::from_rax(registers.rax);
    if code == ResultCode::SUCCESS {
        Ok(ResultRegisters {
            rcx: registers.rcx,
            rdx: registers.rdx,
            r8: registers.r8,
        })
    } else {
        Err(Refusal {
            code,
            limit: (code == TOO_LARGE).then_some(registers.rcx),
        })
    }
}

/// ATTACH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attached {
    /// The caller's epoch from now on.
    pub epoch: Epoch,
    /// Nobody attached before.
    pub fresh: bool,
    /// Bytes that older epochs still hold.
    pub orphaned_bytes: u64,
}

/// RDX of ATTACH.
#[bitfield(u64)]
struct AttachRdx {
    fresh: bool,
    orphans: bool,
    #[bits(62)]
    reserved: u64,
}

impl Attached {
    /// RCX epoch, RDX {bit 0 fresh, bit 1 orphans exist}, R8 orphaned bytes.
    pub const fn encode(self) -> ResultRegisters {
        let flags = AttachRdx::new()
            .with_fresh(self.fresh)
            .with_orphans(self.orphaned_bytes != 0);
        ResultRegisters {
            rcx: self.epoch.number() as u64,
            rdx: flags.into_bits(),
            r8: self.orphaned_bytes,
        }
    }

    /// The reverse of [`Attached::encode`].
    ///
    /// # Errors
    /// [`Malformed`] for an epoch out of range or an orphans flag that contradicts the bytes.
    pub fn decode(registers: ResultRegisters) -> Result<Self, Malformed> {
        let number = u32::try_from(registers.rcx).map_err(|_| Malformed)?;
        let epoch = Epoch::new(number).ok_or(Malformed)?;
        let flags = AttachRdx::from_bits(registers.rdx);
        if flags.orphans() != (registers.r8 != 0) {
            return Err(Malformed);
        }
        Ok(Self {
            epoch,
            fresh: flags.fresh(),
            orphaned_bytes: registers.r8,
        })
    }
}

/// GROW: one contiguous run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Granted {
    /// First byte, without the C-bit.
    pub base: GuestPhysicalAddress,
    /// Bytes, a multiple of the chunk size.
    pub bytes: u64,
    /// To be named in RELEASE.
    pub generation: Generation,
}

impl Granted {
    /// RCX base, RDX bytes, R8 generation.
    pub const fn encode(self) -> ResultRegisters {
        let r8 = self.generation.number() as u64;
        ResultRegisters {
            rcx: self.base.bits(),
            rdx: self.bytes,
            r8,
        }
    }

    /// The reverse of [`Granted::encode`]; whether the run lies in the window is for the caller to check.
    ///
    /// # Errors
    /// [`Malformed`] for a generation out of range, no bytes, or a run past the physical address space.
    pub fn decode(registers: ResultRegisters) -> Result<Self, Malformed> {
        let number = u32::try_from(registers.r8).map_err(|_| Malformed)?;
        let generation = Generation::new(number).ok_or(Malformed)?;
        let base = GuestPhysicalAddress::new(registers.rcx);
        if registers.rdx == 0 || base.checked_add(registers.rdx).is_none() {
            return Err(Malformed);
        }
        Ok(Self {
            base,
            bytes: registers.rdx,
            generation,
        })
    }
}

/// RELEASE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Released {
    /// Bytes, from the base on, that the caller no longer holds; fewer than asked when one batch did not suffice.
    pub bytes: u64,
    /// Bytes of those that the host says it took back.
    pub acknowledged: u64,
}

impl Released {
    /// RCX bytes, RDX acknowledged bytes.
    pub const fn encode(self) -> ResultRegisters {
        ResultRegisters {
            rcx: self.bytes,
            rdx: self.acknowledged,
            r8: 0,
        }
    }

    /// The reverse of [`Released::encode`].
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
        })
    }
}

/// STATISTICS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatisticsWritten {
    /// Bytes written: the structure, or as much of it as there was room for.
    pub bytes: u64,
}

impl StatisticsWritten {
    /// RCX bytes.
    pub const fn encode(self) -> ResultRegisters {
        ResultRegisters {
            rcx: self.bytes,
            rdx: 0,
            r8: 0,
        }
    }

    /// The reverse of [`StatisticsWritten::encode`]; every value is possible.
    pub const fn decode(registers: ResultRegisters) -> Self {
        Self {
            bytes: registers.rcx,
        }
    }
}

/// SET_LIMITS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitsSet {
    /// The cap before the call.
    pub previous_cap: u64,
}

impl LimitsSet {
    /// RCX previous cap.
    pub const fn encode(self) -> ResultRegisters {
        ResultRegisters {
            rcx: self.previous_cap,
            rdx: 0,
            r8: 0,
        }
    }

    /// The reverse of [`LimitsSet::encode`]; every value is possible.
    pub const fn decode(registers: ResultRegisters) -> Self {
        Self {
            previous_cap: registers.rcx,
        }
    }
}

#[cfg(test)]
mod tests;
