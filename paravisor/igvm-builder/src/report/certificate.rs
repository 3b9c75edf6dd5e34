// SPDX-License-Identifier: MIT OR Apache-2.0
//! The signature of a report, by the key of a VCEK or VLEK certificate (VCEK certificate and KDS interface specification, AMD 57230).
//!
//! The certificate says for which TCB version and for which chip its key was derived. Firmware of an old, broken version has the key
//! of that version only; so a report that claims a newer one is caught here, and by nothing else. Whether the certificate itself is
//! AMD's is not looked at: the caller has checked the chain to AMD's root.

use p384::ecdsa::signature::Verifier;
use p384::ecdsa::{Signature, VerifyingKey};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, DecodePem};
use zerocopy::IntoBytes;

use crate::report::finding::{Finding, Hex};
use crate::report::layout::{AttestationReport, EcdsaSignature, SIGNED_BYTES, SigningKey};

/// Extensions: parts of the TCB version by the names of `TcbVersion`, the chip (VCEK), the cloud provider (VLEK).
const TCB_PARTS: [(&str, ObjectIdentifier); 4] = [
    ("bootloader", oid("1.3.6.1.4.1.3704.1.3.1")),
    ("tee", oid("1.3.6.1.4.1.3704.1.3.2")),
    ("snp", oid("1.3.6.1.4.1.3704.1.3.3")),
    ("microcode", oid("1.3.6.1.4.1.3704.1.3.8")),
];
const FMC: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.9");
const CHIP: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.4");
const PROVIDER: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.5");

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

/// Bytes of a coordinate or scalar.
const SCALAR_BYTES: usize = 48;
/// How a PEM file begins.
const PEM: &[u8] = b"-----BEGIN";

/// What a VCEK or VLEK certificate says.
#[derive(Debug, Clone)]
pub struct Certificate {
    key: VerifyingKey,
    kind: SigningKey,
    tcb: [Option<u8>; 4],
    fmc: Option<u8>,
    chip: Option<Vec<u8>>,
}

impl Certificate {
    /// Reads a certificate, DER or PEM.
    ///
    /// # Errors
    /// Why the bytes are no certificate of a P-384 key, in words that follow the file's name.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let parsed = if bytes.starts_with(PEM) {
            x509_cert::Certificate::from_pem(bytes)
        } else {
            x509_cert::Certificate::from_der(bytes)
        };
        let certificate = parsed.map_err(|_| "is no X.509 certificate (DER or PEM)")?;
        let certificate = certificate.tbs_certificate();
        let key = &certificate.subject_public_key_info().subject_public_key;
        let key = VerifyingKey::from_sec1_bytes(key.raw_bytes())
            .map_err(|_| "is not the certificate of a P-384 key")?;
        let extension = |id: ObjectIdentifier| {
            let all = certificate.extensions().into_iter().flatten();
            let mut found = all.filter(|one| one.extn_id == id);
            found.next().map(|one| one.extn_value.as_bytes())
        };
        let number = |id| extension(id).and_then(|value| u8::from_der(value).ok());
        let kind = match (extension(CHIP), extension(PROVIDER)) {
            (Some(_), None) => SigningKey::Vcek,
            (None, Some(_)) => SigningKey::Vlek,
            _ => return Err("is the certificate of neither a VCEK nor a VLEK"),
        };
        Ok(Self {
            key,
            kind,
            tcb: TCB_PARTS.map(|(_, id)| number(id)),
            fmc: number(FMC),
            chip: extension(CHIP).map(<[u8]>::to_vec),
        })
    }

    /// What is wrong with the signature of `report`, or with the certificate for it. Empty: the key signed this report, and it is the
    /// key of the TCB version and of the chip that the report claims.
    #[must_use]
    pub fn check(&self, report: &AttestationReport) -> Vec<Finding> {
        let mut findings = Vec::new();
        let signer = report.signing_key();
        if signer == SigningKey::None {
            return vec![Finding::NotSigned];
        }
        if signer != self.kind {
            findings.push(Finding::KeyKind {
                report: signer,
                certificate: self.kind,
            });
        }
        self.check_tcb(report, &mut findings);
        self.check_chip(report, &mut findings);
        findings.extend(self.check_signature(report));
        findings
    }

    fn check_tcb(&self, report: &AttestationReport, findings: &mut Vec<Finding>) {
        let reported = report.tcb(report.reported_tcb);
        let fmc = reported.fmc.map(|found| ("fmc", found, self.fmc));
        let parts = reported.parts().into_iter().zip(self.tcb);
        let parts = parts.map(|((part, found), certificate)| (part, found, certificate));
        for (part, found, certificate) in fmc.into_iter().chain(parts) {
            if certificate != Some(found) {
                findings.push(Finding::CertificateTcb {
                    part,
                    certificate,
                    found,
                });
            }
        }
    }

    /// A masked chip identifier is zero and compares with nothing. Turin's has 8 bytes, which zeros follow in the report.
    fn check_chip(&self, report: &AttestationReport, findings: &mut Vec<Finding>) {
        let Some(chip) = &self.chip else { return };
        let (found, rest) = report
            .chip_id
            .split_at(chip.len().min(report.chip_id.len()));
        let is_masked = report.chip_id.iter().all(|byte| *byte == 0);
        if !is_masked && (found != chip || rest.iter().any(|byte| *byte != 0)) {
            findings.push(Finding::Chip {
                certificate: Hex(chip.clone()),
                found: Hex(report.chip_id.to_vec()),
            });
        }
    }

    fn check_signature(&self, report: &AttestationReport) -> Option<Finding> {
        let algorithm = report.signature_algorithm.get();
        if algorithm != 1 {
            return Some(Finding::Algorithm(algorithm));
        }
        let Some(signature) = signature(&report.signature) else {
            return Some(Finding::SignatureForm);
        };
        let signed = &report.as_bytes()[..SIGNED_BYTES];
        let verified = self.key.verify(signed, &signature);
        verified.err().map(|_| Finding::SignatureWrong)
    }
}

/// The signature in the order of bytes that the rest of the world uses; `None` when a number is zero or too large.
fn signature(raw: &EcdsaSignature) -> Option<Signature> {
    let scalar = |number: &[u8; 72]| {
        let (low, high) = number.split_first_chunk::<SCALAR_BYTES>()?;
        let mut scalar = *low;
        scalar.reverse();
        high.iter().all(|byte| *byte == 0).then_some(scalar)
    };
    Signature::from_scalars(scalar(&raw.r)?, scalar(&raw.s)?).ok()
}
