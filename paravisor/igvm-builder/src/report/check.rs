// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares a report with what a verifier wants.

use crate::guest_policy::{AbiVersion, GuestPolicy};
use crate::report::expectations::{Expectations, Wanted};
use crate::report::finding::{Finding, Hex};
use crate::report::layout::AttestationReport;
use crate::report::tcb::{MinimumTcb, TcbVersion};

/// Versions of the structure that are known.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=5;

/// What is not as wanted, but for the signature ([`crate::report::Certificate`]). Empty: all is.
#[must_use]
pub fn check(report: &AttestationReport, wanted: &Expectations) -> Vec<Finding> {
    let version = report.version.get();
    if !VERSIONS.contains(&version) {
        // Nothing is known of its other bytes.
        return vec![Finding::Version(version)];
    }
    let mut findings = Vec::new();
    if report.measurement != wanted.measurement {
        findings.push(Finding::Measurement {
            found: hex(&report.measurement),
            expected: hex(&wanted.measurement),
        });
    }
    check_policy(report.policy(), wanted.policy, &mut findings);
    check_abi(report, wanted.policy, &mut findings);
    let vmpl = report.vmpl.get();
    if vmpl != wanted.vmpl {
        findings.push(Finding::Vmpl {
            found: vmpl,
            expected: wanted.vmpl,
        });
    }
    if let Wanted::Value(minimum) = wanted.minimum_tcb {
        check_tcbs(report, minimum, &mut findings);
    }
    check_mitigations(report, wanted.mitigations, &mut findings);
    check_platform(report, wanted, &mut findings);
    check_bytes(report, wanted, &mut findings);
    findings
}

fn hex(bytes: &[u8]) -> Hex {
    Hex(bytes.to_vec())
}

fn check_policy(found: GuestPolicy, expected: GuestPolicy, findings: &mut Vec<Finding>) {
    for ((name, found), (_, expected)) in found.flags().into_iter().zip(expected.flags()) {
        if found != expected {
            findings.push(Finding::PolicyFlag { name, found });
        }
    }
    let (found_abi, expected_abi) = (least_abi(found), least_abi(expected));
    if found_abi != expected_abi {
        findings.push(Finding::PolicyAbi {
            found: found_abi,
            expected: expected_abi,
        });
    }
    if found.reserved() != expected.reserved() {
        findings.push(Finding::PolicyReserved {
            found: found.reserved(),
            expected: expected.reserved(),
        });
    }
}

const fn least_abi(policy: GuestPolicy) -> AbiVersion {
    AbiVersion {
        major: policy.abi_major(),
        minor: policy.abi_minor(),
    }
}

/// The firmware checks this at the launch; it may have been replaced since.
fn check_abi(report: &AttestationReport, policy: GuestPolicy, findings: &mut Vec<Finding>) {
    let least = least_abi(policy);
    for (which, found) in ["current", "committed"].into_iter().zip(report.abi()) {
        if found < least {
            findings.push(Finding::FirmwareAbi {
                which,
                found,
                least,
            });
        }
    }
}

fn check_tcbs(report: &AttestationReport, minimum: MinimumTcb, findings: &mut Vec<Finding>) {
    match (report.is_turin(), minimum.0.fmc) {
        (true, None) => findings.push(Finding::FmcWithoutMinimum),
        (false, Some(_)) => findings.push(Finding::FmcMissing),
        _ => {}
    }
    for (which, raw) in [
        ("reported", report.reported_tcb),
        ("committed", report.committed_tcb),
        ("current", report.current_tcb),
        ("launch", report.launch_tcb),
    ] {
        check_tcb(which, report.tcb(raw), minimum.0, findings);
    }
}

fn check_tcb(
    which: &'static str,
    found: TcbVersion,
    least: TcbVersion,
    findings: &mut Vec<Finding>,
) {
    let fmc = found
        .fmc
        .zip(least.fmc)
        .map(|(found, least)| ("fmc", found, least));
    let others = found.parts().into_iter().zip(least.parts());
    let parts = others.map(|((part, found), (_, least))| (part, found, least));
    for (part, found, least) in fmc.into_iter().chain(parts) {
        if found < least {
            findings.push(Finding::Tcb {
                which,
                part,
                found,
                least,
            });
        }
    }
}

fn check_mitigations(report: &AttestationReport, wanted: u64, findings: &mut Vec<Finding>) {
    if wanted == 0 {
        return;
    }
    let Some(vectors) = report.mitigations() else {
        findings.push(Finding::NoMitigations(report.version.get()));
        return;
    };
    for (which, vector) in ["of the launch", "of now"].into_iter().zip(vectors) {
        let missing = wanted & !vector;
        if missing != 0 {
            findings.push(Finding::Mitigations { which, missing });
        }
    }
}

/// The host's settings against what the policy demands of it. The firmware refuses a launch that contradicts them, so these agree
/// unless the host was set up anew.
fn check_platform(report: &AttestationReport, wanted: &Expectations, findings: &mut Vec<Finding>) {
    let (platform, policy) = (report.platform_info(), wanted.policy);
    if wanted.alias_check && !platform.alias_check_complete() {
        findings.push(Finding::AliasCheck);
    }
    if platform.smt() && !policy.smt() {
        findings.push(Finding::Smt);
    }
    if policy.ciphertext_hiding() && !platform.ciphertext_hiding() {
        findings.push(Finding::CiphertextHiding);
    }
    if policy.rapl_disabled() && !platform.rapl_disabled() {
        findings.push(Finding::Rapl);
    }
}

fn check_bytes(report: &AttestationReport, wanted: &Expectations, findings: &mut Vec<Finding>) {
    let differs = |wanted: Option<&[u8]>, found: &[u8]| {
        let expected = wanted.filter(|expected| *expected != found)?;
        Some((hex(found), hex(expected)))
    };
    if let Some((found, expected)) = differs(wanted.report_data.bytes(), &report.report_data) {
        findings.push(Finding::ReportData { found, expected });
    }
    if let Some((found, expected)) = differs(wanted.host_data.bytes(), &report.host_data) {
        findings.push(Finding::HostData { found, expected });
    }
    if let Some((found, expected)) = differs(wanted.id_key_digest.bytes(), &report.id_key_digest) {
        findings.push(Finding::IdKeyDigest { found, expected });
    }
}

impl<const BYTES: usize> Wanted<[u8; BYTES]> {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Value(bytes) => Some(bytes),
            Self::Any => None,
        }
    }
}
