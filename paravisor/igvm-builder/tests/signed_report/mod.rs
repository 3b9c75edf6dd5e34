// SPDX-License-Identifier: MIT OR Apache-2.0
//! A made-up report, and a made-up certificate of the key that signs it.

use std::sync::LazyLock;

use igvm_builder::report::{AttestationReport, SIGNED_BYTES};
use p384::ecdsa::signature::Signer;
use p384::ecdsa::{Signature, SigningKey};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Security versions of the report, Milan's and Genoa's layout.
pub const TCB: [u8; 8] = [10, 1, 0, 0, 0, 0, 27, 86];
const CHIP: [u8; 64] = [0x3c; 64];

/// A key of nobody's, and its point. Made once: the arithmetic takes its time in a build for tests.
static KEY: LazyLock<(SigningKey, Vec<u8>)> = LazyLock::new(|| {
    let key = SigningKey::from_bytes(&[7; 48].into()).expect("a scalar");
    let point = key.verifying_key().to_sec1_point(false);
    (key, point.as_bytes().to_vec())
});
static GOOD: LazyLock<AttestationReport> = LazyLock::new(|| sign(unsigned()));

/// A good report of a guest at VMPL2, signed.
pub fn report() -> AttestationReport {
    GOOD.clone()
}

fn unsigned() -> AttestationReport {
    let mut report = AttestationReport::new_zeroed();
    report.version = 5.into();
    report.policy = 0x202_0137.into();
    report.vmpl = 2.into();
    report.signature_algorithm = 1.into();
    report.platform_info = 0b11_0100.into();
    report.report_data[..4].copy_from_slice(b"once");
    report.measurement = [0x11; 48];
    report.host_data = [0x22; 32];
    report.id_key_digest = [0x33; 48];
    report.cpuid_family = 0x19;
    report.chip_id = CHIP;
    report.current_tcb = TCB;
    report.reported_tcb = TCB;
    report.committed_tcb = TCB;
    report.launch_tcb = TCB;
    report.current_version = [40, 55, 1];
    report.committed_version = [40, 55, 1];
    report.launch_mitigations = 7.into();
    report.current_mitigations = 15.into();
    report
}

/// The report with a signature of the bytes that it has now.
pub fn sign(report: AttestationReport) -> AttestationReport {
    let mut bytes = report.as_bytes().to_vec();
    let signature: Signature = KEY.0.sign(&bytes[..SIGNED_BYTES]);
    let (mut r, mut s) = signature.split_bytes();
    r.reverse();
    s.reverse();
    bytes[SIGNED_BYTES..SIGNED_BYTES + 48].copy_from_slice(&r);
    bytes[SIGNED_BYTES + 72..SIGNED_BYTES + 120].copy_from_slice(&s);
    AttestationReport::read_from_bytes(&bytes).expect("the same length")
}

/// An extension of a certificate: the last numbers of its identifier behind AMD's 1.3.6.1.4.1.3704.1, and its value.
pub type Extension = (Vec<u8>, Vec<u8>);

/// The extensions of the VCEK that signs [`report`].
pub fn vcek_extensions() -> Vec<Extension> {
    let number = |part: u8, value: u8| (vec![3, part], vec![2, 1, value]);
    vec![
        number(1, TCB[0]),
        number(2, TCB[1]),
        number(3, TCB[6]),
        number(8, TCB[7]),
        (vec![4], CHIP.to_vec()),
    ]
}

/// A certificate of that key with these extensions, DER. Nobody signed it.
pub fn certificate(extensions: &[Extension]) -> Vec<u8> {
    certificate_of(&KEY.1, extensions)
}

/// The same of another point.
pub fn certificate_of(point: &[u8], extensions: &[Extension]) -> Vec<u8> {
    // ecdsa-with-SHA384, id-ecPublicKey, secp384r1, commonName.
    let algorithm = tlv(0x30, &tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]));
    let curve = [
        tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]),
        tlv(6, &[0x2b, 0x81, 4, 0, 0x22]),
    ];
    let name = [tlv(6, &[0x55, 4, 3]), tlv(0xc, b"made-up")].concat();
    let name = tlv(0x30, &tlv(0x31, &tlv(0x30, &name)));
    let validity = [tlv(0x17, b"260101000000Z"), tlv(0x17, b"330101000000Z")];
    let key = [tlv(0x30, &curve.concat()), bits(point)];
    let extension = |(path, value): &Extension| {
        let identifier = [&[0x2b, 6, 1, 4, 1, 0x9c, 0x78, 1], path.as_slice()].concat();
        tlv(0x30, &[tlv(6, &identifier), tlv(4, value)].concat())
    };
    let extensions: Vec<u8> = extensions.iter().flat_map(extension).collect();
    let signed = [
        tlv(0xa0, &tlv(2, &[2])),
        tlv(2, &[1]),
        algorithm.clone(),
        name.clone(),
        tlv(0x30, &validity.concat()),
        name,
        tlv(0x30, &key.concat()),
        tlv(0xa3, &tlv(0x30, &extensions)),
    ];
    let whole = [tlv(0x30, &signed.concat()), algorithm, bits(&[0; 64])];
    tlv(0x30, &whole.concat())
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    tlv(3, &[&[0], bytes].concat())
}

/// Tag, length and contents (DER).
fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len()).expect("short").to_be_bytes();
    let length = match length {
        [0, short @ 0..=0x7f] => vec![short],
        [0, byte] => vec![0x81, byte],
        [high, low] => vec![0x82, high, low],
    };
    [vec![tag], length, contents.to_vec()].concat()
}
