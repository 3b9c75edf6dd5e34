// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which protocol answers at a number: UUID, versions, features, addressing of shared memory (clauses P-1.1 to P-2.4).

use bitfield_struct::bitfield;

use crate::response::{Malformed, ResultRegisters};

/// The number used when an integrator chooses no other: neither small (those are given out one by one) nor in
/// 0x8000_0000 to 0x8000_FFFF (reserved by AMD 58019 for its reference implementation).
pub const DEFAULT_PROTOCOL_NUMBER: u32 = 0x4000_0001;

/// The version this text describes; QUERY_PROTOCOL and IDENTIFY report it as lowest and highest.
pub const PROTOCOL_VERSION: u8 = 1;

/// 7dd432f1-ec30-4975-ac6a-7fe46323e39a. A guest never trusts the number alone: another paravisor may use it for
/// something else.
pub const PROTOCOL_UUID: u128 = 0x7dd4_32f1_ec30_4975_ac6a_7fe4_6323_e39a;

/// How a guest addresses a shared page (clause P-2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SharedAddressing {
    /// The same guest physical address with the C-bit clear in the page table; the bit's position.
    EncryptionBitClear(u8),
    /// The guest physical address plus `1 << log2` (virtual top of memory).
    AliasOffset(u8),
}

/// Features beyond the calls every version 1 service offers (clause P-2.4).
#[bitfield(u32)]
#[derive(PartialEq, Eq, Hash)]
pub struct Features {
    /// CONVERT is offered.
    pub convert: bool,
    /// TRACE is offered.
    pub trace: bool,
    /// ADOPT and RELEASE_ORPHANS are offered.
    pub orphans: bool,
    /// DETACH is offered.
    pub detach: bool,
    /// DONATE is offered.
    pub donate: bool,
    /// EXPORT_STATE and IMPORT_STATE are offered.
    pub hand_over: bool,
    /// MEMORY_FORM is offered.
    pub memory_form: bool,
    /// Zero in version 1; a client ignores bits it does not know.
    #[bits(25)]
    pub reserved: u32,
}

/// The answer to IDENTIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// [`PROTOCOL_UUID`], if this is the protocol that this crate describes.
    pub uuid: u128,
    /// Lowest version ATTACH accepts.
    pub min_version: u8,
    /// Highest version ATTACH accepts.
    pub max_version: u8,
    /// How shared memory is addressed.
    pub addressing: SharedAddressing,
    /// What is offered beyond the base.
    pub features: Features,
}

/// R8 of IDENTIFY.
#[bitfield(u64)]
struct IdentifyR8 {
    min_version: u8,
    max_version: u8,
    addressing: u8,
    position: u8,
    features: u32,
}

const ADDRESSING_BIT_CLEAR: u8 = 0;
const ADDRESSING_ALIAS: u8 = 1;

impl Identity {
    /// A service of this crate's version.
    pub const fn of_this_version(addressing: SharedAddressing, features: Features) -> Self {
        Self {
            uuid: PROTOCOL_UUID,
            min_version: PROTOCOL_VERSION,
            max_version: PROTOCOL_VERSION,
            addressing,
            features,
        }
    }

    /// Whether it is this protocol, in a version this crate speaks.
    pub const fn speaks_this_version(&self) -> bool {
        self.uuid == PROTOCOL_UUID
            && self.min_version <= PROTOCOL_VERSION
            && PROTOCOL_VERSION <= self.max_version
    }

    /// RCX and RDX the UUID as it is printed, upper half first; R8 the rest.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of the UUID"
    )]
    pub const fn encode(self) -> ResultRegisters {
        let (addressing, position) = match self.addressing {
            SharedAddressing::EncryptionBitClear(bit) => (ADDRESSING_BIT_CLEAR, bit),
            SharedAddressing::AliasOffset(log2) => (ADDRESSING_ALIAS, log2),
        };
        let r8 = IdentifyR8::new()
            .with_min_version(self.min_version)
            .with_max_version(self.max_version)
            .with_addressing(addressing)
            .with_position(position)
            .with_features(self.features.into_bits());
        ResultRegisters {
            rcx: (self.uuid >> 64) as u64,
            rdx: self.uuid as u64,
            r8: r8.into_bits(),
        }
    }

    /// The reverse of [`Identity::encode`]; the UUID is reported, not checked.
    ///
    /// # Errors
    /// [`Malformed`] for a manner of addressing that version 1 does not define.
    pub fn decode(registers: ResultRegisters) -> Result<Self, Malformed> {
        let r8 = IdentifyR8::from_bits(registers.r8);
        let addressing = match r8.addressing() {
            ADDRESSING_BIT_CLEAR => SharedAddressing::EncryptionBitClear(r8.position()),
            ADDRESSING_ALIAS => SharedAddressing::AliasOffset(r8.position()),
            _ => return Err(Malformed),
        };
        Ok(Self {
            uuid: (u128::from(registers.rcx) << 64) | u128::from(registers.rdx),
            min_version: r8.min_version(),
            max_version: r8.max_version(),
            addressing,
            features: Features::from_bits(r8.features()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let features = Features::new().with_trace(true);
        Identity::of_this_version(SharedAddressing::EncryptionBitClear(51), features)
    }

    #[test]
    fn p_2_1_golden_registers() {
        let golden = ResultRegisters {
            rcx: 0x7dd4_32f1_ec30_4975,
            rdx: 0xac6a_7fe4_6323_e39a,
            r8: 0x0000_0002_3300_0101,
        };
        assert_eq!(identity().encode(), golden);
        assert_eq!(Identity::decode(golden), Ok(identity()));
    }

    #[test]
    fn p_2_1_another_uuid_or_version_is_not_ours() {
        assert!(identity().speaks_this_version());
        assert!(
            !Identity {
                uuid: PROTOCOL_UUID ^ 1,
                ..identity()
            }
            .speaks_this_version()
        );
        assert!(
            !Identity {
                min_version: 2,
                max_version: 3,
                ..identity()
            }
            .speaks_this_version()
        );
    }

    #[test]
    fn p_2_3_an_unknown_addressing_is_refused() {
        let mut registers = identity().encode();
        registers.r8 |= 2 << 16;
        assert_eq!(Identity::decode(registers), Err(Malformed));
    }
}
