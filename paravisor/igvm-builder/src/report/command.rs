// SPDX-License-Identifier: MIT OR Apache-2.0
//! `igvm-builder verify`: its options, and the verdict on a report.

use std::path::{Path, PathBuf};

use clap::Args;
use igvm::{IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader, IsolationType};
use igvm_defs::IgvmPlatformType;
use paravisor::layout::GUEST_VMPL;
use zerocopy::FromBytes;

use crate::guest_policy::GuestPolicy;
use crate::options::Switch;
use crate::report::certificate::Certificate;
use crate::report::check::check;
use crate::report::expectations::{Expectations, Wanted};
use crate::report::finding::Finding;
use crate::report::layout::AttestationReport;
use crate::report::tcb::MinimumTcb;
use crate::{igvm_framing, launch_digest};

/// What a report is to be compared with.
#[derive(Debug, Clone, Args)]
pub struct VerifyOptions {
    /// The attestation report: 1184 bytes, as configfs-tsm's outblob has them
    pub report: PathBuf,
    /// The IGVM file whose digest and policy the report has to have
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "digest",
        required_unless_present = "digest"
    )]
    pub image: Option<PathBuf>,
    /// Number of vCPUs that the VM was launched with: each has another digest
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 1,
        conflicts_with = "digest"
    )]
    pub cpus: u32,
    /// The digest itself
    #[arg(long, value_name = "HEX", value_parser = parse_hex::<48>, requires = "policy")]
    pub digest: Option<Bytes<48>>,
    /// The guest policy [default: the image's]
    #[arg(long, value_name = "NUMBER", value_parser = parse_number)]
    pub policy: Option<u64>,
    /// Least TCB version: bootloader=N,tee=N,snp=N,microcode=N and for Turin fmc=N, or `any`
    #[arg(long, value_name = "PARTS", value_parser = parse_wanted::<MinimumTcb>)]
    pub minimum_tcb: Wanted<MinimumTcb>,
    /// What the guest was told to put into the report, zeros may be left out at the end, or `any`
    #[arg(long, value_name = "HEX", value_parser = parse_report_data)]
    pub report_data: Wanted<[u8; 64]>,
    /// Certificate of the key that signed, VCEK or VLEK, DER or PEM; its chain to AMD has to be checked before
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "no_signature",
        required_unless_present = "no_signature"
    )]
    pub certificate: Option<PathBuf>,
    /// Do not check the signature: the report can be anybody's
    #[arg(long)]
    pub no_signature: bool,
    /// VMPL of whoever asked for the report: that of the guest
    #[arg(long, value_name = "NUMBER", default_value_t = u32::from(GUEST_VMPL))]
    pub vmpl: u32,
    /// Does the check for memory aliases have to be complete (BadRAM)?
    #[arg(long, value_enum, value_name = "ON|OFF", default_value = "on")]
    pub alias_check: Switch,
    /// Bits that the mitigation vectors need, of the launch and of now
    #[arg(long, value_name = "NUMBER", default_value = "0", value_parser = parse_number)]
    pub mitigations: u64,
    /// What the host has to have passed at the launch [default: anything]
    #[arg(long, value_name = "HEX", value_parser = parse_hex::<32>)]
    pub host_data: Option<Bytes<32>>,
    /// SHA-384 of the key that has to have signed the ID block [default: anything]
    #[arg(long, value_name = "HEX", value_parser = parse_hex::<48>)]
    pub id_key_digest: Option<Bytes<48>>,
}

/// A value of `COUNT` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes<const COUNT: usize>(pub [u8; COUNT]);

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What is wrong. Empty: the report is as wanted.
    pub findings: Vec<Finding>,
    /// What was not checked.
    pub unchecked: Vec<&'static str>,
}

/// Why there is no verdict. One line each: the cause, then the remedy.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The report has another length.
    #[error(
        "{} has {found} bytes and is no attestation report; pass the 1184 bytes of ATTESTATION_REPORT alone",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found: usize,
    },
    /// The image has no digest.
    #[error("{} {what}; pass the IGVM file that the VM was launched with", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The certificate has no key.
    #[error("{} {what}; pass the VCEK or VLEK certificate of the report", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A number of vCPUs that no image has.
    #[error("{0} vCPUs are impossible; pass 1 to 512")]
    Cpus(u32),
}

/// Judges the report of `options`.
///
/// # Errors
/// [`VerifyError`] when a file is not what it has to be. A bad report is a verdict, no error.
pub fn verify(options: &VerifyOptions) -> Result<Verdict, VerifyError> {
    let bytes = read(&options.report)?;
    let report = AttestationReport::read_from_bytes(&bytes).map_err(|_| VerifyError::Length {
        path: options.report.clone(),
        found: bytes.len(),
    })?;
    let expectations = expectations(options)?;
    let mut findings = check(&report, &expectations);
    if let Some(path) = &options.certificate {
        let certificate =
            Certificate::parse(&read(path)?).map_err(|what| VerifyError::Certificate {
                path: path.clone(),
                what,
            })?;
        findings.extend(certificate.check(&report));
    }
    Ok(Verdict {
        findings,
        unchecked: unchecked(options),
    })
}

