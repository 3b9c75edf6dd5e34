// SPDX-License-Identifier: MIT OR Apache-2.0
//! Results of DESCRIBE (chapter 5.1): geometry, usage and work limits.

use bitfield_struct::bitfield;
use snp::address::GuestPhysicalAddress;

use super::{Malformed, ResultRegisters};

/// R8 of DESCRIBE's geometry.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct WindowAttributes {
    /// Chunk size as a power of two; 21 in version 1.
    pub log2_chunk: u8,
    /// Zero in version 1.
    #[bits(56)]
    pub reserved: u64,
}

/// DESCRIBE, geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// First byte of the window, without the C-bit; chunk aligned.
    pub base: GuestPhysicalAddress,
    /// Bytes of the window, a multiple of the chunk size.
    pub bytes: u64,
    /// Chunk size and the like.
    pub attributes: WindowAttributes,
}

impl Geometry {
    /// RCX base, RDX bytes, R8 attributes.
    pub const fn encode(self) -> ResultRegisters {
        let (base, bytes) = (self.base.bits(), self.bytes);
        ResultRegisters {
            rcx: base,
            rdx: bytes,
            r8: self.attributes.into_bits(),
        }
    }

    /// The reverse of [`Geometry::encode`].
    ///
    /// # Errors
    /// [`Malformed`] unless base and size are multiples of a chunk size of at least a page, and the window ends within
    /// the physical address space.
    pub fn decode(registers: ResultRegisters) -> Result<Self, Malformed> {
        let base = GuestPhysicalAddress::new(registers.rcx);
        let attributes = WindowAttributes::from_bits(registers.r8);
        let log2_chunk = attributes.log2_chunk();
        if !(12..=30).contains(&log2_chunk) {
            return Err(Malformed);
        }
        let chunk = 1_u64 << log2_chunk;
        let sound = base.is_aligned(chunk)
            && registers.rdx > 0
            && registers.rdx.is_multiple_of(chunk)
            && base.checked_add(registers.rdx).is_some();
        if sound {
            Ok(Self {
                base,
                bytes: registers.rdx,
                attributes,
            })
        } else {
            Err(Malformed)
        }
    }
}

/// DESCRIBE, usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Usage {
    /// Cap on granted bytes.
    pub cap: u64,
    /// Bytes granted now, orphans and runs on their way included.
    pub granted: u64,
    /// Bytes quarantined for ever.
    pub quarantined: u64,
}

impl Usage {
    /// RCX cap, RDX granted, R8 quarantined.
    pub const fn encode(self) -> ResultRegisters {
        ResultRegisters {
            rcx: self.cap,
            rdx: self.granted,
            r8: self.quarantined,
        }
    }

    /// The reverse of [`Usage::encode`]; every value is possible.
    pub const fn decode(registers: ResultRegisters) -> Self {
        Self {
            cap: registers.rcx,
            granted: registers.rdx,
            quarantined: registers.r8,
        }
    }
}

/// DESCRIBE, work limits (clause P-6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkLimits {
    /// Work units of one call.
    pub units: u64,
    /// Page-state-change entries of one batch.
    pub psc_entries: u64,
    /// Most bytes that one GROW can grant.
    pub grow_bytes: u64,
}

impl WorkLimits {
    /// RCX units, RDX entries, R8 bytes.
    pub const fn encode(self) -> ResultRegisters {
        ResultRegisters {
            rcx: self.units,
            rdx: self.psc_entries,
            r8: self.grow_bytes,
        }
    }

    /// The reverse of [`WorkLimits::encode`]; every value is possible.
    pub const fn decode(registers: ResultRegisters) -> Self {
        Self {
            units: registers.rcx,
            psc_entries: registers.rdx,
            grow_bytes: registers.r8,
        }
    }
}
