// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be wrong with a report, one line each.

use std::fmt;

use crate::guest_policy::AbiVersion;
use crate::report::layout::SigningKey;

/// Bytes as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl fmt::Display for Hex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// Something that is not as a verifier wants it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// Another version of the structure.
    #[error("version: the report has version {0}, known are 2 to 5")]
    Version(u32),
    /// Another VM, or the same with another number of vCPUs.
    #[error("measurement: the report has {found}, expected {expected}")]
    Measurement {
        /// In the report.
        found: Hex,
        /// What the image has for that number of vCPUs.
        expected: Hex,
    },
    /// A flag of the policy.
    #[error("policy: '{name}' is {found}, expected {}", !*found)]
    PolicyFlag {
        /// Which one.
        name: &'static str,
        /// In the report.
        found: bool,
    },
    /// The least ABI of the policy.
    #[error("policy: it asks for ABI {found} of the firmware, expected {expected}")]
    PolicyAbi {
        /// In the report.
        found: AbiVersion,
        /// What the image has.
        expected: AbiVersion,
    },
    /// Bits of the policy that are not known.
    #[error("policy: reserved bits are {found:#x}, expected {expected:#x}")]
    PolicyReserved {
        /// In the report.
        found: u64,
        /// What the image has.
        expected: u64,
    },
    /// Firmware that is older than the policy asks for.
    #[error("policy: the {which} firmware has ABI {found}, the policy asks for {least}")]
    FirmwareAbi {
        /// Current or committed.
        which: &'static str,
        /// In the report.
        found: AbiVersion,
        /// What the policy asks for.
        least: AbiVersion,
    },
    /// The requester is at another level.
    #[error("vmpl: the report is for VMPL {found}, expected {expected}")]
    Vmpl {
        /// In the report.
        found: u32,
        /// The guest's.
        expected: u32,
    },
    /// A part of a TCB version is too old.
    #[error("tcb: {part} of the {which} TCB is {found}, at least {least} is wanted")]
    Tcb {
        /// Reported, committed, current or launch.
        which: &'static str,
        /// Which part.
        part: &'static str,
        /// In the report.
        found: u8,
        /// The minimum.
        least: u8,
    },
    /// The processor has a part for which there is no minimum.
    #[error("tcb: this processor has an FMC version, and no minimum for it was given (fmc=N)")]
    FmcWithoutMinimum,
    /// The processor lacks a part for which there is a minimum.
    #[error("tcb: a minimum for the FMC version was given, and this processor has none")]
    FmcMissing,
    /// A mitigation is not in force.
    #[error("mitigations: the vector {which} lacks the bits {missing:#x}")]
    Mitigations {
        /// Of the launch or of now.
        which: &'static str,
        /// Bits that are not set.
        missing: u64,
    },
    /// The report is too old for the vectors.
    #[error("mitigations: a report of version {0} has no mitigation vectors, version 5 has")]
    NoMitigations(u32),
    /// Nobody looked for aliases of memory.
    #[error("platform: the check for memory aliases is not complete (BadRAM, CVE-2024-21944)")]
    AliasCheck,
    /// SMT is on although the policy forbids it.
    #[error("platform: SMT is on, and the policy forbids it")]
    Smt,
    /// Ciphertext is not hidden although the policy wants it.
    #[error("platform: the ciphertext of memory is not hidden, and the policy wants it")]
    CiphertextHiding,
    /// RAPL is on although the policy forbids it.
    #[error("platform: RAPL is not disabled, and the policy wants it")]
    Rapl,
    /// The requester said something else.
    #[error("report data: the report has {found}, expected {expected}")]
    ReportData {
        /// In the report.
        found: Hex,
        /// What the verifier sent.
        expected: Hex,
    },
    /// The host passed something else.
    #[error("host data: the report has {found}, expected {expected}")]
    HostData {
        /// In the report.
        found: Hex,
        /// What is wanted.
        expected: Hex,
    },
    /// Another key signed the ID block, or there was none.
    #[error("id key: the report has the digest {found}, expected {expected}")]
    IdKeyDigest {
        /// In the report.
        found: Hex,
        /// What is wanted.
        expected: Hex,
    },
    /// Nobody signed.
    #[error("signature: the report is not signed")]
    NotSigned,
    /// An unknown algorithm.
    #[error("signature: algorithm {0} is unknown, known is 1 (ECDSA P-384 with SHA-384)")]
    Algorithm(u32),
    /// No number that a signature can have.
    #[error("signature: it has no form that ECDSA with P-384 can have")]
    SignatureForm,
    /// The signature is not by this key, or of other bytes.
    #[error("signature: it is not one of this report by the key of the certificate")]
    SignatureWrong,
    /// A certificate of the other kind.
    #[error(
        "certificate: the report says that {report:?} signed it, and the certificate is for {certificate:?}"
    )]
    KeyKind {
        /// In the report.
        report: SigningKey,
        /// By the extensions of the certificate.
        certificate: SigningKey,
    },
    /// The key belongs to another TCB version than the report claims.
    #[error("certificate: {part} of its TCB is {}, the report has {found}", certificate.map_or("missing".into(), |value| value.to_string()))]
    CertificateTcb {
        /// Which part.
        part: &'static str,
        /// In the certificate.
        certificate: Option<u8>,
        /// Reported TCB of the report.
        found: u8,
    },
    /// The key belongs to another chip.
    #[error("certificate: it is for the chip {certificate}, the report is of {found}")]
    Chip {
        /// In the certificate.
        certificate: Hex,
        /// In the report.
        found: Hex,
    },
}