/// What is not checked, by the name that a user knows it by.
fn unchecked(options: &VerifyOptions) -> Vec<&'static str> {
    let all = [
        (
            options.no_signature,
            "signature: the report can be anybody's",
        ),
        (
            options.certificate.is_some(),
            "certificate: its chain to AMD's root, without which the key can be anybody's (docs/ATTESTATION.md)",
        ),
        (
            options.minimum_tcb == Wanted::Any,
            "TCB versions: the firmware can be any, broken ones too",
        ),
        (
            options.report_data == Wanted::Any,
            "report data: the report can be an old one, or another guest's",
        ),
        (!options.alias_check.is_on(), "memory aliases (BadRAM)"),
    ];
    all.into_iter()
        .filter(|(left_out, _)| *left_out)
        .map(|(_, what)| what)
        .collect()
}

fn expectations(options: &VerifyOptions) -> Result<Expectations, VerifyError> {
    let (measurement, policy) = match (&options.image, options.digest) {
        (Some(path), _) => image(path, options.cpus)?,
        (None, digest) => (
            digest.map_or([0; 48], |digest| digest.0),
            GuestPolicy::new(),
        ),
    };
    let wanted = |given: Option<_>| given.map_or(Wanted::Any, Wanted::Value);
    Ok(Expectations {
        measurement,
        policy: options.policy.map_or(policy, GuestPolicy::from_bits),
        vmpl: options.vmpl,
        minimum_tcb: options.minimum_tcb,
        mitigations: options.mitigations,
        alias_check: options.alias_check.is_on(),
        report_data: options.report_data,
        host_data: options
            .host_data
            .map_or(Wanted::Any, |bytes| Wanted::Value(bytes.0)),
        id_key_digest: wanted(options.id_key_digest.map(|bytes| bytes.0)),
    })
}

/// Digest for `cpus` vCPUs and policy of an IGVM file.
fn image(path: &Path, cpus: u32) -> Result<([u8; 48], GuestPolicy), VerifyError> {
    if !(1..=512).contains(&cpus) {
        return Err(VerifyError::Cpus(cpus));
    }
    let refuse = |what: &str| VerifyError::Image {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let bytes = read(path)?;
    if !igvm_framing::is_framed(&bytes) {
        return Err(refuse("is no IGVM file"));
    }
    let file = IgvmFile::new_from_binary(&bytes, Some(IsolationType::Snp))
        .map_err(|error| refuse(&format!("is a damaged IGVM file ({error})")))?;
    let platforms = file
        .platforms()
        .iter()
        .map(|IgvmPlatformHeader::SupportedPlatform(one)| one);
    let mask = platforms
        .filter(|one| one.platform_type == IgvmPlatformType::SEV_SNP)
        .map(|one| one.compatibility_mask)
        .next()
        .ok_or_else(|| refuse("has no SEV-SNP platform"))?;
    let policy = file.initializations().iter().find_map(|one| match one {
        IgvmInitializationHeader::GuestPolicy {
            policy,
            compatibility_mask,
        } if compatibility_mask & mask != 0 => Some(GuestPolicy::from_bits(*policy)),
        _ => None,
    });
    let policy = policy.ok_or_else(|| refuse("has no guest policy"))?;
    let digest = launch_digest(file.directives(), mask, cpus)
        .map_err(|error| refuse(&format!("has no digest ({error})")))?;
    Ok((digest.0, policy))
}

fn read(path: &Path) -> Result<Vec<u8>, VerifyError> {
    std::fs::read(path).map_err(|source| VerifyError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Parses `COUNT` bytes, two digits each.
fn parse_hex<const COUNT: usize>(text: &str) -> Result<Bytes<COUNT>, String> {
    let bytes = hex_bytes(text)?;
    let count = bytes.len();
    let bytes = bytes.try_into().map_err(|_| {
        format!(
            "{count} bytes instead of {COUNT}; write {} digits",
            2 * COUNT
        )
    })?;
    Ok(Bytes(bytes))
}

fn hex_bytes(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u32>> = text.chars().map(|one| one.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2));
    let digits = digits
        .ok_or_else(|| format!("'{text}' are no bytes; write two hexadecimal digits for each"))?;
    let byte = |pair: &[u32]| {
        pair.iter().fold(0, |byte, digit| {
            byte << 4 | u8::try_from(*digit).unwrap_or(0)
        })
    };
    Ok(digits.chunks(2).map(byte).collect())
}

/// Parses up to 64 bytes, which zeros follow, or `any`.
fn parse_report_data(text: &str) -> Result<Wanted<[u8; 64]>, String> {
    if text == "any" {
        return Ok(Wanted::Any);
    }
    let given = hex_bytes(text)?;
    let mut bytes = [0; 64];
    match bytes.get_mut(..given.len()) {
        Some(start) if !given.is_empty() => start.copy_from_slice(&given),
        _ => return Err(format!("{} bytes; write 1 to 64", given.len())),
    }
    Ok(Wanted::Value(bytes))
}

fn parse_wanted<T: std::str::FromStr<Err = String>>(text: &str) -> Result<Wanted<T>, String> {
    match text {
        "any" => Ok(Wanted::Any),
        _ => text.parse().map(Wanted::Value),
    }
}

/// Parses a decimal or `0x` number.
fn parse_number(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| format!("'{text}' is no number; write it in decimal or with 0x"))
}
