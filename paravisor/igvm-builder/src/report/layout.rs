// SPDX-License-Identifier: MIT OR Apache-2.0
//! ATTESTATION_REPORT as the secure processor writes it (SEV-SNP firmware ABI 1.58, table 23), versions 2 to 5.
//!
//! Later versions gave meaning to bytes that were reserved: version 3 to the processor's family, model and stepping and to more
//! bits of PLATFORM_INFO, version 5 to the mitigation vectors.

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::guest_policy::{AbiVersion, GuestPolicy};
use crate::report::tcb::TcbVersion;

/// Bytes that the signature covers.
pub const SIGNED_BYTES: usize = 0x2a0;
/// Family of the processors whose TCB version has another layout (Turin and later).
const FAMILY_TURIN: u8 = 0x1a;
/// First version with the processor's family.
const VERSION_FAMILY: u32 = 3;
/// First version with mitigation vectors.
const VERSION_MITIGATIONS: u32 = 5;

/// The structure, little endian.
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AttestationReport {
    /// Version of this structure.
    pub version: U32,
    /// Security version of the guest, from its ID block.
    pub guest_svn: U32,
    /// [`GuestPolicy`] of the launch.
    pub policy: U64,
    /// From the ID block.
    pub family_id: [u8; 16],
    /// From the ID block.
    pub image_id: [u8; 16],
    /// VMPL that the requester named, never a higher one than its own.
    pub vmpl: U32,
    /// 1: ECDSA P-384 with SHA-384.
    pub signature_algorithm: U32,
    /// TCB version of the firmware that runs.
    pub current_tcb: [u8; 8],
    /// [`PlatformInfo`].
    pub platform_info: U64,
    /// Bit 0 AUTHOR_KEY_EN, bit 1 MASK_CHIP_KEY, bits 4:2 SIGNING_KEY.
    pub key_info: U32,
    reserved_0: U32,
    /// What the requester passed.
    pub report_data: [u8; 64],
    /// The launch digest.
    pub measurement: [u8; 48],
    /// What the host passed at the launch.
    pub host_data: [u8; 32],
    /// SHA-384 of the key that signed the ID block; zero without one.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the author's key; zero without one.
    pub author_key_digest: [u8; 48],
    /// Of this guest, for its life.
    pub report_id: [u8; 32],
    /// Of its migration agent.
    pub report_id_ma: [u8; 32],
    /// TCB version of which the signing key was derived.
    pub reported_tcb: [u8; 8],
    /// Family of the processor; from version 3.
    pub cpuid_family: u8,
    /// Its model; from version 3.
    pub cpuid_model: u8,
    /// Its stepping; from version 3.
    pub cpuid_stepping: u8,
    reserved_1: [u8; 21],
    /// Identifier of the chip, or zero when it is masked.
    pub chip_id: [u8; 64],
    /// Least TCB version to which the firmware can be rolled back.
    pub committed_tcb: [u8; 8],
    /// Build, minor and major number of the running firmware's ABI.
    pub current_version: [u8; 3],
    reserved_2: u8,
    /// The same of the committed firmware.
    pub committed_version: [u8; 3],
    reserved_3: u8,
    /// TCB version when the guest was launched.
    pub launch_tcb: [u8; 8],
    /// Mitigations that were verified at the launch; from version 5.
    pub launch_mitigations: U64,
    /// Mitigations that are verified now; from version 5.
    pub current_mitigations: U64,
    reserved_4: [u8; 152],
    /// Of the bytes before it.
    pub signature: EcdsaSignature,
}

/// An ECDSA signature with P-384 (table 141): little endian numbers with room to spare.
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EcdsaSignature {
    /// R.
    pub r: [u8; 72],
    /// S.
    pub s: [u8; 72],
    reserved: [u8; 368],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<AttestationReport>() == 1184);
    assert!(offset_of!(AttestationReport, platform_info) == 0x40);
    assert!(offset_of!(AttestationReport, report_data) == 0x50);
    assert!(offset_of!(AttestationReport, measurement) == 0x90);
    assert!(offset_of!(AttestationReport, id_key_digest) == 0xe0);
    assert!(offset_of!(AttestationReport, reported_tcb) == 0x180);
    assert!(offset_of!(AttestationReport, chip_id) == 0x1a0);
    assert!(offset_of!(AttestationReport, committed_tcb) == 0x1e0);
    assert!(offset_of!(AttestationReport, launch_tcb) == 0x1f0);
    assert!(offset_of!(AttestationReport, current_mitigations) == 0x200);
    assert!(offset_of!(AttestationReport, signature) == SIGNED_BYTES);
};

/// PLATFORM_INFO (table 24): how the host is set up. Bits of newer firmware that are not listed are ignored.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PlatformInfo {
    /// Simultaneous multi-threading is on.
    pub smt: bool,
    /// All memory is encrypted transparently.
    pub tsme: bool,
    /// Memory has error correction.
    pub ecc: bool,
    /// RAPL is disabled.
    pub rapl_disabled: bool,
    /// The ciphertext of memory is hidden.
    pub ciphertext_hiding: bool,
    /// No two addresses reached the same memory when the firmware looked, after the last reset.
    pub alias_check_complete: bool,
    #[bits(58)]
    __: u64,
}

/// SIGNING_KEY: which kind of key signed the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningKey {
    /// The chip's, derived from the TCB version.
    Vcek,
    /// The cloud provider's, derived from the TCB version.
    Vlek,
    /// None: the report is not signed.
    None,
    /// A reserved value.
    Unknown(u32),
}

impl AttestationReport {
    /// The policy.
    #[must_use]
    pub fn policy(&self) -> GuestPolicy {
        GuestPolicy::from_bits(self.policy.get())
    }

    /// How the host is set up.
    #[must_use]
    pub fn platform_info(&self) -> PlatformInfo {
        PlatformInfo::from_bits(self.platform_info.get())
    }

    /// Which kind of key signed.
    #[must_use]
    pub fn signing_key(&self) -> SigningKey {
        match self.key_info.get() >> 2 & 0b111 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            7 => SigningKey::None,
            other => SigningKey::Unknown(other),
        }
    }

    /// Whether TCB versions are laid out as since Turin. Reports of version 2 name no processor; Turin's firmware is not known to
    /// have written any.
    #[must_use]
    pub fn is_turin(&self) -> bool {
        self.version.get() >= VERSION_FAMILY && self.cpuid_family >= FAMILY_TURIN
    }

    /// A TCB version of this report by its parts.
    #[must_use]
    pub fn tcb(&self, raw: [u8; 8]) -> TcbVersion {
        TcbVersion::decode(raw, self.is_turin())
    }

    /// Mitigations at the launch and now; `None` before the version that has them.
    #[must_use]
    pub fn mitigations(&self) -> Option<[u64; 2]> {
        let vectors = [
            self.launch_mitigations.get(),
            self.current_mitigations.get(),
        ];
        (self.version.get() >= VERSION_MITIGATIONS).then_some(vectors)
    }

    /// ABI of the running and of the committed firmware.
    #[must_use]
    pub fn abi(&self) -> [AbiVersion; 2] {
        [self.current_version, self.committed_version]
            .map(|[_, minor, major]| AbiVersion { major, minor })
    }
}
