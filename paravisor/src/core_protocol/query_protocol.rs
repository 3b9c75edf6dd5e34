// SPDX-License-Identifier: MIT OR Apache-2.0
//! QUERY_PROTOCOL: which versions of a protocol there are.

use snp::svsm::{CallRegisters, core_protocol};

use super::CoreProtocol;

/// A protocol and its versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    /// Protocol number.
    pub protocol: u32,
    /// Lowest version.
    pub min: u32,
    /// Highest version.
    pub max: u32,
}

/// This protocol's own entry.
const CORE: VersionRange = VersionRange {
    protocol: core_protocol::NUMBER,
    min: core_protocol::VERSION,
    max: core_protocol::VERSION,
};

impl<M> CoreProtocol<'_, M> {
    /// RCX in: protocol and version. RCX out: highest and lowest version, or 0 when the protocol or
    /// that version of it does not exist. Never fails.
    pub(super) fn query_protocol(&self, registers: &mut CallRegisters) {
        let version = registers.rcx & 0xffff_ffff;
        let offers = |range: &&VersionRange| {
            u64::from(range.protocol) == registers.rcx >> 32
                && (u64::from(range.min)..=u64::from(range.max)).contains(&version)
        };
        let found = [CORE].iter().chain(self.protocols).find(offers).copied();
        registers.rcx = found.map_or(0, |range| u64::from(range.max) << 32 | u64::from(range.min));
    }
}
